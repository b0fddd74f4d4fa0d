"""MIDI files built byte by byte, so that a test shows exactly which messages it is about; and the notes in songs.

Events are (tick, message bytes) pairs with absolute ticks; pairs of one tick stay in their order.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable

from backline.music.song import Song

Event = tuple[int, bytes]

END_OF_TRACK = b"\xff\x2f\x00"
DRUM_CHANNEL = 9


def variable_length(number: int) -> bytes:
    """A delta time: seven bits per byte, the high bit set in all but the last."""
    groups = [number & 0x7F]
    while number := number >> 7:
        groups.append(number & 0x7F | 0x80)
    return bytes(reversed(groups))


def header(n_tracks: int, division: int = 96, midi_format: int = 1) -> bytes:
    return b"MThd" + struct.pack(">IHHH", 6, midi_format, n_tracks, division)


def track(events: Iterable[Event], end: int | None = None) -> bytes:
    """One track chunk, from the sorted `events` to an end of track at tick `end` (default: the last event's)."""
    body, now = b"", 0
    events = list(events)
    last = max((tick for tick, _ in events), default=0)
    for tick, message in [*sorted(events, key=lambda event: event[0]), (last if end is None else end, END_OF_TRACK)]:
        body += variable_length(tick - now) + message
        now = tick
    return chunk(body)


def chunk(body: bytes, kind: bytes = b"MTrk") -> bytes:
    return kind + struct.pack(">I", len(body)) + body


def riff(data: bytes, info: bytes = b"") -> bytes:
    """A MIDI file as `.rmi` wraps it: little-endian chunks, each padded to an even length; perhaps a LIST of `info`."""
    chunks = [(b"data", data), *([(b"LIST", info)] if info else [])]
    body = b"RMID" + b"".join(kind + struct.pack("<I", len(each)) + each + bytes(len(each) % 2)
                              for kind, each in chunks)
    return b"RIFF" + struct.pack("<I", len(body)) + body


def midi_file(*tracks: Iterable[Event], division: int = 96, midi_format: int = 1) -> bytes:
    """A whole file; each of `tracks` is a list of events."""
    return header(len(tracks), division, midi_format) + b"".join(track(events) for events in tracks)


def meta(kind: int, data: bytes) -> bytes:
    return bytes([0xFF, kind]) + variable_length(len(data)) + data


def name(text: str) -> Event:
    return 0, meta(0x03, text.encode("latin-1"))


def program(number: int, channel: int = 0, tick: int = 0) -> Event:
    return tick, bytes([0xC0 | channel, number])


def tempo(tick: int, microseconds: int) -> Event:
    return tick, meta(0x51, microseconds.to_bytes(3, "big"))


def time_signature(tick: int, numerator: int, power_of_two: int) -> Event:
    return tick, meta(0x58, bytes([numerator, power_of_two, 24, 8]))


def on(tick: int, pitch: int, channel: int = 0) -> Event:
    return tick, bytes([0x90 | channel, pitch, 100])


def off(tick: int, pitch: int, channel: int = 0) -> Event:
    return tick, bytes([0x80 | channel, pitch, 0])


def note(onset: int, end: int, pitch: int, channel: int = 0) -> list[Event]:
    return [on(onset, pitch, channel), off(end, pitch, channel)]


def three_parts(bass: int = 40, piano: int = 60, end: int = 24) -> bytes:
    """A song that every stage accepts: one note per part, each ending at tick `end`."""
    return midi_file([name("drums"), *note(0, end, 42, DRUM_CHANNEL)],
                     [name("bass"), program(38), *note(0, end, bass)],
                     [name("piano"), *note(0, end, piano)])


def _note_from(onset: int, *before: Event, pitch: int = 60, division: int = 96) -> bytes:
    return midi_file([name("piano"), *before, *note(onset, onset + 24, pitch)], division=division)


def notes_of(song: Song) -> list[list[int]]:
    """Onset, end, pitch of all notes, sorted."""
    return sorted(row for each in song.tracks for row in each.notes.tolist())


# Files that no stage can take, and words that the message must hold.
BAD_FILES: dict[str, tuple[bytes, str]] = {
    "empty": (b"", "an empty file"),
    "not MIDI": (b"once upon a time", "not a MIDI file"),
    "header cut off": (three_parts()[:10], "truncated"),
    "only a header": (header(1), "truncated"),
    "track cut in an event": (three_parts()[:-6], "truncated"),
    "track cut between events": (three_parts()[:-8], "truncated"),
    "a track missing": (header(2) + track(note(0, 24, 60)) + b"not it",
                        "1 whole track, where its header promises 2"),
    "no tracks": (header(0), "no notes"),
    "no notes": (midi_file([name("piano")]), "no notes"),
    "SMPTE time": (_note_from(0, division=0xE728), "division 0xe728"),
    "division of zero": (_note_from(0, division=0), "division 0x0000"),
    "damaged event": (header(1) + track([(0, b"\x3c\x64")]), "damaged MIDI file (an event of data alone (0x3c))"),
    "no such pitch": (midi_file(note(0, 24, 140)), "damaged MIDI file (an event with a note of pitch 140)"),
    "meta event cut off": (midi_file([(0, b"\xff\x01\x7fwords"), *note(0, 24, 60)]), "an event that is cut off"),
    "patterns": (midi_file(note(0, 24, 60), note(0, 24, 64), midi_format=2), "holds 2 independent patterns"),
    "format 3": (midi_file(note(0, 24, 60), midi_format=3), "MIDI of an unknown format (3)"),
    "header sent as text": (header(13).replace(b"\r", b"") + track(note(0, 24, 60)), "bytes of its header are missing"),
    "endless delta times": (midi_file([on(0, 60), (0xFFFFFFF, meta(1, b"")), off(0x1FFFFFFE, 60)]), "damaged"),
    "3/4": (_note_from(0, time_signature(0, 3, 2)), "bar 1 is in 3/4"),
    "6/8 from bar 2": (_note_from(768, time_signature(0, 4, 2), time_signature(768, 6, 3)), "bar 3 is in 6/8"),
    "0/4": (_note_from(0, time_signature(0, 0, 2)), "0/4"),
    "denominator out of range": (_note_from(0, time_signature(0, 4, 255)), "bar 1 is in 4/"),
    "past the last bar": (_note_from(256 * 384), "bar 257 is past the last bar this vocabulary holds (256)"),
    "no part": (midi_file([program(120), *note(0, 24, 60)]), "no"),
    "no note of a part": (midi_file([name("piano")], [program(120), *note(0, 24, 60)]), "no"),
}
