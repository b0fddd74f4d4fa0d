"""Chords: found in songs made of them, moved with the song, read from text and named as musicians name them."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from random_songs import BAND, VOCABULARY, random_song, whole
from written_songs import block_chords, middle_song, moved_song, note

from backline.common.errors import UserError
from backline.music import chords
from backline.music.chords import (
    CHORD_BASS,
    CHORD_QUALITY,
    CHORD_ROOT,
    FIRST_VALUE,
    NONE,
    QUALITIES,
    UNKNOWN,
    chord_name,
    chord_pitch_classes,
    estimate_chords,
    parse_chords,
    transposed_chords,
)
from backline.music.theory import OCTAVE
from backline.music.vocab import BAR, FIRST_ID, NOTE_DUR, PITCH_INSTRUMENT

HALF = VOCABULARY.steps_per_bar // 2


def ids(text: str) -> list[list[int]]:
    return parse_chords(text).chords.tolist()


def refused(text: str) -> str:
    with pytest.raises(UserError) as error:
        parse_chords(text)
    assert "\n" not in str(error.value)
    return str(error.value)


# ---------------------------------------------------------------- from notes


@pytest.mark.parametrize("root", range(OCTAVE))
@pytest.mark.parametrize("progression", ["C C Am Am F F G G", "C Am F G", "Cm Ab Eb Bb", "Dm7 G7 Cmaj7 Am7",
                                         "Em7:.5 A7:.5 Dmaj7", "Bdim E7 Am", "C Caug F", "Gsus G C", "C/E F G/B C",
                                         "Am - F - G:2 -:.5 C:.5"])
def test_progressions_are_found_exactly_on_every_root(progression, root):
    played = transposed_chords(parse_chords(progression).half_bars(16), root)
    assert estimate_chords(block_chords(played), VOCABULARY, 0, 8).tolist() == played.tolist()


@pytest.mark.parametrize("quality", range(len(QUALITIES)))
@pytest.mark.parametrize("root", range(OCTAVE))
def test_every_chord_is_found_when_it_alone_is_played(root, quality):
    played = np.tile(np.array([root, quality, root], np.uint8) + FIRST_VALUE, (4, 1))
    assert estimate_chords(block_chords(played), VOCABULARY, 0, 2).tolist() == played.tolist()


def test_a_vocabulary_of_seven_parts():
    played = parse_chords("Am F C/E G7").half_bars(8)
    assert estimate_chords(block_chords(played, BAND), BAND, 0, 4).tolist() == played.tolist()


def test_notes_ring_on_into_later_half_bars():
    rows = np.array([note(HALF, 5 * HALF, 48 + pitch) for pitch in (0, 4, 7)])
    found = estimate_chords(rows, VOCABULARY, 0, 4)
    assert [chord_name(row) for row in found] == ["-", *["C"] * 5, "-", "-"]


@given(seed=st.integers(0, 99))
def test_sound_is_counted_as_a_slow_version_counts_it(seed):
    rows, first_bar, n_halves = whole(random_song(seed)), 1, 5
    half_bar, step, pitch = chords._sounding(rows, VOCABULARY, first_bar, n_halves)
    expected = []
    for bar, start, duration, pitch_instrument in rows.tolist():
        if bar < FIRST_ID or VOCABULARY.part_of_id[pitch_instrument] == 0:
            continue
        onset = (bar - FIRST_ID - first_bar) * 2 * HALF + start - FIRST_ID
        for sounding in range(onset, onset + duration - FIRST_ID + 1):
            if 0 <= sounding < n_halves * HALF:
                expected.append((sounding // HALF, sounding, VOCABULARY.pitch_of_id[pitch_instrument]))
    assert sorted(zip(half_bar.tolist(), step.tolist(), pitch.tolist(), strict=True)) == sorted(expected)


@given(seed=st.integers(0, 99))
def test_the_best_path_is_that_of_all_paths(seed):
    scores = np.random.default_rng(seed).random((5, 3)) * 0.5
    paths = np.stack(np.meshgrid(*[range(3)] * 5, indexing="ij"), axis=-1).reshape(-1, 5)
    costs = np.resize(chords.CHANGE_COSTS, 5)
    totals = scores[np.arange(5), paths].sum(axis=1) - ((np.diff(paths) != 0) * costs[1:]).sum(axis=1)
    assert chords.best_path(scores, costs).tolist() == paths[totals.argmax()].tolist()


@given(seed=st.integers(0, 99), semitones=st.integers(-6, 6))
def test_moving_a_song_moves_its_chords(seed, semitones):
    rows = middle_song(seed)
    moved = estimate_chords(moved_song(rows, semitones), VOCABULARY, 0, 6)
    assert moved.tolist() == transposed_chords(estimate_chords(rows, VOCABULARY, 0, 6), semitones).tolist()


@given(seed=st.integers(0, 99))
def test_order_special_rows_and_drums_do_not_matter(seed):
    rows = random_song(seed)
    melodic = rows[VOCABULARY.part_of_id[rows[:, PITCH_INSTRUMENT]] > 0]
    expected = estimate_chords(rows, VOCABULARY, 0, 4).tolist()
    assert estimate_chords(whole(melodic[::-1]).astype(np.int16), VOCABULARY, 0, 4).tolist() == expected


def test_where_little_sounds_there_is_no_chord():
    silence = [[NONE] * 3] * 4
    assert estimate_chords(np.zeros((0, 4), int), VOCABULARY, 0, 2).tolist() == silence
    assert estimate_chords(whole(np.zeros((0, 4), int)), VOCABULARY, 0, 2).tolist() == silence
    assert estimate_chords(np.array([note(0, 1, 40)]), VOCABULARY, 0, 2).tolist() == silence
    drums = np.array([note(step, HALF, 36, "drums") for step in range(0, 4 * HALF, HALF)])
    assert estimate_chords(drums, VOCABULARY, 0, 2).tolist() == silence
    assert estimate_chords(drums, VOCABULARY, 0, 0).shape == (0, 3)


def test_all_twelve_notes_at_once_are_no_chord():
    rows = np.array([note(step, HALF, pitch) for step in (0, HALF) for pitch in range(48, 60)])
    assert [chord_name(row) for row in estimate_chords(rows, VOCABULARY, 0, 1)] == ["-", "-"]


def test_a_bare_fifth_is_minor_among_minor_chords():
    rows = block_chords(parse_chords("Am").half_bars(8))
    fifths = rows[(rows[:, BAR] != FIRST_ID + 1) | (VOCABULARY.pitch_of_id[rows[:, PITCH_INSTRUMENT]] % OCTAVE != 0)]
    assert len(fifths) == len(rows) - 2
    assert {chord_name(row) for row in estimate_chords(fifths, VOCABULARY, 0, 4)} == {"Am"}


def test_the_last_legal_bar_and_the_bars_before_the_first():
    last = VOCABULARY.bars - 1
    rows = block_chords(parse_chords("F").half_bars(2))
    rows[:, BAR] += last
    rows[:, NOTE_DUR] = VOCABULARY.sizes[NOTE_DUR] - 1  # far beyond the last bar
    found = estimate_chords(rows, VOCABULARY, last - 1, 2)
    assert [chord_name(row) for row in found] == ["-", "-", "F", "F"]
    assert estimate_chords(rows, VOCABULARY, 0, VOCABULARY.bars).shape == (2 * VOCABULARY.bars, 3)


# ---------------------------------------------------------------- names and notes


def test_names():
    names = ["C", "Am/C", "F#7", "Bbmaj7", "Ebm7/Db", "Bdim", "Caug", "Gsus", "-"]
    progression = parse_chords(" ".join(names))
    assert list(progression.names) == names and not progression.notices
    assert [chord_name(row) for row in progression.chords[::2]] == names


@pytest.mark.parametrize("field", [CHORD_ROOT, CHORD_QUALITY, CHORD_BASS])
def test_what_is_not_known_or_not_there(field):
    row = parse_chords("Am/C").chords[0].copy()
    row[field] = UNKNOWN
    assert chord_name(row) == "?" and chord_pitch_classes(row) == frozenset()
    none = np.full(3, NONE, np.uint8)
    assert chord_name(none) == "-" and chord_pitch_classes(none) == frozenset()


@pytest.mark.parametrize(("text", "expected"), [("C", {0, 4, 7}), ("Am/C", {9, 0, 4}), ("G/F#", {7, 11, 2, 6}),
                                                ("Bm7", {11, 2, 6, 9}), ("Dsus", {2, 7, 9}), ("Eaug", {4, 8, 0})])
def test_pitch_classes_include_the_bass(text, expected):
    assert chord_pitch_classes(parse_chords(text).chords[0]) == expected


def test_transposing_leaves_what_is_no_chord_and_its_argument():
    before = np.array([[[UNKNOWN] * 3, [NONE] * 3], [[13, 5, 2], [2, UNKNOWN, 13]]], np.uint8)
    copy = before.copy()
    after = transposed_chords(before, 1)
    assert after.tolist() == [[[UNKNOWN] * 3, [NONE] * 3], [[2, 5, 3], [3, UNKNOWN, 2]]]
    assert after.dtype == np.uint8 and (before == copy).all()
    assert (transposed_chords(after, -1) == before).all()
    assert (transposed_chords(before, 12) == before).all()


# ---------------------------------------------------------------- from text


@pytest.mark.parametrize("text", ["Am F C G", "Am, F, C, G", "| Am | F | C | G |", "Am|F,C\nG",
                                  "Am:1 F:1.0 C:.5 C:0.5 G"])
def test_separators_and_lengths(text):
    assert ids(text) == ids("Am:1 F:1 C:1 G:1") and len(ids(text)) == 8


def test_a_length_is_in_bars():
    assert parse_chords("F:2").chords.shape == (4, 3)
    assert ids("F:.5 -:1.5") == [ids("F")[0], *[[NONE] * 3] * 3]


def test_it_is_repeated_and_cut():
    progression = parse_chords("Am F:.5")
    am, f = ids("Am")[0], ids("F")[0]
    assert progression.half_bars(8).tolist() == [am, am, f, am, am, f, am, am]
    assert progression.half_bars(1).tolist() == [am]
    assert progression.half_bars(0).shape == (0, 3)
    assert progression.half_bars(8).dtype == np.uint8


@pytest.mark.parametrize(("text", "same"), [("B♭m7", "Bbm7"), ("F♯/A♯", "F#/Bb"), ("Cb", "B"), ("E#", "F"),
                                            ("Gbb", "F"), ("Amin", "Am"), ("Cmaj", "C"), ("CM7", "Cmaj7"),
                                            ("Gsus4", "Gsus"), ("A-", "Am"), ("Amin7", "Am7"), ("C/C", "C")])
def test_other_spellings_mean_the_same_and_need_no_notice(text, same):
    assert ids(text) == ids(same) and parse_chords(text).notices == ()


@pytest.mark.parametrize(("text", "nearest"), [
    ("Cmaj9", "Cmaj7"), ("C6", "C"), ("C6/9", "C"), ("Cm6", "Cm"), ("C9", "C7"), ("C13", "C7"), ("Am9", "Am7"),
    ("Bm7b5", "Bdim"), ("Bdim7", "Bdim"), ("C7#5", "Caug"), ("Csus2", "Csus"), ("G7sus4", "Gsus"), ("E7#9", "E7"),
    ("C5", "C"), ("Cadd9", "C"), ("CmM7", "Cm"), ("Dm11/G", "Dm7/G"),
])
def test_a_chord_we_lack_is_the_nearest_with_a_line_that_says_so(text, nearest):
    progression = parse_chords(f"{text} {text}")
    assert progression.chords[:2].tolist() == ids(nearest)
    assert progression.notices == (f"{text} is played as {nearest}",)


def test_whatever_the_library_knows_becomes_some_chord_of_that_root():
    from pychord import QualityManager

    for quality in QualityManager().get_qualities():
        assert (parse_chords(f"Eb{quality}").chords[:, CHORD_ROOT] == FIRST_VALUE + 3).all()


@pytest.mark.parametrize(("text", "where"), [
    ("Am H", "chord 2, 'H': no chord; give a root in capitals"), ("am", "chord 1, 'am': no chord"),
    ("C Gfoo F", "chord 2, 'Gfoo'"), ("C/H", "chord 1, 'C/H'"), ("C/3", "chord 1, 'C/3'"), (":2", "chord 1, ':2'"),
    ("C/", "chord 1, 'C/'"), ("C F--", "chord 2, 'F--'"),
])
def test_what_is_no_chord_is_an_error_that_says_which_one(text, where):
    assert refused(text).startswith(where)
    assert "followed by m, 7, maj7, m7, dim, aug, sus" in refused(text)


@pytest.mark.parametrize("length", ["", "0", ".25", "1.3", "-1", "x", "1e1", "inf", "nan", "1025", ".", "2:2"])
def test_a_length_that_is_no_half_bars_is_an_error(length):
    assert refused(f"Am F:{length}").startswith(f"chord 2, 'F:{length}': lasts no whole number of half bars; give .5")


def test_a_long_item_is_cut_in_the_message():
    assert len(refused(f"F:{'9' * 5000}")) < 200 and len(refused("F" * 5000)) < 300


@pytest.mark.parametrize("text", ["", " ", " , |"])
def test_no_chord_at_all_is_an_error(text):
    assert refused(text) == f"chords {text!r}: names none; give some, such as 'Am F C G'"


@given(text=st.text("ABCGabm7#♭/:.-|, 2529dimsuj+()o", max_size=12) | st.text(max_size=8))
def test_any_text_is_chords_or_one_line(text):
    try:
        progression = parse_chords(text)
    except UserError as err:
        assert len(str(err).splitlines()) == 1
    else:
        assert len(progression.chords) and progression.chords.min() >= NONE


def test_importing_the_module_imports_neither_torch_nor_the_library():
    code = "import sys; import backline.music.chords; sys.exit(bool({'torch', 'pychord'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
