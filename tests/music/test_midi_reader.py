"""Reading MIDI: where notes end, files that are odd and read all the same, files that are damaged."""

from __future__ import annotations

import itertools
import struct
import time
import tracemalloc
from pathlib import Path
from typing import Any
from unittest import mock

import miditoolkit
import pytest
from commands import ROOT
from hypothesis import given
from hypothesis import strategies as st
from midi_bytes import (
    BAD_FILES,
    DRUM_CHANNEL,
    END_OF_TRACK,
    chunk,
    header,
    meta,
    midi_file,
    name,
    note,
    notes_of,
    off,
    on,
    program,
    riff,
    tempo,
    three_parts,
    time_signature,
    track,
    variable_length,
)

from backline.common.errors import UserError
from backline.music import midi_chunks, midi_reader, track_reader
from backline.music.bars import check_playable
from backline.music.midi_reader import read_song, song_from_miditoolkit
from backline.music.song import SLOWEST, Song, check_tempo
from tokenizer import MidiTokenizerPooled

EXAMPLES = ROOT / "examples"


def song_of(data: bytes) -> Song:
    return read_song("song.mid", data)


def mended_song(data: bytes) -> Song:
    """The same with every track mended, which else only those out of order are."""
    with mock.patch.object(midi_reader, "is_readable", return_value=False):
        return song_of(data)


def is_in_order(data: bytes) -> bool:
    """Whether no track needs mending."""
    with (mock.patch.object(midi_chunks, "mend", wraps=midi_chunks.mend) as to_find_ends,
          mock.patch.object(track_reader, "mend", wraps=track_reader.mend) as to_read):
        song_of(data)
    return not to_find_ends.called and not to_read.called


def describe(song: Song) -> dict[str, Any]:
    """A song as plain values."""
    tracks = [(each.name, each.program, each.is_drum, each.notes.tolist()) for each in song.tracks]
    return {**vars(song), "tracks": tracks}


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
def test_a_note_ends_at_the_first_note_off_after_its_onset(events, notes):
    assert notes_of(song_of(midi_file(events))) == notes


def test_tracks_do_not_switch_off_each_others_notes():
    assert notes_of(song_of(midi_file(note(0, 30, 60), note(5, 10, 60)))) == [[0, 30, 60], [5, 10, 60]]


MESSAGES = st.lists(st.tuples(st.integers(1, 300), st.booleans(), st.sampled_from([60, 61]),
                              st.sampled_from([0, DRUM_CHANNEL])), min_size=1, max_size=40)


@given(messages=MESSAGES, rest=st.integers(1, 300))
def test_note_ends_agree_with_a_slow_obvious_reader(messages, rest):
    ticks = itertools.accumulate(gap for gap, *_ in messages)
    events = [(tick, *message[1:]) for tick, message in zip(ticks, messages, strict=True)]
    end_of_track = events[-1][0] + rest
    expected = []
    for tick, is_on, pitch, channel in events:
        if is_on:
            releases = [later for later, *message in events if later > tick and message == [False, pitch, channel]]
            expected.append([tick, min(releases, default=end_of_track), pitch])
    data = header(1) + track([(on if is_on else off)(tick, pitch, channel)
                              for tick, is_on, pitch, channel in events], end_of_track)
    assert notes_of(song_of(data)) == notes_of(mended_song(data)) == sorted(expected)


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


def test_chunks_of_other_kinds_are_skipped():
    data = header(1) + b"XFIH" + (3).to_bytes(4, "big") + b"abc" + track(note(0, 10, 60))
    assert notes_of(song_of(data)) == [[0, 10, 60]]


def test_a_longer_header_is_read():
    data = header(1).replace(b"\0\0\0\x06", b"\0\0\0\x08", 1) + b"\0\0" + track([on(0, 60), (10, meta(1, b""))])
    assert notes_of(song_of(data)) == [[0, 10, 60]]


def test_running_status():
    body = bytes([0, 0x90, 60, 100, 10, 60, 0, 0, 62, 100, 10, 62, 0, 0]) + END_OF_TRACK
    data = header(1) + b"MTrk" + len(body).to_bytes(4, "big") + body
    assert notes_of(song_of(data)) == [[0, 10, 60], [10, 20, 62]]


def test_format_0_is_split_by_channel():
    song = song_of(midi_file([program(33, 1), *note(0, 10, 60, 0), *note(0, 10, 42, DRUM_CHANNEL),
                              *note(10, 20, 40, 1)], midi_format=0))
    assert {(each.program, each.is_drum, tuple(each.notes[0])) for each in song.tracks} == {
        (0, False, (0, 10, 60)), (33, False, (10, 20, 40)), (0, True, (0, 10, 42))}


def test_a_track_without_an_end_is_read():
    body = bytes([0, 0x90, 60, 100, 10, 0x80, 60, 0])
    assert notes_of(song_of(header(1) + b"MTrk" + len(body).to_bytes(4, "big") + body)) == [[0, 10, 60]]


@pytest.mark.parametrize("case", [case for case, (_, message) in BAD_FILES.items()
                                  if case not in ("past the last bar", "no part", "no note of a part")])
def test_a_bad_file_is_an_error_that_names_it_and_the_fault(case):
    data, message = BAD_FILES[case]
    with pytest.raises(UserError) as error:
        check_playable(song_of(data), "song.mid")
    assert message in str(error.value)
    assert "song.mid: " in str(error.value) and "\n" not in str(error.value)


def test_a_missing_file_is_named():
    with pytest.raises(UserError, match=r"absent\.mid: no such file"):
        read_song(Path("absent.mid"))


# ---------------------------------------------------------------- both ways of reading

CHANNELS = st.sampled_from([0, 1, DRUM_CHANNEL])
BYTES = st.integers(0, 127)
EVENTS = st.one_of(
    st.builds(lambda c, pitch, velocity: bytes([0x90 | c, pitch, velocity]), CHANNELS, st.integers(58, 61), BYTES),
    st.builds(lambda c, pitch, velocity: bytes([0x80 | c, pitch, velocity]), CHANNELS, st.integers(58, 61), BYTES),
    st.builds(lambda c, number: bytes([0xC0 | c, number]), CHANNELS, st.sampled_from([0, 33, 120])),
    st.builds(lambda kind, c, a, b: bytes([kind | c, a, b]), st.sampled_from([0xA0, 0xB0, 0xE0]), CHANNELS, BYTES,
              BYTES),
    st.builds(lambda c, a: bytes([0xD0 | c, a]), CHANNELS, BYTES),
    st.builds(meta, st.integers(0, 7), st.binary(max_size=9)),
    st.builds(lambda mspq: meta(0x51, mspq.to_bytes(3, "big")), st.integers(1, 0xFFFFFF)),
    st.builds(lambda n, power: meta(0x58, bytes([n, power, 24, 8])), st.integers(1, 12), st.integers(0, 5)),
    st.builds(lambda data: b"\xf0" + variable_length(len(data) + 1) + data + b"\xf7",
              st.lists(BYTES, max_size=9).map(bytes)))
GAPS = st.one_of(st.integers(0, 500), st.sampled_from([0, 14336, 16000, 2 ** 21]))
TRACKS = st.lists(st.tuples(GAPS, EVENTS), max_size=40)


@given(tracks=st.lists(TRACKS, min_size=1, max_size=3), midi_format=st.integers(0, 1))
def test_files_in_order_are_the_same_song_mended(tracks, midi_format):
    events = [list(zip(itertools.accumulate(gap for gap, _ in each), (message for _, message in each), strict=True))
              for each in tracks]
    data = midi_file(*events, midi_format=midi_format)
    assert describe(song_of(data)) == describe(mended_song(data))


@pytest.mark.parametrize("path", sorted(EXAMPLES.rglob("*.mid")), ids=lambda path: path.name)
def test_real_files_are_the_same_song_mended(path):
    data = path.read_bytes()
    assert is_in_order(data)
    song = read_song(path)
    assert describe(song) == describe(song_of(data)) == describe(mended_song(data))
    assert song.notices == ()


# ---------------------------------------------------------------- odd files, read all the same


def assert_odd(data: bytes, notes: list[list[int]], *notices: str) -> None:
    song = song_of(data)
    assert notes_of(song) == notes
    assert song.notices == notices
    assert describe(mended_song(data)) == describe(song)


NOTE = note(0, 10, 60)


@pytest.mark.parametrize("junk", [b"\0" * 128, b"\0\x08song.mid" + bytes(55) + b"MidiTTXT" + bytes(55), b"\xef\xbb\xbf",
                                  b"Date: today\r\n\r\n"], ids=["zeros", "MacBinary", "BOM", "mail"])
@pytest.mark.parametrize("after", [b"", b"\0" * 99, b"junk, whatever it says", b"MT"])
def test_bytes_before_the_header_and_after_the_last_track_are_skipped(junk, after):
    said = ["left out, as it is no track: junk"] if after.startswith(b"junk") else []
    assert_odd(junk + midi_file(NOTE) + after, [[0, 10, 60]], *said)


@pytest.mark.parametrize("words", [b"", b"x"])  # an odd and an even length
@pytest.mark.parametrize("info", [b"", b"INFOINAM" + struct.pack("<I", 4) + b"song"])
def test_riff_wrapping_is_taken_off(words, info):
    said = ["left out, as it is no track: LIST"] if info else []
    assert_odd(riff(midi_file([(0, meta(1, words)), *NOTE]), info), [[0, 10, 60]], *said)


def test_karaoke_words_are_left_out():
    words = [(0, meta(1, b"@KMIDI KARAOKE FILE")), (0, meta(1, b"\\La")), (5, meta(5, "lä ".encode("latin-1")))]
    assert_odd(midi_file([name("Words"), *words], [name("piano"), *NOTE]), [[0, 10, 60]])


@pytest.mark.parametrize("between", [
    pytest.param(meta(1, b"words"), id="meta"),
    pytest.param(b"\xf0\x05\x7e\x7f\x09\x01\xf7", id="system exclusive"),
    pytest.param(b"\xf0\x03\x43\x12\x00\x08\xf7\x02\x43\xf7", id="system exclusive in two packets"),
    pytest.param(b"\xf7\x02\x01\x02", id="escape"),
])
def test_running_status_goes_on_across_other_events(between):
    gap = 8 if b"\x08\xf7" in between else 0
    body = b"\0\x90\x3c\x64\0" + between + b"\x0a\x3c\0\0\x3e\x64\x0a\x3e\0\0" + END_OF_TRACK
    assert_odd(header(1) + chunk(body), [[0, 10 + gap, 60], [10 + gap, 20 + gap, 62]])


def test_a_system_exclusive_in_packets_is_skipped():
    assert_odd(midi_file([(0, b"\xf0\x03\x43\x12\x00"), (5, b"\xf7\x02\x43\xf7"), *NOTE]), [[0, 10, 60]])


@pytest.mark.parametrize(("message", "number"), [
    (b"\xb0\x07\xff", 1), (b"\xb0\xc8\xff", 2), (b"\xe0\x00\x90", 1), (b"\xd0\x80", 1), (b"\x80\x40\xff", 1)])
def test_data_bytes_over_127_are_clipped(message, number):
    plural = "s" if number > 1 else ""
    data = midi_file([(0, message), *NOTE])
    if message[0] != 0xD0:  # symusic looks at no aftertouch
        assert_odd(data, [[0, 10, 60]], f"{number} data byte{plural} over 127 clipped")
    assert mended_song(data).notices == (f"{number} data byte{plural} over 127 clipped",)


def test_a_program_and_a_velocity_over_127_are_clipped():
    song = song_of(midi_file([program(255), (0, b"\x90\x3c\x80"), off(10, 60)]))
    assert [(each.program, each.notes.tolist()) for each in song.tracks] == [(127, [[0, 10, 60]])]
    assert song.notices == ("2 data bytes over 127 clipped",)


@pytest.mark.parametrize("number", [1, 2, 3, 100])
def test_notes_never_switched_off_last_to_the_end_of_their_track_and_are_counted(number):
    events = [*(on(10 * i, 42, DRUM_CHANNEL) for i in range(number)), *NOTE, (2000, meta(1, b"end"))]
    notes = sorted([*([10 * i, 2000, 42] for i in range(number)), [0, 10, 60]])
    assert_odd(midi_file(events, note(0, 5000, 50)), sorted([*notes, [0, 5000, 50]]),
               f"{number} note{'s' * (number > 1)} never switched off")


def test_a_note_at_the_end_of_a_track_without_end():
    assert_odd(header(1) + chunk(b"\0\x90\x3c\x64\x0a\x90\x3e\x64"), [[0, 10, 60], [10, 10, 62]],
               "2 notes never switched off")


def test_what_follows_the_end_of_track_in_its_chunk_is_skipped():
    body = b"\0\x90\x3c\x64\x0a\x80\x3c\0\0" + END_OF_TRACK
    assert_odd(header(1) + chunk(body + b"\0\x90\x3e\x64\x0a\x80\x3e\0\0" + END_OF_TRACK), [[0, 10, 60]],
               "12 bytes left out that a track holds after its end")


def test_a_program_change_within_a_track_makes_two_tracks():
    song = song_of(midi_file([program(0), *NOTE, program(33, tick=20), *note(30, 40, 36)]))
    assert [(each.program, each.notes.tolist()) for each in song.tracks] == [(0, [[0, 10, 60]]), (33, [[30, 40, 36]])]


@pytest.mark.parametrize("number", [0, 33, 127])
def test_the_drum_channel_is_drums_whatever_its_program(number):
    song = song_of(midi_file([program(number, DRUM_CHANNEL), *note(0, 10, 42, DRUM_CHANNEL)]))
    assert [each.is_drum for each in song.tracks] == [True]


def test_a_format_2_file_of_one_track_is_read():
    assert_odd(midi_file(NOTE, midi_format=2), [[0, 10, 60]])


@pytest.mark.parametrize(("raw", "read"), [
    (b"", ""), (b" bass ", "bass"), (b"drums\0\0\0", "drums"), ("Flöte".encode(), "Flöte"),
    ("ベース".encode(), "ベース"), (b"Fl\xf6te", "Flöte"), ("ドラム".encode("shift_jis"), "ドラム"),
    ("ベース".encode("utf-16"), "ベース")])
def test_names_may_be_of_any_encoding(raw, read):
    data = midi_file([(0, meta(3, raw)), *NOTE])
    assert_odd(data, [[0, 10, 60]])
    assert song_of(data).tracks[0].name == read


@pytest.mark.parametrize("promised", [0, 1, 3, 9])
@pytest.mark.parametrize("after", [b"", bytes(128)], ids=["", "zeros after it"])
def test_another_number_of_tracks_than_promised_is_read_if_the_last_is_whole(promised, after):
    promise = f"header promised {promised} track{'s' * (promised != 1)}, file holds 2"
    assert_odd(header(promised) + track(NOTE) + track(note(5, 9, 40)) + after, [[0, 10, 60], [5, 9, 40]], promise)


@pytest.mark.parametrize("wrong", [-7, -1, 1, 5, 999, 0x7FFFFFFF])
@pytest.mark.parametrize("which", [0, 1])
def test_a_track_length_that_is_wrong_is_put_right_by_its_end_of_track(wrong, which):
    tracks = [track(NOTE), track(note(5, 9, 40))]
    tracks[which] = b"MTrk" + struct.pack(">I", len(tracks[which]) - 8 + wrong) + tracks[which][8:]
    assert_odd(header(2) + b"".join(tracks), [[0, 10, 60], [5, 9, 40]], "1 track of another length than given")


def test_a_header_length_that_is_wrong():
    assert_odd(midi_file(NOTE).replace(b"\0\0\0\x06", b"\0\xff\0\x06", 1), [[0, 10, 60]])


def test_unknown_chunks_between_tracks_are_skipped():
    assert_odd(header(2) + track(NOTE) + chunk(b"abc", b"XFKM") + track(note(5, 9, 40)), [[0, 10, 60], [5, 9, 40]],
               "left out, as it is no track: XFKM")


@pytest.mark.parametrize("changes", [
    [tempo(0, 500_000)], [time_signature(0, 4, 2), time_signature(5, 4, 2)], [time_signature(0, 2, 1)]])
def test_bars_of_four_quarters_written_in_any_way_are_in_order(changes):
    data = midi_file(changes, NOTE)
    assert is_in_order(data)
    check_playable(song_of(data), "x")
    assert_odd(data, [[0, 10, 60]])


def test_values_shorter_than_they_should_be():
    data = midi_file([(0, meta(0x51, b"\x07")), (0, meta(0x58, b"\x04\x02")), *NOTE])
    assert_odd(data, [[0, 10, 60]])
    assert song_of(data).tempos == () and song_of(data).time_signatures == ((0, 4, 4),)


# ---------------------------------------------------------------- files that are no whole song


def test_a_cut_file_is_an_error_unless_cut_between_tracks():
    data = three_parts()
    between = [i for i in range(22, len(data)) if data[i:i + 4] == b"MTrk"]
    for length in set(range(len(data))) - set(between):
        with pytest.raises(UserError, match=r"song\.mid: "):
            song_of(data[:length])
    assert [song_of(data[:length]).notices for length in between] == [
        (f"header promised 3 tracks, file holds {n}",) for n in (1, 2)]


def test_a_file_sent_as_text_is_named_as_that():
    """Its bytes 0x0D are gone, so that the lengths of its tracks are wrong, and some notes."""
    busy = [event for i in range(2000) for event in note(i * 13, i * 13 + 13, 60)]
    data = header(2) + (track(busy) + track(NOTE)).replace(b"\r", b"")
    with pytest.raises(UserError, match="sent as text, which removes 0x0D"):
        song_of(data)


def test_a_file_too_large_is_not_read(tmp_path):
    with open(tmp_path / "huge.mid", "wb") as file:
        file.truncate(midi_chunks.LARGEST_FILE + 1)
    tracemalloc.start()
    with pytest.raises(UserError, match=r"huge\.mid: 64 MB, larger than"):
        read_song(tmp_path / "huge.mid")
    assert tracemalloc.get_traced_memory()[1] < 1 << 20
    tracemalloc.stop()
    with pytest.raises(UserError, match=r"song\.mid: 64 MB, larger than"):
        song_of(bytes(midi_chunks.LARGEST_FILE + 1))


GAP = b"\xff\xff\xff\x7f"
MEGABYTE = 1 << 20
HOSTILE = {
    "gaps": GAP.join([meta(1, b"")] * (MEGABYTE // 7)) + b"\0\x90\x3c\x64" + GAP + b"\x80\x3c\0\0" + END_OF_TRACK,
    "notes never switched off": b"\0\x90" + b"\0".join([b"\x3c\x64"] * (MEGABYTE // 3)) + b"\0" + END_OF_TRACK,
    "notes": b"\0\x90" + b"\x01".join([b"\x3c\x64\0\x3c\0"] * (MEGABYTE // 6)) + b"\0" + END_OF_TRACK,
    "tempos": b"".join([b"\0" + meta(0x51, b"\x07\xa1\x20")] * (MEGABYTE // 7)) + b"\0\x90\x3c\x64\x10" + END_OF_TRACK,
    "endless number": b"\xff" * MEGABYTE,
    "zeros": bytes(MEGABYTE),
    "length beyond the file": b"\0\xff\x01" + GAP + bytes(99),
    "bits of system exclusives": b"\0\xf0\x01\xf7" * (MEGABYTE // 4),
}


@pytest.mark.parametrize("case", HOSTILE)
def test_hostile_tracks_are_a_song_or_an_error_soon(case):
    _soon(header(1) + chunk(HOSTILE[case]))


@pytest.mark.parametrize("body", [b"", b"\0\x90\x3c\x64\0" + END_OF_TRACK, bytes(range(0x90, 0xA0)) + END_OF_TRACK])
@pytest.mark.parametrize("length", [0, 3, 99])
def test_very_many_tracks_are_a_song_or_an_error_soon(body, length):
    """Whole ones, and ones whose lengths are wrong."""
    one = b"MTrk" + struct.pack(">I", length or len(body)) + body
    _soon(header(0xFFFF) + one * (MEGABYTE // len(one)))


def _soon(data: bytes) -> None:
    start = time.process_time()
    try:
        song_of(data)
    except UserError as error:
        assert "\n" not in str(error) and len(str(error)) < 300
    assert time.process_time() - start < 5


@given(data=st.data())
def test_damage_anywhere_is_a_song_or_an_error(data):
    damaged = bytearray(midi_file([name("piano"), tempo(0, 500_000), time_signature(0, 4, 2), program(0), *NOTE],
                                  [(0, b"\xf0\x03\x43\x12\xf7"), *note(0, 24, 42, DRUM_CHANNEL), *note(99, 400, 36)]))
    for _ in range(data.draw(st.integers(1, 6))):
        place = data.draw(st.integers(0, len(damaged) - 1))
        damaged[place:place + data.draw(st.integers(0, 2))] = data.draw(st.binary(max_size=2))
    try:
        song = song_of(bytes(damaged))
    except UserError:
        return
    assert all((each.notes[:, 0] >= 0).all() and (each.notes[:, 1] >= each.notes[:, 0]).all() for each in song.tracks)


def test_the_slowest_tempo_stays_one_that_midi_can_hold():
    song = read_song("x", midi_file([tempo(0, 0xFFFFFF), name("piano"), *note(0, 24, 60)]))
    assert check_tempo(song.main_tempo(), "x") == SLOWEST


def test_a_note_before_the_song_in_memory_is_named():
    midi = miditoolkit.MidiFile(ticks_per_beat=96)
    midi.instruments.append(miditoolkit.Instrument(0, False, "piano"))
    midi.instruments[0].notes = [miditoolkit.Note(100, 60, -40, 10)]
    with pytest.raises(UserError, match="a note begins before the song"):
        MidiTokenizerPooled()(midi)


@pytest.mark.parametrize("data", [b"RIFF\x24\x00\x00\x00WAVEfmt ", b"ID3\x04" + bytes(40)])
def test_recorded_sound_is_called_so(data, tmp_path):
    path = tmp_path / "song.mid"
    path.write_bytes(data)
    with pytest.raises(UserError, match="recorded sound"):
        read_song(path)
