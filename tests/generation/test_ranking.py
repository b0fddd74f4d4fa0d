"""Ranking: each mark by examples that show what it hears, and the order it makes."""

from __future__ import annotations

import numpy as np
import pytest
from written_songs import NOTHING, notes

from backline.generation.config import RuleConfig
from backline.generation.ranking import Judge, Score, copied_share, groove_mark, key_mark, likelihood_mark, rank
from backline.music.theory import SCALES, best_scale, scale_pitch_classes
from backline.music.vocab import load_vocabulary

VOCABULARY = load_vocabulary()
STEPS = VOCABULARY.steps_per_bar
NO_RULES = RuleConfig()


def scale_run(bar: int, tonic: int, scale: str = "major") -> np.ndarray:
    return notes(*((bar, 4 * i, "piano", 60 + tonic + step) for i, step in enumerate(SCALES[scale])))


@pytest.mark.parametrize(("pitch_classes", "name"), [
    ([0, 2, 4, 5, 7, 9, 11, 0, 0], "C major"), ([9, 9, 9, 11, 0, 2, 4, 5, 7], "A minor"), ([1, 3, 5, 6, 8, 10, 0, 1],
                                                                                           "Db major")])
def test_best_scale(pitch_classes, name):
    found, classes = best_scale(np.bincount(pitch_classes, minlength=12))
    assert found == name
    assert classes == scale_pitch_classes(*name.split())


def test_likelihood_mark_is_1_in_the_middle_half_and_falls_on_both_sides():
    means = [1.0, 2.0, 3.0, 4.0, 5.0]  # the middle half: 2 to 4
    assert [likelihood_mark(mean, means) for mean in (2.0, 3.0, 4.0)] == [1, 1, 1]
    assert likelihood_mark(1.0, means) == likelihood_mark(5.0, means) == 0.5
    assert likelihood_mark(-9.0, means) == 0
    assert likelihood_mark(1.0, [1.0]) == likelihood_mark(1.0, [1.0, 1.0, 1.0]) == 1
    assert likelihood_mark(2.0, [1.0, 1.0, 1.0, 1.0, 2.0]) == 0


def test_key_mark_is_the_share_in_the_key_of_what_is_known():
    g_major, f_sharp_major = np.concatenate([scale_run(0, 7), notes((0, 30, "piano", 67))]), scale_run(1, 6)
    assert key_mark(g_major, g_major, VOCABULARY, NO_RULES) == ("G major", 1.0)
    name, share = key_mark(f_sharp_major, g_major, VOCABULARY, NO_RULES)
    assert name == "G major"
    assert share == pytest.approx(2 / 7)  # B and F# are in both
    kicks = notes((0, 0, "drums", 36), (0, 8, "drums", 38))
    assert key_mark(kicks, g_major, VOCABULARY, NO_RULES) == ("", None)
    alone = key_mark(f_sharp_major, NOTHING, VOCABULARY, NO_RULES)
    assert key_mark(f_sharp_major, kicks, VOCABULARY, NO_RULES) == alone and alone[1] == 1.0
    asked = RuleConfig(key="E", scale="minor")  # the notes of G major
    assert key_mark(g_major, f_sharp_major, VOCABULARY, asked) == ("E minor", 1.0)


def test_groove_mark_compares_where_in_the_bar_notes_begin():
    on_beats = notes(*((0, step, "drums", 36) for step in (0, 8, 16, 24)))
    off_beats = notes(*((1, step, "drums", 36) for step in (4, 12, 20, 28)))
    half = notes(*((bar, step, "bass", 40) for bar in (1, 2) for step in (0, 8, 4, 12)))
    assert groove_mark(on_beats, on_beats, STEPS) == 1
    assert groove_mark(off_beats, on_beats, STEPS) == 0
    assert groove_mark(half, on_beats, STEPS) == pytest.approx(0.5)
    assert groove_mark(np.concatenate([on_beats, off_beats]), on_beats, STEPS) == pytest.approx(0.5)


def test_copies_are_of_known_bars_and_of_earlier_ones():
    bar = ((0, "drums", 36), (8, "bass", 40))
    known = notes(*((0, *note) for note in bar))
    same = notes(*((number, *note) for number in (1, 2) for note in bar))
    assert copied_share(same, known) == 1
    assert copied_share(same, NOTHING) == 0.5
    longer = same.copy()
    longer[:, 2] += 5
    assert copied_share(longer, known) == 1  # a copy by what is struck
    assert copied_share(notes((1, 0, "drums", 36)), known) == 0


def test_the_best_come_first_and_say_why():
    known = np.concatenate([scale_run(0, 0), scale_run(1, 0, "major_pentatonic")])
    good, off_key, copy = scale_run(2, 0, "dorian"), scale_run(2, 6), scale_run(2, 0)
    good[0, 1] += 1
    good[:, 3] += 12
    good[2, 3] += 1  # E for the dorian's Eb
    silent = NOTHING
    surprise = [np.full(len(rows), 1.5) for rows in (off_key, silent, copy, good)]
    ranked = rank([off_key, silent, copy, good], surprise, known, Judge(VOCABULARY, NO_RULES))
    assert ranked[0][0] == 3
    assert {i for i, _ in ranked} == {0, 2, 3}
    totals = [score.total for _, score in ranked]
    assert totals == sorted(totals, reverse=True)
    by_index = dict(ranked)
    assert by_index[2].fresh == 0 and by_index[2].copied == 1 and by_index[3].fresh == 1
    text = by_index[2].describe()
    assert "1.50 nats/note" in text and "in C major" in text and "100% of the bars copied" in text
    assert rank([silent], [np.zeros(0)], known, Judge(VOCABULARY, NO_RULES)) == []


def test_a_mark_that_does_not_apply_is_left_out():
    score = Score(None, 1.0, None, 0.5, 0.0, 1.2, "", 1.0)
    assert score.total == pytest.approx(0.5)
    assert " in " not in score.describe().split("fresh")[0]
