"""From a song's tracks to the vocabulary's parts: who plays what, in which range, in which bars."""

from __future__ import annotations

import argparse
import copy
import dataclasses
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from backline.common.errors import UserError
from backline.music.bars import check_meters, check_notes, four_quarter_stretches, meters
from backline.music.choices import BY_OCTAVE, CUT, DROP, RANGES, SKIP, Choices, add_options, choices_of
from backline.music.parts import NO_PART, OTHER_METERS, OUT_OF_RANGE, arrange, assign_parts, fit_bars, fit_range
from backline.music.song import NO_NOTES, Song, TimeSignature, Track
from backline.music.vocab import BAR, FIRST_ID, START_POS, load_vocabulary
from tokenizer import parts_to_rows

VOCABULARY = load_vocabulary()
FEW_BARS = load_vocabulary(VOCABULARY.to_dict() | {"bars": 4})
TPQ = 48
BAR_TICKS = 4 * TPQ
DRUMS, BASS, PIANO = range(3)


def notes(*onsets: int, pitch: int = 40, length: int = 10) -> np.ndarray:
    return np.array([(onset, onset + length, pitch) for onset in onsets], np.int64).reshape(-1, 3)


def track(name: str, program: int, n_notes: int, is_drum: bool = False) -> Track:
    return Track(name, program, is_drum, notes(*range(0, 100 * n_notes, 100)))


def same(song: Song, other: Song) -> bool:
    return repr(song) == repr(other) and all((a.notes == b.notes).all()
                                             for a, b in zip(song.tracks, other.tracks, strict=True))


# ---------------------------------------------------------------- which track is which part

BAND = Song(TPQ, (track("Kit", 0, 3, True), track("silent", 33, 0), track("Fingered", 33, 5), track("Slap Bass", 36, 2),
                  track("Grand", 0, 4), track("Strings Hi", 48, 6), track("low STRINGS", 49, 7),
                  track("Perc", 0, 1, True), track("Lead", 81, 9)))


@pytest.mark.parametrize(("wanted", "part", "tracks", "why"), [
    ({}, "drums", [0, 7], "on the drum channel"),
    ({}, "bass", [3], "by name"),
    ({}, "piano", [4], "by program"),
    ({"bass": "all"}, "bass", [2, 3], "by name"),
    ({"bass": "most-notes"}, "bass", [3], "by name"),
    ({"bass": "fingered"}, "bass", [2], "asked for: fingered"),
    ({"drums": "most-notes"}, "drums", [0], "on the drum channel, most notes of 2 tracks"),
    ({"drums": "all"}, "drums", [0, 7], "on the drum channel"),
    ({"piano": "*strings*"}, "piano", [5, 6], "asked for: *strings*"),
    ({"piano": "Lead"}, "piano", [8], "asked for: Lead"),
    ({"piano": "lead"}, "piano", [8], "asked for: lead"),
    ({"piano": "48-49"}, "piano", [6], "asked for: 48-49"),
    ({"piano": "48"}, "piano", [5], "asked for: 48"),
    ({"piano": "0"}, "piano", [4], "asked for: 0"),  # and no drums, whose program is 0 as well
    ({"bass": "#2"}, "bass", [2], "asked for: #2"),  # the silent one does not count
    ({"bass": "#8"}, "bass", [8], "asked for: #8"),
    ({"bass": "#9"}, "bass", [], None), ({"bass": "none"}, "bass", [], None), ({"bass": "*tuba*"}, "bass", [], None),
    ({"bass": "100-127"}, "bass", [], None),
    ({"piano": "#3"}, "bass", [2], "by program"),  # what another part was given is no candidate any more
])
def test_who_plays_a_part(wanted, part, tracks, why):
    before = copy.deepcopy(BAND)
    found = assign_parts(BAND, VOCABULARY, wanted)
    assert found.tracks[part] == tracks
    assert found.why.get(part) == why
    p = VOCABULARY.part_names.index(part)
    assert sorted(found.notes[p].tolist()) == sorted(row for i in tracks for row in BAND.tracks[i].notes.tolist())
    assert found.notes[p].dtype == np.int64 and same(BAND, before)


def test_a_name_goes_before_programs_and_a_wish_before_a_name():
    song = Song(TPQ, (track("piano", 48, 1), track("", 0, 9), track("bass", 0, 2), track("bass", 33, 3)))
    found = assign_parts(song, VOCABULARY)
    assert found.tracks == {"drums": [], "bass": [2, 3], "piano": [0]}
    assert found.why == {"bass": "named so", "piano": "named so"}
    assert assign_parts(song, VOCABULARY, {"piano": "#2"}).tracks["piano"] == [1]


@given(st.permutations(range(4)))
def test_of_tracks_with_equally_many_notes_always_the_same_is_chosen(order):
    tracks = (track("x", 33, 4), track("y", 33, 4), track("x", 34, 4), Track("x", 33, False, notes(1, 2, 3, 4)))
    found = assign_parts(Song(TPQ, tuple(tracks[i] for i in order)), VOCABULARY)
    chosen, = found.tracks["bass"]
    assert order[chosen] == assign_parts(Song(TPQ, tracks), VOCABULARY).tracks["bass"][0]
    assert found.notes[BASS].tolist() == assign_parts(Song(TPQ, tracks), VOCABULARY).notes[BASS].tolist()


# ---------------------------------------------------------------- pitch ranges


@pytest.mark.parametrize("part", [BASS, PIANO])
def test_octave_moves_every_pitch_by_the_fewest_octaves(part):
    limits = VOCABULARY.parts[part]
    rows = np.stack([np.arange(128), np.arange(128) + 1, np.arange(128)], axis=1)
    before = rows.copy()
    moved, lost = fit_range(rows, limits, Choices(ranges=BY_OCTAVE, max_lost=0.0), "x")
    assert lost == 0 and (rows == before).all() and (moved[:, :2] == rows[:, :2]).all()
    for old, new in zip(range(128), moved[:, 2].tolist(), strict=True):
        inside = [pitch for pitch in range(limits.lowest_pitch, limits.highest_pitch + 1) if (pitch - old) % 12 == 0]
        assert new == min(inside, key=lambda pitch: abs(pitch - old))


def test_octave_drops_drums_and_names_the_song():
    with pytest.raises(UserError, match=r"^x: drums has too many notes outside pitches 35 to 81 \(1 of 1\); .*--max-l"):
        fit_range(notes(0, pitch=10), VOCABULARY.parts[DRUMS], Choices(ranges=BY_OCTAVE, max_lost=0.5), "x")


@pytest.mark.parametrize(("max_lost", "kept"), [(0.24, False), (0.25, True), (1.0, True), (0.0, False)])
def test_drop_leaves_out_up_to_the_share_that_may_be_lost(max_lost, kept):
    rows = np.concatenate([notes(0, 1, 2), notes(3, pitch=109)])
    before = rows.copy()
    choices = Choices(ranges=DROP, max_lost=max_lost)
    if kept:
        fitted, lost = fit_range(rows, VOCABULARY.parts[PIANO], choices, "x")
        assert fitted.tolist() == rows[:3].tolist() and lost == 1
    else:
        with pytest.raises(UserError, match=r"piano has too many notes .* \(1 of 4\)"):
            fit_range(rows, VOCABULARY.parts[PIANO], choices, "x")
    assert (rows == before).all()


@pytest.mark.parametrize("ranges", RANGES)
def test_notes_within_the_range_and_no_notes_stay_as_they_are(ranges):
    limits = VOCABULARY.parts[PIANO]
    inside = np.concatenate([notes(0, pitch=limits.lowest_pitch), notes(5, pitch=limits.highest_pitch)])
    for rows in (inside, NO_NOTES):
        fitted, lost = fit_range(rows, limits, Choices(ranges=ranges, max_lost=0.0), "x")
        assert (fitted == rows).all() and lost == 0


def test_skip_leaves_it_to_the_tokenizer_to_say_where():
    song = Song(TPQ, (Track("piano", 0, False, notes(0, pitch=127)),))
    assert arrange(song, VOCABULARY, Choices(ranges=SKIP), "x").pieces[0].parts[PIANO].tolist() == [[0, 10, 127]]


# ---------------------------------------------------------------- bars


def test_of_several_signatures_at_one_tick_the_last_holds():
    song = Song(TPQ, (), time_signatures=(TimeSignature(96, 3, 4), TimeSignature(96, 2, 2), TimeSignature(288, 6, 8)))
    assert [(tick, until, (each.numerator, each.denominator)) for (tick, until), each in meters(song)] == [
        (0, 96, (4, 4)), (96, 288, (2, 2)), (288, None, (6, 8))]


def test_what_cannot_be_played_is_named():
    with pytest.raises(UserError, match=r"^x: has no notes"):
        check_notes(Song(TPQ, (track("", 0, 0),)), "x")
    waltz = Song(TPQ, (Track("", 0, False, notes(BAR_TICKS)),), time_signatures=(TimeSignature(BAR_TICKS, 3, 4),))
    with pytest.raises(UserError, match=r"^x: bar 2 is in 3/4; .*its 4/4 part, or give --meters cut$"):
        check_meters(waltz, "x")
    check_meters(dataclasses.replace(waltz, time_signatures=(TimeSignature(BAR_TICKS + 1, 3, 4),)), "x")  # after all


def tokens(piece, vocabulary=VOCABULARY, tpq: int = TPQ) -> np.ndarray:
    return parts_to_rows(piece.parts, tpq, vocabulary, "x")


def step_of(onset: int, tpq: int) -> int:
    """Nearest step, a tie down, in fractions."""
    steps = Fraction(onset * VOCABULARY.steps_per_quarter, tpq)
    return -((Fraction(1, 2) - steps).__floor__())


@pytest.mark.parametrize("tpq", [8, 24, 50, 96, 480])
@pytest.mark.parametrize("bar", [VOCABULARY.bars, 2 * VOCABULARY.bars])
def test_long_songs_are_cut_where_the_rounded_onset_says(tpq, bar):
    """At ticks around the bar line, ties among them: each note is in the piece of the bar it is rounded to."""
    line = bar * 4 * tpq
    for onset in range(line - tpq // 8 - 1, line + tpq // 8 + 2):
        part = notes(0, onset, length=tpq * 8)
        song = Song(tpq, (Track("bass", 33, False, part),))
        pieces = fit_bars([NO_NOTES, part, NO_NOTES], song, VOCABULARY, Choices(long_songs=CUT), "x")
        expected = step_of(onset, tpq)
        piece = next(each for each in pieces if each.first_bar == expected // 32 // VOCABULARY.bars * VOCABULARY.bars)
        rows = tokens(piece, tpq=tpq) - FIRST_ID
        assert piece.first_bar * 32 + rows[-1, BAR] * 32 + rows[-1, START_POS] == expected
        assert sum(len(each.parts[BASS]) for each in pieces) == 2
        assert [each.first_bar for each in pieces] == sorted({0, piece.first_bar})  # none without notes
        assert all(each.parts[BASS][:, 1].max() <= VOCABULARY.bars * 4 * tpq for each in pieces[:-1])
    assert part.tolist() == notes(0, line + tpq // 8 + 1, length=tpq * 8).tolist()


PARTS = st.lists(st.tuples(st.sampled_from([BASS, PIANO]), st.integers(0, 13 * BAR_TICKS),
                           st.integers(1, 2 * BAR_TICKS), st.integers(40, 60)), min_size=1, max_size=20)


def parts_of(rows: list[tuple[int, int, int, int]]) -> list[np.ndarray]:
    return [np.array([(onset, onset + length, pitch) for part, onset, length, pitch in rows if part == p],
                     np.int64).reshape(-1, 3) for p in range(3)]


def song_of(parts: list[np.ndarray], **more) -> Song:
    return Song(TPQ, tuple(Track(name, 0, False, rows) for name, rows in zip(VOCABULARY.part_names, parts,
                                                                              strict=True)), **more)


@given(PARTS)
def test_pieces_put_together_are_the_song(rows):
    parts = parts_of(rows)
    before = copy.deepcopy(parts)
    pieces = fit_bars(parts, song_of(parts), FEW_BARS, Choices(long_songs=CUT), "x")
    assert all((old == new).all() for old, new in zip(before, parts, strict=True))
    found = []
    for piece in pieces:
        ids = tokens(piece, FEW_BARS)
        ids[:, BAR] += piece.first_bar
        assert piece.first_bar % FEW_BARS.bars == 0
        found += ids[:, [BAR, START_POS, 3]].tolist()
    whole = parts_to_rows(parts, TPQ, VOCABULARY, "x")
    assert found == whole[:, [BAR, START_POS, 3]].tolist()


def test_a_song_that_fits_is_one_piece_as_it_is():
    early = (TPQ - 1) // (2 * VOCABULARY.steps_per_quarter)
    last = 4 * BAR_TICKS - early - 1
    for onset, n_pieces in ((last, 1), (last + 1, 2)):
        parts = [NO_NOTES, notes(0, onset, length=5000), NO_NOTES]
        pieces = fit_bars(parts, song_of(parts), FEW_BARS, Choices(long_songs=CUT), "x")
        assert len(pieces) == n_pieces
        if n_pieces == 1:
            assert pieces[0].parts[BASS].tolist() == parts[BASS].tolist()
        with_skip = fit_bars(parts, song_of(parts), FEW_BARS, Choices(), "x")
        assert [piece.parts[BASS].tolist() for piece in with_skip] == [parts[BASS].tolist()]


SIGNATURES = st.lists(st.builds(TimeSignature, st.integers(0, 9 * BAR_TICKS), st.sampled_from([2, 3, 4, 4, 8]),
                                st.sampled_from([2, 4, 4, 8])), max_size=6).map(
    lambda each: tuple(sorted(each, key=lambda signature: signature.tick)))


@given(PARTS, SIGNATURES, st.integers(1, 4))
def test_stretches_of_four_quarters_agree_with_a_walk_tick_by_tick(rows, signatures, min_bars):
    parts = parts_of(rows)
    song = song_of(parts, time_signatures=signatures)
    before = copy.deepcopy(song)
    last = max(onset for _, onset, _, _ in rows)
    early = (TPQ - 1) // (2 * VOCABULARY.steps_per_quarter)
    is_four = np.ones(max([last, *(each.tick for each in signatures)]) + 2, bool)
    for each in signatures:
        is_four[each.tick:] = each.numerator == each.denominator
    stretches, tick = [], 0
    while tick < len(is_four):
        start = tick
        while tick < len(is_four) and is_four[tick] == is_four[start]:
            tick += 1
        if is_four[start] and start <= last and -(-(min(tick, last + 1) - start) // BAR_TICKS) >= min_bars:
            stretches.append((start, None if tick == len(is_four) else tick))
    assert four_quarter_stretches(song, min_bars) == stretches
    if is_four.all():
        stretches = [(0, None)]  # nothing to cut out, however short
    expected = [(start // BAR_TICKS, sorted(
        (part, max(onset - start, 0), pitch) for part, onset, _, pitch in rows
        if start - early <= onset and (end is None or onset < end - early))) for start, end in stretches]
    try:
        pieces = fit_bars(parts, song, VOCABULARY, Choices(meters=CUT, min_stretch_bars=min_bars), "x")
    except UserError as err:
        assert str(err).startswith("x: no stretch of") and not any(notes for _, notes in expected)
        return
    found = [(piece.first_bar, sorted((p, onset, pitch) for p, part in enumerate(piece.parts)
                                      for onset, _, pitch in part.tolist())) for piece in pieces]
    assert found == [each for each in expected if each[1]]
    for piece, end in zip(pieces, (end and end - start for (start, end), (_, inside) in
                                   zip(stretches, expected, strict=True) if inside), strict=True):
        assert all((part[:, 0] <= part[:, 1]).all() for part in piece.parts)
        assert end is None or all(part[:, 1].max(initial=0) <= end for part in piece.parts)
    assert same(song, before)


def test_no_stretch_that_is_long_enough_is_an_error():
    song = song_of([NO_NOTES, notes(0, 3 * BAR_TICKS), NO_NOTES], time_signatures=(TimeSignature(4 * BAR_TICKS, 3, 4),
                                                                                   TimeSignature(0, 3, 4)))
    with pytest.raises(UserError, match=r"^x: no stretch of 8 bars of four quarters; lower --min-stretch-bars"):
        arrange(song, VOCABULARY, Choices(meters=CUT), "x")


# ---------------------------------------------------------------- all of it

TRACKS = st.lists(st.builds(
    lambda name, program, is_drum, rows: Track(name, program, is_drum, np.array(
        [(onset, onset + 20, pitch) for onset, pitch in rows], np.int64).reshape(-1, 3)),
    st.sampled_from(["", "bass", "strings"]), st.sampled_from([0, 33, 48]), st.booleans(),
    st.lists(st.tuples(st.integers(0, 9 * BAR_TICKS), st.integers(0, 127)), max_size=6)), min_size=1, max_size=5)


@given(TRACKS, SIGNATURES, st.builds(
    Choices, ranges=st.sampled_from(RANGES), max_lost=st.sampled_from([0.2, 1.0]),
    long_songs=st.sampled_from([SKIP, CUT]), meters=st.sampled_from([SKIP, CUT]), min_stretch_bars=st.just(1),
    tracks=st.sampled_from([(), (("bass", "all"),), (("bass", "none"),), (("piano", "*str*"),), (("drums", "#1"),)])))
def test_every_note_is_kept_or_counted_as_lost(tracks, signatures, choices):
    song = Song(TPQ, tuple(tracks), time_signatures=signatures)
    before = copy.deepcopy(song)
    try:
        pieces, lost, facts = arrange(song, FEW_BARS, choices, "x")
    except UserError as err:
        assert str(err).startswith("x: ")
        return
    finally:
        assert same(song, before)
    kept = sum(len(part) for piece in pieces for part in piece.parts)
    assert kept + lost.total() == song.n_notes
    assert set(lost) == {NO_PART, OUT_OF_RANGE, OTHER_METERS} and min(lost.values()) >= 0
    assert sum(map(len, facts["parts"].values())) + len(facts["left_out"]) == sum(len(t.notes) > 0 for t in tracks)
    assert set(facts["why"]) == {name for name, found in facts["parts"].items() if found}


@pytest.mark.parametrize(("changes", "message"), [
    ({"ranges": "all"}, "ranges must be one of"), ({"max_lost": 1.01}, "max_lost 1.01 must be a share"),
    ({"max_lost": float("nan")}, "must be a share"), ({"long_songs": "x"}, "long_songs must be one of skip, cut"),
    ({"meters": "x"}, "meters must be one of skip, cut"), ({"min_stretch_bars": 0}, "at least 1")])
def test_choices_that_make_no_sense_are_an_error(changes, message):
    with pytest.raises(UserError, match=message):
        Choices(**changes)


# ---------------------------------------------------------------- options


def chosen(base: Choices, *argv: str) -> Choices:
    parser = argparse.ArgumentParser()
    add_options(parser, base)
    return choices_of(parser.parse_args(argv), base, VOCABULARY)


@pytest.mark.parametrize(("base", "argv", "option"), [
    (Choices(), ["--max-lost", "0.5"], "--max-lost"),
    (Choices(ranges=DROP), ["--max-lost", "0.5", "--ranges", "skip"], "--max-lost"),
    (Choices(), ["--min-stretch-bars", "8"], "--min-stretch-bars"),  # the default, but somebody asked for it
    (Choices(meters=CUT), ["--min-stretch-bars", "2", "--meters", "skip"], "--min-stretch-bars")])
def test_an_option_that_another_leaves_without_effect_is_an_error(base, argv, option):
    with pytest.raises(UserError, match=f"^{option}: has no effect with .* skip; give "):
        chosen(base, *argv)


@pytest.mark.parametrize(("base", "argv", "changes"), [
    (Choices(ranges=DROP), ["--max-lost", "0.5"], {"max_lost": 0.5}),
    (Choices(), ["--max-lost", "0.5", "--ranges", "octave"], {"max_lost": 0.5, "ranges": BY_OCTAVE}),
    (Choices(meters=CUT), ["--min-stretch-bars", "2"], {"min_stretch_bars": 2}),
    # a file of choices holds all of them
    (Choices(ranges=DROP, max_lost=0.5), ["--ranges", "skip"], {"ranges": SKIP}),
    (Choices(min_stretch_bars=2), [], {})])
def test_options_go_before_the_choices_of_a_file(base, argv, changes):
    assert chosen(base, *argv) == dataclasses.replace(base, **changes)
