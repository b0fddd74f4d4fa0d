"""A MIDI file event by event, as it was given: nothing is rounded, dropped or reordered.

`midi_reader.py` reads the notes of whole folders fast. This module is for the one song that a
person gives and gets back: its events stay the bytes they are.
"""

from __future__ import annotations

import dataclasses
import struct
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from backline.common.errors import UserError, counted
from backline.music.channels import SetUp, is_spread, program_from
from backline.music.midi_chunks import left_after_end, open_chunks
from backline.music.midi_events import (
    CONTROL_CHANGE,
    END,
    END_OF_TRACK,
    LATE_TICKS,
    META,
    NAME,
    NOTE_OFF,
    NOTE_ON,
    PITCH_BEND,
    PROGRAM_CHANGE,
    SIGNATURE,
    SYSEX,
    SYSEX_GOES_ON,
    TEMPO,
    bytes_after,
    events_of,
    number_at,
)
from backline.music.names import decoded_name
from backline.music.players import Voice, read_players
from backline.music.releases import LEFT_ON, first_release
from backline.music.song import (
    MICROSECONDS_PER_MINUTE,
    Song,
    Track,
    check_times,
    meter_notices,
    rounded_tempo,
    time_signature,
)

TEXT = 0x01  # a kind of meta event


class Event(NamedTuple):
    """A message at a tick, with its status byte; a meta or system message with its length."""

    tick: int
    message: bytes

    @property
    def kind(self) -> int:
        """The status byte without its channel; 0xF0, 0xF7 or 0xFF for system and meta messages."""
        status = self.message[0]
        return status if status >= SYSEX else status & 0xF0

    @property
    def channel(self) -> int:
        """From 0; −1 for messages that have none."""
        status = self.message[0]
        return -1 if status >= SYSEX else status & 15

    @property
    def meta(self) -> int:
        """The kind of a meta message, −1 for all others."""
        return self.message[1] if self.message[0] == META else -1

    @property
    def is_onset(self) -> bool:
        """Whether it begins a note."""
        return self.kind == NOTE_ON and self.message[2] > 0

    @property
    def is_release(self) -> bool:
        """Whether it ends a note."""
        return self.kind == NOTE_OFF or (self.kind == NOTE_ON and not self.message[2])


@dataclasses.dataclass(frozen=True)
class MidiTracks:
    """A MIDI file's tracks as it holds them.

    tracks: the events of each, in the order of the file, without the end of track.
    ends: the tick at which each track ends.
    notices: what was odd about the file but read all the same.
    """

    ticks_per_quarter: int
    tracks: tuple[tuple[Event, ...], ...]
    ends: tuple[int, ...]
    notices: tuple[str, ...] = ()


# ---------------------------------------------------------------- reading


def read_tracks(path: str | Path, data: bytes | None = None) -> MidiTracks:
    """Read a MIDI file. With its bytes in `data` no file is read, and `path` only names it.

    Raises UserError, as `midi_reader.read_song` does.
    """
    chunks = open_chunks(path, data)
    notices = list(chunks.notices)
    try:
        tracks = [_read_track(body) for body in chunks.bodies]
    except (IndexError, ValueError) as err:
        reason = err if isinstance(err, ValueError) else "that is cut off"
        raise UserError(f"{path}: damaged MIDI file (an event {reason}); export it "
                        f"again") from None
    n_after = sum(track.n_after for track in tracks)
    n_clipped = sum(track.n_clipped for track in tracks)
    n_strange = sum(track.n_strange for track in tracks)
    if n_after:
        notices.append(left_after_end(n_after))
    if n_clipped:
        notices.append(f"{counted(n_clipped, 'data byte')} over 127 clipped")
    if n_strange:
        notices.append(f"{counted(n_strange, 'message')} left out that no MIDI file "
                       f"may hold")
    return MidiTracks(
        chunks.ticks_per_quarter,
        tuple(track.events for track in tracks),
        tuple(track.end for track in tracks),
        tuple(notices),
    )


class _ReadTrack(NamedTuple):
    """The events of one track chunk.

    end: the tick at which it ends.
    n_clipped: data bytes over 127.
    n_strange: messages that no MIDI file may hold, which are left out.
    n_after: bytes after its end of track, see `midi_events.bytes_after`.
    """

    events: tuple[Event, ...]
    end: int
    n_clipped: int
    n_strange: int
    n_after: int


def _read_track(body: bytes) -> _ReadTrack:
    """Raises IndexError and ValueError, as `midi_events.events_of` does."""
    events = []
    n_clipped = n_strange = 0
    end_tick = end = 0
    for end_tick, start, status, first, second, n_over, end in events_of(body):
        if status in (META, SYSEX, SYSEX_GOES_ON):
            if status != META or first != END:
                events.append(Event(end_tick, body[start:end]))
        elif status > SYSEX:
            n_strange += 1
        else:
            n_clipped += n_over
            has_one = PROGRAM_CHANGE <= status < PITCH_BEND
            values = (status, first) if has_one else (status, first, second)
            events.append(Event(end_tick, bytes(values)))
    n_after = bytes_after(body[end:])
    return _ReadTrack(tuple(events), end_tick, n_clipped, n_strange, n_after)


# ---------------------------------------------------------------- writing


def tracks_to_bytes(midi: MidiTracks) -> bytes:
    """A Type-1 MIDI file of these events, each track sorted by tick; events of one tick stay in order."""
    header = struct.pack(">4sIHHH", b"MThd", 6, 1, len(midi.tracks), midi.ticks_per_quarter)
    chunks = [_chunk(events, end)
              for events, end in zip(midi.tracks, midi.ends, strict=True)]
    return header + b"".join(chunks)


def _chunk(events: Iterable[Event], end: int) -> bytes:
    body = bytearray()
    now = 0
    for event in sorted(events, key=lambda event: event.tick):
        body += _variable_length(event.tick - now)
        body += event.message
        now = event.tick
    body += _variable_length(max(end - now, 0))
    body += END_OF_TRACK
    size = struct.pack(">I", len(body))
    return b"MTrk" + size + bytes(body)


def _variable_length(number: int) -> bytes:
    """A number as MIDI writes it: seven bits a byte, the eighth bit set in all but the last."""
    octets = [number & 0x7F]
    while number := number >> 7:
        octets.append(number & 0x7F | 0x80)
    return bytes(reversed(octets))


def meta_message(kind: int, value: bytes) -> bytes:
    """A meta message of this kind."""
    return bytes([META, kind]) + _variable_length(len(value)) + value


def text_of(event: Event) -> bytes:
    """What a text event says; nothing for other events."""
    return meta_value(event.message) if event.meta == TEXT else b""


def meta_value(message: bytes) -> bytes:
    """The value of a meta message, without its length."""
    size, start = number_at(message, 2)
    return message[start:start + size]


# ---------------------------------------------------------------- as a song


def song_of_tracks(midi: MidiTracks, where: str) -> tuple[Song, tuple[Voice, ...]]:
    """The notes of a file, a track of the song for each voice that plays some; and these voices.

    A voice has the program that most of its notes are played with; a program change in the tick of
    a note counts before it. If its track names no program, the voice has the one that another track
    sets its channel to. A note ends at the first note-off of its pitch after its onset, or with its
    track.

    Raises UserError about times beyond any song.
    """
    tracks = []
    voices = []
    n_unended = 0
    set_up = _set_up(midi)
    changes = _program_changes(midi)
    for index, (events, end) in enumerate(zip(midi.tracks, midi.ends, strict=True)):
        name = _track_name(events)
        by_channel = _by_playing_channel(events)
        is_one = _is_spread(by_channel)
        for channel, own in by_channel.items():
            notes, n_open = _notes(own, end)
            n_unended += n_open
            program = _main_program(own)
            is_drum = set_up.plays_drums(channel, _first_bank(own)) and not is_one
            if program is None and not is_drum:
                program = program_from(changes, channel, int(notes[0, 0]))
            tracks.append(Track(
                name,
                program or 0,
                is_drum,
                notes,
                has_program=program is not None,
                shares_name=len(by_channel) > 1 and not is_one,
                channel=channel,
                spread=index if is_one else -1,
            ))
            voices.append(Voice(index, channel))
    signatures = _signatures(midi)
    by_tick = sorted(signatures, key=lambda signature: signature[0])
    as_written = [(numerator, power) for _, numerator, power in signatures]
    notices = [*midi.notices, *meter_notices(as_written)]
    if n_unended:
        notices.append(f"{counted(n_unended, 'note')} {LEFT_ON}")
    song = Song(
        midi.ticks_per_quarter,
        tuple(tracks),
        _tempos(midi),
        tuple(time_signature(*signature) for signature in by_tick),
        tuple(notices),
        last_end_of_track=_last_end(midi),
        players=_players(midi, voices),
    )
    check_times(song.end_tick, song.ticks_per_quarter, where)
    return song, tuple(voices)


def _metas(midi: MidiTracks, kind: int) -> list[tuple[int, bytes]]:
    """Tick and value of the meta events of a kind, track by track."""
    found = []
    for events in midi.tracks:
        found += [(event.tick, meta_value(event.message))
                  for event in events
                  if event.meta == kind]
    return found


def _tempos(midi: MidiTracks) -> tuple[tuple[int, float], ...]:
    """Tick and tempo of the tempo changes, by tick; those of one tick in the file's order."""
    tempos = []
    for tick, value in _metas(midi, TEMPO):
        microseconds = int.from_bytes(value[:3], "big")
        if microseconds:
            tempos.append((tick, rounded_tempo(MICROSECONDS_PER_MINUTE / microseconds)))
    return tuple(sorted(tempos, key=lambda tempo: tempo[0]))


def _signatures(midi: MidiTracks) -> list[tuple[int, int, int]]:
    """Tick, numerator and power of two of the time signatures, track by track."""
    return [(tick, value[0], value[1])
            for tick, value in _metas(midi, SIGNATURE)
            if len(value) >= 2]


def _players(midi: MidiTracks, voices: list[Voice]) -> dict[str, tuple[int, ...]]:
    """Who plays which part, if the file says so: by the part's name, indices into `voices`."""
    texts = [text for _, text in _metas(midi, TEXT) if text]
    playing = [{event.channel for event in events if event.is_onset} for events in midi.tracks]
    said = read_players(texts, playing)
    return {name: tuple(voices.index(voice) for voice in own if voice in voices)
            for name, own in said.items()}


def _last_end(midi: MidiTracks) -> int:
    """The last tick at which a track ends, of those that do not end with a note of theirs."""
    ends = (end
            for events, end in zip(midi.tracks, midi.ends, strict=True)
            if not any(event.is_release and event.tick == end for event in events))
    return max(ends, default=0)


def _by_playing_channel(events: Sequence[Event]) -> dict[int, list[Event]]:
    """The events of each channel that begins a note, in the order of the channels."""
    channels = sorted({event.channel for event in events if event.is_onset})
    return {channel: [event for event in events if event.channel == channel]
            for channel in channels}


def _is_spread(by_channel: Mapping[int, Sequence[Event]]) -> bool:
    """Whether all channels of a track play one instrument."""
    return is_spread([(channel,
                       _main_program(own),
                       sum(event.is_onset for event in own),
                       sum(event.kind == PITCH_BEND for event in own))
                      for channel, own in by_channel.items()])


def _track_name(events: Iterable[Event]) -> str:
    """The first name that a track gives itself."""
    for event in events:
        if event.meta == NAME:
            return decoded_name(meta_value(event.message))
    return ""


def _notes(events: Sequence[Event], end: int) -> tuple[np.ndarray, int]:
    """(N, 3) onset, end, pitch of one voice's notes, and how many are never switched off."""
    rows = []
    for on, off in note_pairs(events):
        released = end + LATE_TICKS if off is None else events[off].tick
        rows.append((events[on].tick, released, events[on].message[1]))
    notes = first_release(np.array(rows, np.int64).reshape(-1, 3))
    is_open = notes[:, 1] >= LATE_TICKS
    notes[is_open, 1] = end
    return notes, int(is_open.sum())


def note_pairs(events: Sequence[Event]) -> list[tuple[int, int | None]]:
    """Indices of the note-on and note-off of each note of one voice, in the order of the onsets.

    Overlapping notes of one pitch are paired first in, first out, as most files mean it. A note
    that is never switched off has None.
    """
    pairs: list[tuple[int, int | None]] = []
    sounding: dict[int, list[int]] = {}  # by pitch: places in `pairs`
    for i, event in enumerate(events):
        if event.is_onset:
            sounding.setdefault(event.message[1], []).append(len(pairs))
            pairs.append((i, None))
        elif event.is_release and sounding.get(event.message[1]):
            place = sounding[event.message[1]].pop(0)
            pairs[place] = (pairs[place][0], i)
    return pairs


def _main_program(events: Iterable[Event]) -> int | None:
    """The program that most of a voice's notes are played with; None if it names none."""
    by_tick = sorted(events, key=lambda event: (event.tick, event.is_onset))
    program = None
    counts: dict[int | None, int] = {}
    for event in by_tick:
        if event.kind == PROGRAM_CHANGE:
            program = event.message[1]
        elif event.is_onset:
            counts[program] = counts.get(program, 0) + 1
    named = {which: n for which, n in counts.items() if which is not None}
    return max(named, key=lambda which: named[which], default=None)


def _first_bank(events: Iterable[Event]) -> int:
    """The bank of the program that a voice's first note is played with."""
    by_tick = sorted(events, key=lambda event: (event.tick, event.is_onset))
    selected = bank = 0
    for event in by_tick:
        if event.is_onset:
            break
        if event.kind == CONTROL_CHANGE and event.message[1] == 0:
            selected = event.message[2]
        elif event.kind == PROGRAM_CHANGE:
            bank = selected
    return bank


def _set_up(midi: MidiTracks) -> SetUp:
    """Which channels the system messages of a file set up for drums."""
    set_up = SetUp()
    for events in midi.tracks:
        for event in events:
            if event.kind in (SYSEX, SYSEX_GOES_ON):
                set_up.read(event.message)
    return set_up


def _program_changes(midi: MidiTracks) -> list[tuple[int, int, int]]:
    """Tick, channel and program of the program changes in tracks that do not play their channel."""
    changes = []
    for events in midi.tracks:
        playing = {event.channel for event in events if event.is_onset}
        changes += [(event.tick, event.channel, event.message[1])
                    for event in events
                    if event.kind == PROGRAM_CHANGE and event.channel not in playing]
    return changes
