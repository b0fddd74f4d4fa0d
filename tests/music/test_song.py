"""MIDI files as arrays of notes: where notes end, what is damaged, which track plays which part."""

from __future__ import annotations

import copy

import miditoolkit
import mido
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from midi_bytes import (
    DRUM_CHANNEL,
    midi_file,
    note,
    notes_of,
    tempo,
    time_signature,
)

from backline.common.errors import UserError
from backline.music.bars import check_playable
from backline.music.midi_reader import read_song, song_from_miditoolkit
from backline.music.midi_writer import end_at_next_onset, parts_to_bytes, parts_to_midi
from backline.music.parts import assign_parts
from backline.music.song import Song, Track
from backline.music.vocab import Part, Vocabulary, load_vocabulary

VOCABULARY = load_vocabulary()


# ---------------------------------------------------------------- tempo and bars


@pytest.mark.parametrize(("tempos", "expected"), [
    ([], 120.0),
    ([(0, 500_000)], 120.0),
    ([(0, 600_000)], 100.0),
    ([(48, 600_000)], 120.0),           # 120 before it, and until half of the song
    ([(47, 600_000)], 100.0),
    ([(0, 600_000), (30, 400_000), (60, 600_000)], 100.0),
    ([(0, 600_000), (10, 400_000)], 150.0),
    ([(0, 400_000), (0, 600_000)], 100.0),  # the last of one tick is in force
    ([(0, 600_000), (0, 400_000)], 150.0),
    ([(0, 600_000), (96, 400_000), (9600, 300_000)], 100.0),  # nothing sounds after 96
])
def test_main_tempo_is_the_one_in_force_for_most_of_the_song(tempos, expected):
    song = read_song("song.mid", midi_file([tempo(*change) for change in tempos], note(0, 96, 60)))
    assert song.main_tempo() == expected


def test_main_tempo_of_an_object_is_the_same(tmp_path):
    path = tmp_path / "song.mid"
    path.write_bytes(midi_file([tempo(0, 600_000), tempo(10, 461_538)], note(0, 96, 60)))
    assert song_from_miditoolkit(miditoolkit.MidiFile(path)).main_tempo() == read_song(path).main_tempo() == 130.0


def in_bars(signatures: list[tuple[int, int, int]]) -> Song:
    """A song of one note, in bar 1 of 4/4."""
    return read_song("song.mid", midi_file([time_signature(*each) for each in signatures], note(384, 500, 60)))


@pytest.mark.parametrize("signatures", [
    [(0, 4, 2)], [(0, 2, 1)], [(0, 8, 3)], [],
    [(0, 3, 2), (0, 4, 2)],   # replaced at once
    [(0, 4, 2), (400, 3, 2)],  # no onset under it
])
def test_bars_of_four_quarters_are_playable(signatures):
    check_playable(in_bars(signatures), "x")


@pytest.mark.parametrize(("signatures", "message"), [
    ([(0, 3, 2)], "bar 1 is in 3/4"),
    ([(0, 4, 2), (0, 3, 2)], "bar 1 is in 3/4"),   # replaces 4/4 at once
    ([(0, 4, 2), (384, 5, 2)], "bar 2 is in 5/4"),
    ([(0, 2, 2), (96, 4, 2)], "bar 1 is in 2/4"),
])
def test_other_bars_are_named(signatures, message):
    with pytest.raises(UserError, match=f"x: {message}"):
        check_playable(in_bars(signatures), "x")


# ---------------------------------------------------------------- parts


def a_track(label: str, number: int, n_notes: int, is_drum: bool = False) -> Track:
    onsets = np.arange(n_notes) * 10
    return Track(label, number, is_drum, np.stack([onsets, onsets + 5, np.full(n_notes, 50)], axis=1))


@pytest.mark.parametrize(("tracks", "chosen"), [
    pytest.param([("drums", 0, 1, True), ("Kit", 0, 9, True), ("bass", 90, 1), ("", 33, 9), ("piano", 90, 1),
                  ("", 0, 9)], {"drums": [0, 1], "bass": [2], "piano": [4]}, id="an exact name wins"),
    pytest.param([("bass", 0, 2), ("bass", 0, 1)], {"drums": [], "bass": [0, 1], "piano": []},
                 id="all tracks of the name"),
    pytest.param([("Bass", 0, 3), ("bass 1", 33, 2)], {"drums": [], "bass": [1], "piano": []},
                 id="letter case and more words do not matter"),
    pytest.param([("a", 0, 1, True), ("b", 25, 2, True)], {"drums": [0, 1], "bass": [], "piano": []},
                 id="every drum track"),
    pytest.param([("", 32, 1), ("", 39, 2), ("", 38, 1)], {"drums": [], "bass": [1], "piano": []},
                 id="bass with the most notes"),
    pytest.param([("", 31, 1), ("", 40, 5), ("", 95, 2), ("", 8, 9), ("", 96, 9), ("", 16, 1)],
                 {"drums": [], "bass": [], "piano": [2]}, id="piano with the most notes"),
    pytest.param([("piano", 33, 1), ("", 120, 1)], {"drums": [], "bass": [], "piano": [0]},
                 id="a named track fills no other part"),
    pytest.param([("piano", 0, 0), ("", 24, 2)], {"drums": [], "bass": [], "piano": [1]},
                 id="an empty track fills nothing"),
])
def test_roles(tracks, chosen):
    song = Song(96, tuple(a_track(*each) for each in tracks))
    notes, found, *_ = assign_parts(song, VOCABULARY)
    assert found == chosen
    assert [len(rows) for rows in notes] == [sum(tracks[i][2] for i in indices) for indices in chosen.values()]


@pytest.mark.parametrize(("number", "part"), [
    (0, "piano"), (7, "piano"), (8, None), (15, None), (16, "piano"), (23, "piano"), (24, "piano"), (31, "piano"),
    (32, "bass"), (39, "bass"), (40, None), (87, None), (88, "piano"), (95, "piano"), (96, None), (127, None)])
def test_programs_of_each_part(number, part):
    _, chosen, *_ = assign_parts(Song(96, (a_track("", number, 1),)), VOCABULARY)
    assert [name for name, indices in chosen.items() if indices] == ([part] if part else [])


def test_of_two_tracks_alike_but_for_their_notes_the_same_is_chosen_in_either_order():
    tracks = tuple(Track("", 0, False, np.array([[onset, onset + 5, 60]])) for onset in (0, 10))
    notes = [assign_parts(Song(96, order), VOCABULARY)[0][2].tolist() for order in (tracks, tracks[::-1])]
    assert notes[0] == notes[1] and len(notes[0]) == 1


def test_a_track_plays_one_part_where_two_would_take_it():
    vocabulary = Vocabulary(8, 32, 8, tuple(Part(part, False, 0, ((0, 7),), 0, 127) for part in ("left", "right")))
    tracks = a_track("", 0, 1), a_track("", 1, 2), a_track("", 2, 3)
    assert assign_parts(Song(96, tracks), vocabulary)[1] == {"left": [2], "right": [1]}
    assert assign_parts(Song(96, tracks[:1]), vocabulary)[1] == {"left": [0], "right": []}


@given(data=st.data())
def test_track_order_does_not_matter(data):
    tracks = data.draw(st.lists(st.builds(a_track, st.sampled_from(["", "bass", "drums", "x"]),
                                          st.sampled_from([0, 16, 33, 34, 120]), st.integers(0, 3), st.booleans()),
                                max_size=6))
    shuffled = data.draw(st.permutations(tracks))
    notes, *_ = assign_parts(Song(96, tuple(tracks)), VOCABULARY)
    others, *_ = assign_parts(Song(96, tuple(shuffled)), VOCABULARY)
    for rows, other in zip(notes, others, strict=True):
        assert sorted(rows.tolist()) == sorted(other.tolist())


# ---------------------------------------------------------------- writing

NOTES = st.lists(st.tuples(st.integers(0, 40), st.integers(0, 30), st.sampled_from([60, 61, 62])), max_size=30).map(
    lambda rows: np.array([(onset, onset + length, pitch) for onset, length, pitch in rows], np.int64).reshape(-1, 3))


@given(NOTES)
def test_end_at_next_onset_agrees_with_a_slow_obvious_version(notes):
    before = notes.copy()
    expected = []
    for onset, pitch in sorted({(onset, pitch) for onset, _, pitch in notes.tolist()}):
        longest = max(end for start, end, other in notes.tolist() if (start, other) == (onset, pitch))
        following = [start for start, _, other in notes.tolist() if other == pitch and start > onset]
        expected.append([onset, min([longest, *following]), pitch])
    assert end_at_next_onset(notes).tolist() == expected
    assert (notes == before).all()


@given(parts=st.tuples(NOTES, NOTES, NOTES), division=st.sampled_from([8, 96, 480]), beats=st.floats(30, 300))
def test_both_writers_hold_the_same_song(scratch, parts, division, beats):
    parts = [rows[rows[:, 1] > rows[:, 0]] for rows in parts]
    paths = scratch / "fast.mid", scratch / "object.mid"
    paths[0].write_bytes(parts_to_bytes(parts, VOCABULARY, division, beats))
    parts_to_midi(parts, VOCABULARY, division, beats).dump(paths[1])
    for song in map(read_song, paths):
        notes, *_ = assign_parts(song, VOCABULARY)
        assert song.ticks_per_quarter == division
        assert song.main_tempo() == pytest.approx(beats, rel=1e-4)
        assert [(each.numerator, each.denominator, each.tick) for each in song.time_signatures] == [(4, 4, 0)]
        for rows, written in zip(notes, parts, strict=True):
            assert sorted(rows.tolist()) == sorted(end_at_next_onset(written).tolist())


@given(NOTES)
def test_notes_of_length_zero_survive_writing(scratch, notes):
    """A file of notes without overlaps is written as it was read, also where a note has no length."""
    rows = end_at_next_onset(notes)
    path = scratch / "zero.mid"
    path.write_bytes(parts_to_bytes([rows[:0], rows, rows[:0]], VOCABULARY, 96))
    assert notes_of(read_song(path)) == sorted(rows.tolist())


def test_both_writers_write_a_track_per_part_empty_or_not(tmp_path):
    parts = [np.array([[0, 10, 42]]), np.zeros((0, 3), int), np.zeros((0, 3), int)]
    (tmp_path / "fast.mid").write_bytes(parts_to_bytes(parts, VOCABULARY, 96))
    parts_to_midi(parts, VOCABULARY, 96).dump(tmp_path / "object.mid")
    for file in ("fast.mid", "object.mid"):
        programs = {each.name: [(message.channel == DRUM_CHANNEL, message.program) for message in each
                                if message.type == "program_change"]
                    for each in mido.MidiFile(tmp_path / file).tracks if each.name}
        assert programs == {"drums": [(True, 0)], "bass": [(False, 38)], "piano": [(False, 0)]}


def test_dump_leaves_the_object_as_it_is(tmp_path):
    overlapping = np.array([[0, 96, 60], [24, 48, 60], [0, 24, 64]])
    midi = parts_to_midi([overlapping[:0], overlapping[:0], overlapping], VOCABULARY, 96, 100.0)
    before = copy.deepcopy(midi)
    midi.dump(tmp_path / "song.mid")
    assert type(midi) is type(before)
    assert describe(midi) == describe(before)
    assert notes_of(song_from_miditoolkit(midi)) == sorted(overlapping.tolist())
    assert notes_of(read_song(tmp_path / "song.mid")) == [[0, 24, 60], [0, 24, 64], [24, 48, 60]]


def describe(midi: miditoolkit.MidiFile) -> list:
    """Everything that a MIDI object holds, as plain values."""
    return [midi.ticks_per_beat, midi.max_tick, str(midi.tempo_changes), str(midi.time_signature_changes),
            [(each.name, each.program, each.is_drum, str(each.notes)) for each in midi.instruments]]
