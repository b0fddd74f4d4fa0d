"""Files event by event: what is read is what is written, byte for byte as MIDI events."""

from __future__ import annotations

import io
from pathlib import Path

import mido
import numpy as np
import pytest
from mido import Message, MetaMessage

from backline.common.errors import UserError
from backline.music.midi_reader import read_song
from backline.music.midi_tracks import (
    Event,
    MidiTracks,
    meta_message,
    note_pairs,
    read_tracks,
    song_of_tracks,
    tracks_to_bytes,
)

PATH = Path("song.mid")


def midi_bytes(*tracks: list, ticks_per_quarter: int = 480, midi_format: int = 1) -> bytes:
    file = mido.MidiFile(type=midi_format, ticks_per_beat=ticks_per_quarter)
    for messages in tracks:
        file.tracks.append(mido.MidiTrack(messages))
    written = io.BytesIO()
    file.save(file=written)
    return written.getvalue()


def all_messages(data: bytes) -> list[list]:
    """Absolute ticks and messages of each track, as mido reads them."""
    found = []
    for track in mido.MidiFile(file=io.BytesIO(data)).tracks:
        tick = 0
        rows = []
        for message in track:
            tick += message.time
            rows.append((tick, message.copy(time=0)))
        found.append(rows)
    return found


RICH = [
    [MetaMessage("set_tempo", tempo=500000), MetaMessage("key_signature", key="Am"),
     MetaMessage("marker", text="verse", time=10), MetaMessage("set_tempo", tempo=400000, time=950),
     MetaMessage("lyrics", text="la", time=5), MetaMessage("end_of_track", time=100)],
    [MetaMessage("track_name", name="Fretless"), Message("control_change", control=0, value=8, channel=1),
     Message("program_change", program=35, channel=1), Message("note_on", note=40, velocity=77, channel=1),
     Message("pitchwheel", pitch=-300, channel=1, time=100), Message("aftertouch", value=3, channel=1),
     Message("polytouch", note=40, value=9, channel=1), Message("note_off", note=40, velocity=12, channel=1, time=381),
     Message("sysex", data=tuple(range(100)) * 600, time=7), Message("note_on", note=40, velocity=60, channel=1),
     Message("note_on", note=40, velocity=0, channel=1, time=50), MetaMessage("end_of_track")],
]


def test_every_event_comes_back():
    data = midi_bytes(*RICH)
    written = tracks_to_bytes(read_tracks(PATH, data))
    assert all_messages(written) == all_messages(data)


def test_writing_what_was_written_changes_nothing():
    written = tracks_to_bytes(read_tracks(PATH, midi_bytes(*RICH)))
    assert tracks_to_bytes(read_tracks(PATH, written)) == written


def test_running_status_and_text_in_any_encoding():
    name = "Bässe".encode("latin-1")
    body = b"\0" + meta_message(3, name) + b"\0\x90\x3c\x40" + b"\x60\x3c\x00" + b"\0\xff\x2f\0"
    data = b"MThd\0\0\0\6\0\0\0\1\0\x60" + b"MTrk" + len(body).to_bytes(4, "big") + body
    midi = read_tracks(PATH, data)
    assert midi.tracks[0][0].message.endswith(name)
    assert [event.message for event in midi.tracks[0][1:]] == [b"\x90\x3c\x40", b"\x90\x3c\x00"]
    assert midi.ends == (96,)


def test_a_cut_event_is_one_error():
    body = b"\0\x90\x3c"
    data = b"MThd\0\0\0\6\0\0\0\1\0\x60" + b"MTrk" + len(body).to_bytes(4, "big") + body
    with pytest.raises(UserError, match=r"song\.mid: "):
        read_tracks(PATH, data)


def test_times_of_more_than_two_digits():
    track = tuple(Event(tick, b"\x90\x3c\x40") for tick in (0, 127, 128, 20000, 3_000_000))
    midi = MidiTracks(96, (track,), (3_000_000,))
    assert read_tracks(PATH, tracks_to_bytes(midi)) == midi


def test_a_voice_is_a_channel_of_a_track():
    change = [Message("note_on", note=40, velocity=64, channel=1),
              Message("program_change", program=33, channel=1),  # in the same tick: counts before
              Message("note_off", note=40, channel=1, time=100),
              Message("program_change", program=36, channel=1),
              Message("note_on", note=41, velocity=64, channel=1),
              Message("note_on", note=36, velocity=64, channel=9),
              Message("note_off", note=41, channel=1, time=100),
              Message("note_off", note=36, channel=9)]
    song, voices = song_of_tracks(read_tracks(PATH, midi_bytes(change)), "song.mid")
    assert voices == ((0, 1), (0, 9))
    bass, drums = song.tracks
    assert bass.notes.tolist() == [[0, 100, 40], [100, 200, 41]]
    assert (bass.program, bass.has_program, bass.shares_name, bass.is_drum) == (33, True, True, False)
    assert (drums.has_program, drums.is_drum) == (False, True)


def test_notes_are_those_of_the_other_reader():
    rng = np.random.default_rng(0)
    messages = []
    for _ in range(400):
        pitch = int(rng.integers(60, 64))
        kind = "note_on" if rng.random() < 0.5 else "note_off"
        messages.append(Message(kind, note=pitch, velocity=64, time=int(rng.integers(0, 20))))
    data = midi_bytes(messages)
    song, _ = song_of_tracks(read_tracks(PATH, data), "song.mid")
    other = read_song(PATH, data)
    order = np.lexsort(song.tracks[0].notes.T)
    other_order = np.lexsort(other.tracks[0].notes.T)
    assert np.array_equal(song.tracks[0].notes[order], other.tracks[0].notes[other_order])
    assert song.notices == other.notices


def test_pairs_are_first_in_first_out():
    events = [Event(0, b"\x90\x3c\x40"), Event(5, b"\x90\x3c\x40"), Event(9, b"\x80\x3c\x40"),
              Event(12, b"\x90\x3c\x00"), Event(15, b"\x90\x3c\x40")]
    assert note_pairs(events) == [(0, 2), (1, 3), (4, None)]
