"""What songs are like in numbers: against MusPy, against slow obvious versions, and on songs made for it."""

from __future__ import annotations

import math

import hypothesis
import muspy
import numpy as np
import pytest
from hypothesis import strategies as st
from random_songs import VOCABULARY, random_song

from backline.evaluation.measures import (
    DISTANCES,
    NoteColumns,
    empty_bars,
    groove_consistency,
    in_chord,
    jaccard,
    measure_song,
    pattern_regularity,
    strokes_in_bars,
)
from backline.music.vocab import BAR, FIRST_ID, NOTE_DUR, PITCH_INSTRUMENT, START_POS

STEPS = VOCABULARY.steps_per_bar
DRUMS, BASS, PIANO = (VOCABULARY.first_pitch_ids[p] for p in range(3))


def song(*notes: tuple[int, int, int, int]) -> np.ndarray:
    """(N, F) ids of notes given as bar, place in it, steps long, pitch_instrument id."""
    return np.array([(FIRST_ID + bar, FIRST_ID + start, FIRST_ID + length - 1, id_)
                     for bar, start, length, id_ in sorted(notes)])


def as_music(rows: np.ndarray) -> muspy.Music:
    tracks = []
    for p, part in enumerate(VOCABULARY.parts):
        own = rows[VOCABULARY.part_of_id[rows[:, PITCH_INSTRUMENT]] == p]
        tracks.append(muspy.Track(is_drum=part.is_drum, notes=[
            muspy.Note(time=int((row[BAR] - FIRST_ID) * STEPS + row[START_POS] - FIRST_ID),
                       pitch=int(VOCABULARY.pitch_of_id[row[PITCH_INSTRUMENT]]),
                       duration=int(row[NOTE_DUR] - FIRST_ID + 1)) for row in own]))
    return muspy.Music(resolution=VOCABULARY.steps_per_quarter, tracks=tracks)


def end_of(rows: np.ndarray) -> int:
    return int(((rows[:, BAR] - FIRST_ID) * STEPS + rows[:, START_POS] - FIRST_ID + rows[:, NOTE_DUR] - FIRST_ID
                + 1).max())


@hypothesis.given(st.integers(0, 10_000), st.integers(2, 60), st.integers(1, 12))
def test_muspy_finds_the_same(seed, n_notes, n_bars):
    rows = random_song(seed, n_notes, n_bars)
    found, music = measure_song(rows, VOCABULARY), as_music(rows)
    for name, value in (("pitch-class entropy", muspy.pitch_class_entropy(music)),
                        ("scale consistency", muspy.scale_consistency(music)),
                        ("polyphony", muspy.polyphony(music)),
                        ("pitch range", muspy.pitch_range(music))):
        if math.isnan(found[name]):
            assert math.isnan(value) or name == "pitch range"
        else:
            assert found[name] == pytest.approx(value), name
    if end_of(rows) % STEPS:  # else MusPy counts a bar that is not there, see below
        expected = muspy.groove_consistency(music, STEPS)
        assert found["groove consistency"] == pytest.approx(expected, nan_ok=True)
        last_notes = [note for track in music.tracks for note in track.notes if note.end % STEPS == 0]
        if not last_notes:  # and a bar line at which a note ends it takes for a step of the next bar
            assert found["empty bars"] == pytest.approx(muspy.empty_measure_rate(music, STEPS))


def test_no_bar_follows_the_last_bar_line():
    rows = song((0, 0, STEPS, PIANO), (1, 0, STEPS, PIANO))
    assert muspy.groove_consistency(as_music(rows), STEPS) == pytest.approx(1 - 1 / (2 * STEPS))
    found = measure_song(rows, VOCABULARY)
    assert found["bars"] == 2
    assert found["groove consistency"] == 1


def test_few_notes_are_consistent_but_not_alike():
    rows = song((0, 3, 1, DRUMS), (1, 5, 1, DRUMS), (2, 7, 1, DRUMS))
    found = measure_song(rows, VOCABULARY)
    assert found["groove consistency"] > 0.9
    assert found["groove similarity"] == 0


@hypothesis.given(st.integers(0, 10_000), st.integers(1, 60), st.integers(1, 20))
def test_moving_a_song_up_changes_no_relation(seed, n_notes, n_bars):
    """Bass and piano moved together: all but the pitch-class names stays."""
    rows = random_song(seed, n_notes, n_bars)
    ids = rows[:, PITCH_INSTRUMENT]
    rows = rows[(ids < PIANO - 5) | ((ids >= PIANO) & (ids < VOCABULARY.sizes[-1] - 5))]  # that stay in range
    if not len(rows):
        return
    moved = rows.copy()
    moved[:, PITCH_INSTRUMENT] += np.where(rows[:, PITCH_INSTRUMENT] >= BASS, 5, 0)
    before, after = (measure_song(each, VOCABULARY) for each in (rows, moved))
    assert list(before) == list(after)
    assert np.allclose(list(before.values()), list(after.values()), equal_nan=True)


def test_self_similarity_finds_the_phrase():
    """Four different bars, again and again: the same after four and eight bars, and never after one or two."""
    rows = song(*((bar, bar % 4, 1, PIANO + bar % 4) for bar in range(16)))
    found = measure_song(rows, VOCABULARY)
    by_distance = [found[f"self-similarity {distance}"] for distance in DISTANCES]
    np.testing.assert_equal(by_distance, [0, 0, 1, 1, np.nan])


@hypothesis.given(st.integers(0, 10_000), st.integers(1, 30), st.sampled_from(DISTANCES))
def test_alike_bars_by_sets(seed, n_bars, distance):
    rows = random_song(seed, 40, n_bars)
    bars = [{(row[START_POS], row[PITCH_INSTRUMENT]) for row in rows.tolist() if row[BAR] == FIRST_ID + bar}
            for bar in range(-(-end_of(rows) // STEPS))]
    shares = [len(one & other) / len(one | other) for one, other in zip(bars, bars[distance:], strict=False)
              if one | other]
    expected = np.mean(shares) if shares else np.nan
    assert measure_song(rows, VOCABULARY)[f"self-similarity {distance}"] == pytest.approx(expected, nan_ok=True)


def test_the_bass_in_the_chord():
    c, e, g, f_sharp = 60, 64, 67, 42
    chord = [(bar, 0, STEPS, PIANO + pitch - 21) for bar in range(2) for pitch in (c, e, g)]
    rows = song(*chord, (0, 0, STEPS // 2, BASS + 48 - 21), (0, STEPS // 2, STEPS // 2, BASS + f_sharp - 21),
                (1, STEPS // 2, 2, BASS + 40 - 21))  # C, F# and E; the bass is silent on the first beat of bar 1
    assert measure_song(rows, VOCABULARY)["bass in the chord of piano"] == pytest.approx(2 / 3)
    silent = measure_song(song(*chord), VOCABULARY)
    assert math.isnan(silent["bass in the chord of piano"])
    assert math.isnan(silent["bass: polyphony"])
    assert silent["bass: empty bars"] == 1


def test_the_lowest_bass_note_counts_and_beats_two_and_four_do_not():
    piano = NoteColumns(np.array([0]), np.array([STEPS]), np.array([60]), np.array([PIANO]))
    onset, pitch = np.array([0, 0, STEPS // 4]), np.array([48, 41, 48])
    two = NoteColumns(onset, onset + 4, pitch, np.zeros(3, int))
    assert in_chord(two, piano, VOCABULARY) == 0
    assert in_chord(two.only(np.array([True, False, True])), piano, VOCABULARY) == 1


def test_bars():
    notes = NoteColumns(np.array([0, 1, STEPS, 4 * STEPS]), np.array([1, 2 * STEPS + 1, STEPS + 1, 4 * STEPS + 1]),
                  np.full(4, 40), np.full(4, BASS))
    assert empty_bars(notes, 6, STEPS) == pytest.approx(2 / 6)  # bar 2 still rings, 3 and 5 are silent
    struck = strokes_in_bars(notes, 6, STEPS)
    assert struck.sum(1).tolist() == [2, 1, 0, 0, 1, 0]
    assert pattern_regularity(struck) == pytest.approx(2 / 3)
    assert jaccard(struck[:1], struck[1:2]) == 0.5
    assert math.isnan(groove_consistency(struck[:1]))


def test_one_note_has_what_one_note_has():
    found = measure_song(song((0, 0, 1, DRUMS)), VOCABULARY)
    assert found["bars"] == found["notes per bar"] == found["drums: pieces"] == 1
    assert math.isnan(found["pitch-class entropy"])
