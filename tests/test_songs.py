"""MIDI files as arrays of notes: where notes end, what is damaged, which track plays which part."""

from __future__ import annotations

import copy
import itertools
from pathlib import Path

import miditoolkit
import mido
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from midi_bytes import (
    BAD_FILES,
    DRUM_CHANNEL,
    END_OF_TRACK,
    header,
    meta,
    midi_file,
    name,
    note,
    off,
    on,
    program,
    tempo,
    three_parts,
    time_signature,
    track,
)

from errors import UserError
from midi_reader import read_song, song_from_miditoolkit
from songs import Song, Track, assign_parts, check_playable, end_at_next_onset, parts_to_bytes, parts_to_midi
from vocab import Part, Vocabulary, load_vocabulary

VOCABULARY = load_vocabulary()


@pytest.fixture
def song_of(tmp_path):
    """Reads a song from the bytes of a file."""
    def read(data: bytes) -> Song:
        path = tmp_path / "song.mid"
        path.write_bytes(data)
        return read_song(path)
    return read


def notes_of(song: Song) -> list[list[int]]:
    """Onset, end, pitch of all notes, sorted."""
    return sorted(row for each in song.tracks for row in each.notes.tolist())


# ---------------------------------------------------------------- where notes end


@pytest.mark.parametrize(("events", "notes"), [
    pytest.param([on(0, 60), on(10, 60), off(20, 60), off(30, 60)], [[0, 20, 60], [10, 20, 60]], id="on on off off"),
    pytest.param([on(0, 60), on(10, 60), off(20, 60)], [[0, 20, 60], [10, 20, 60]], id="on on off"),
    pytest.param([on(0, 60), off(10, 60), on(10, 60), off(20, 60)], [[0, 10, 60], [10, 20, 60]], id="off, on at once"),
    pytest.param([on(0, 60), on(10, 60), off(10, 60), off(20, 60)], [[0, 10, 60], [10, 20, 60]], id="on, off at once"),
    pytest.param([on(0, 60), off(0, 60), on(10, 60), off(20, 60)], [[0, 0, 60], [10, 20, 60]], id="length zero"),
    pytest.param([on(0, 60), off(10, 60), off(20, 60)], [[0, 10, 60]], id="one note-off too many"),
    pytest.param([off(0, 60), on(10, 60), off(20, 60)], [[10, 20, 60]], id="note-off first"),
    pytest.param([on(0, 60), off(5, 62), (96, meta(1, b"end"))], [[0, 96, 60]], id="never switched off"),
    pytest.param([on(0, 60), on(10, 60), off(20, 60), on(30, 60), (96, meta(1, b"end"))],
                 [[0, 20, 60], [10, 20, 60], [30, 96, 60]], id="last never switched off"),
    pytest.param([*(on(10 * i, 60) for i in range(40)), (500, meta(1, b"end"))],
                 [[10 * i, 500, 60] for i in range(40)], id="none ever switched off"),
    pytest.param([*(on(10 * i, 60) for i in range(40)), off(395, 60), (500, meta(1, b"end"))],
                 [[10 * i, 395, 60] for i in range(40)], id="one note-off for many"),
    pytest.param([on(0, 60), on(0, 60, 1), off(10, 60, 1), off(20, 60)], [[0, 10, 60], [0, 20, 60]], id="two channels"),
    pytest.param([on(0, 60), (10, b"\x90\x3c\x00")], [[0, 10, 60]], id="velocity 0 is a note-off"),
])
def test_a_note_ends_at_the_first_note_off_after_its_onset(song_of, events, notes):
    assert notes_of(song_of(midi_file(events))) == notes


def test_tracks_do_not_switch_off_each_others_notes(song_of):
    assert notes_of(song_of(midi_file(note(0, 30, 60), note(5, 10, 60)))) == [[0, 30, 60], [5, 10, 60]]


MESSAGES = st.lists(st.tuples(st.integers(1, 300), st.booleans(), st.sampled_from([60, 61]),
                              st.sampled_from([0, DRUM_CHANNEL])), min_size=1, max_size=40)


@given(messages=MESSAGES, rest=st.integers(1, 300))
def test_note_ends_agree_with_a_slow_obvious_reader(scratch, messages, rest):
    ticks = itertools.accumulate(gap for gap, *_ in messages)
    events = [(tick, *message[1:]) for tick, message in zip(ticks, messages, strict=True)]
    end_of_track = events[-1][0] + rest
    expected = []
    for tick, is_on, pitch, channel in events:
        if is_on:
            releases = [later for later, *message in events if later > tick and message == [False, pitch, channel]]
            expected.append([tick, min(releases, default=end_of_track), pitch])
    path = scratch / "messages.mid"
    path.write_bytes(header(1) + track([(on if is_on else off)(tick, pitch, channel)
                                        for tick, is_on, pitch, channel in events], end_of_track))
    assert notes_of(read_song(path)) == sorted(expected)


@given(messages=MESSAGES)
def test_a_miditoolkit_object_of_a_file_gives_the_notes_that_it_holds(scratch, messages):
    """miditoolkit pairs first in, first out, and loses what is never switched off; the rest ends as read_song says."""
    ticks = itertools.accumulate(gap for gap, *_ in messages)
    path = scratch / "object.mid"
    path.write_bytes(midi_file([(on if is_on else off)(tick, pitch, channel) for tick, (_, is_on, pitch, channel)
                                in zip(ticks, messages, strict=True)]))
    midi = miditoolkit.MidiFile(path)
    held = sorted((note.start, note.pitch) for instrument in midi.instruments for note in instrument.notes)
    notes = notes_of(song_from_miditoolkit(midi))
    assert sorted((onset, pitch) for onset, _, pitch in notes) == held
    assert all(row in notes_of(read_song(path)) for row in notes)


# ---------------------------------------------------------------- the shape of files


def test_bytes_before_the_header_are_skipped(song_of):
    assert notes_of(song_of(b"RIFF1234RMIDdata5678" + three_parts())) == notes_of(song_of(three_parts()))


def test_bytes_after_the_last_track_are_skipped(song_of):
    assert notes_of(song_of(three_parts() + b"junk, whatever it says")) == notes_of(song_of(three_parts()))


def test_chunks_of_other_kinds_are_skipped(song_of):
    data = header(1) + b"XFIH" + (3).to_bytes(4, "big") + b"abc" + track(note(0, 10, 60))
    assert notes_of(song_of(data)) == [[0, 10, 60]]


def test_a_longer_header_is_read(song_of):
    data = header(1).replace(b"\0\0\0\x06", b"\0\0\0\x08", 1) + b"\0\0" + track([on(0, 60), (10, meta(1, b""))])
    assert notes_of(song_of(data)) == [[0, 10, 60]]


def test_running_status(song_of):
    body = bytes([0, 0x90, 60, 100, 10, 60, 0, 0, 62, 100, 10, 62, 0, 0]) + END_OF_TRACK
    data = header(1) + b"MTrk" + len(body).to_bytes(4, "big") + body
    assert notes_of(song_of(data)) == [[0, 10, 60], [10, 20, 62]]


def test_format_0_is_split_by_channel(song_of):
    song = song_of(midi_file([program(33, 1), *note(0, 10, 60, 0), *note(0, 10, 42, DRUM_CHANNEL),
                              *note(10, 20, 40, 1)], midi_format=0))
    assert {(each.program, each.is_drum, tuple(each.notes[0])) for each in song.tracks} == {
        (0, False, (0, 10, 60)), (33, False, (10, 20, 40)), (0, True, (0, 10, 42))}


def test_a_track_without_an_end_is_read(song_of):
    body = bytes([0, 0x90, 60, 100, 10, 0x80, 60, 0])
    assert notes_of(song_of(header(1) + b"MTrk" + len(body).to_bytes(4, "big") + body)) == [[0, 10, 60]]


def test_names_are_stripped_and_may_be_of_any_encoding(song_of):
    song = song_of(midi_file([name(" bass "), *note(0, 10, 40)], [name("Fl\xf6te"), *note(0, 10, 60)]))
    assert song.tracks[0].name == "bass"
    assert song.tracks[1].name.startswith("Fl")


@pytest.mark.parametrize("case", [case for case, (_, message) in BAD_FILES.items()
                                  if case not in ("past the last bar", "no part", "no note of a part")])
def test_a_bad_file_is_an_error_that_names_it_and_the_fault(song_of, case):
    data, message = BAD_FILES[case]
    with pytest.raises(UserError) as error:
        check_playable(song_of(data), "song.mid")
    assert message in str(error.value)
    assert "song.mid: " in str(error.value) and "\n" not in str(error.value)


def test_every_cut_of_a_file_is_an_error(song_of):
    data = three_parts()
    for length in range(len(data)):
        with pytest.raises(UserError, match=r"song\.mid: "):
            song_of(data[:length])


def test_a_missing_file_is_named():
    with pytest.raises(UserError, match=r"absent\.mid: no such file"):
        read_song(Path("absent.mid"))


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
def test_main_tempo_is_the_one_in_force_for_most_of_the_song(song_of, tempos, expected):
    song = song_of(midi_file([tempo(*change) for change in tempos], note(0, 96, 60)))
    assert song.main_tempo() == expected


def test_main_tempo_of_an_object_is_the_same(tmp_path):
    path = tmp_path / "song.mid"
    path.write_bytes(midi_file([tempo(0, 600_000), tempo(10, 461_538)], note(0, 96, 60)))
    assert song_from_miditoolkit(miditoolkit.MidiFile(path)).main_tempo() == read_song(path).main_tempo() == 130.0


@pytest.mark.parametrize("signatures", [
    [(0, 4, 2)], [(0, 2, 1)], [(0, 8, 3)], [],
    [(0, 3, 2), (0, 4, 2)],   # replaced at once
    [(0, 4, 2), (400, 3, 2)],  # no onset under it
])
def test_bars_of_four_quarters_are_playable(song_of, signatures):
    check_playable(song_of(midi_file([time_signature(*each) for each in signatures], note(384, 500, 60))), "x")


@pytest.mark.parametrize(("signatures", "message"), [
    ([(0, 3, 2)], "bar 0 is in 3/4"),
    ([(0, 4, 2), (0, 3, 2)], "bar 0 is in 3/4"),   # replaces 4/4 at once
    ([(0, 4, 2), (384, 5, 2)], "bar 1 is in 5/4"),
    ([(0, 2, 2), (96, 4, 2)], "bar 0 is in 2/4"),
])
def test_other_bars_are_named(song_of, signatures, message):
    with pytest.raises(UserError, match=f"x: {message}"):
        check_playable(song_of(midi_file([time_signature(*each) for each in signatures], note(384, 500, 60))), "x")


# ---------------------------------------------------------------- parts


def a_track(label: str, number: int, n_notes: int, is_drum: bool = False) -> Track:
    onsets = np.arange(n_notes) * 10
    return Track(label, number, is_drum, np.stack([onsets, onsets + 5, np.full(n_notes, 50)], axis=1))


@pytest.mark.parametrize(("tracks", "chosen"), [
    pytest.param([("drums", 0, 1, True), ("Kit", 0, 9, True), ("bass", 90, 1), ("", 33, 9), ("piano", 90, 1),
                  ("", 0, 9)], {"drums": [0], "bass": [2], "piano": [4]}, id="an exact name wins"),
    pytest.param([("bass", 0, 2), ("bass", 0, 1)], {"drums": [], "bass": [0, 1], "piano": []},
                 id="all tracks of the name"),
    pytest.param([("Bass", 0, 3), ("bass 1", 33, 2)], {"drums": [], "bass": [1], "piano": [0]},
                 id="another spelling is no name"),
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
    notes, found = assign_parts(song, VOCABULARY)
    assert found == chosen
    assert [len(rows) for rows in notes] == [sum(tracks[i][2] for i in indices) for indices in chosen.values()]


@pytest.mark.parametrize(("number", "part"), [
    (0, "piano"), (7, "piano"), (8, None), (15, None), (16, "piano"), (23, "piano"), (24, "piano"), (31, "piano"),
    (32, "bass"), (39, "bass"), (40, None), (87, None), (88, "piano"), (95, "piano"), (96, None), (127, None)])
def test_programs_of_each_part(number, part):
    _, chosen = assign_parts(Song(96, (a_track("", number, 1),)), VOCABULARY)
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
    notes, _ = assign_parts(Song(96, tuple(tracks)), VOCABULARY)
    others, _ = assign_parts(Song(96, tuple(shuffled)), VOCABULARY)
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
        notes, _ = assign_parts(song, VOCABULARY)
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
