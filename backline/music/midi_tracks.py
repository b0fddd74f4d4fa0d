"""A MIDI file event by event, as it was given: nothing rounded, dropped or put in another order.

`midi_reader.py` reads notes, fast, for folders of songs. This module is for the one song that a
person gives and gets back: its events travel as the bytes they are.
"""

from __future__ import annotations

import dataclasses
import struct
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from backline.common.errors import UserError
from backline.music.channels import SetUp, is_spread, program_from
from backline.music.midi_events import (
    CHANNEL_PRESSURE,
    CONTROL_CHANGE,
    END,
    END_OF_TRACK,
    KEY_PRESSURE,
    LATE_TICKS,
    META,
    N_CHANNELS,
    NAME,
    NOTE_OFF,
    NOTE_ON,
    PITCH_BEND,
    PROGRAM_CHANGE,
    SIGNATURE,
    SYSEX,
    SYSEX_GOES_ON,
    SYSTEM_BYTES,
    TEMPO,
    bytes_behind,
    number_at,
)
from backline.music.midi_reader import LEFT_ON, behind_end, check_times, first_release, open_chunks
from backline.music.names import decoded_name
from backline.music.players import Voice, read_players
from backline.music.song import (
    MICROSECONDS_PER_MINUTE,
    Song,
    Track,
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
    notices: what was odd about the file, and read all the same.
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
    tracks = []
    ends = []
    notices = list(chunks.notices)
    n_clipped = n_strange = n_behind = 0
    for body in chunks.bodies:
        reading = _Reading(body)
        try:
            reading.read()
        except (IndexError, ValueError) as err:
            reason = err if isinstance(err, ValueError) else "that is cut off"
            raise UserError(f"{path}: damaged MIDI file (an event {reason}); export it "
                            f"again") from None
        tracks.append(tuple(reading.events))
        ends.append(reading.tick)
        n_clipped += reading.n_clipped
        n_strange += reading.n_strange
        n_behind += bytes_behind(body[reading.place:])
    if n_behind:
        notices.append(behind_end(n_behind))
    if n_clipped:
        notices.append(f"{n_clipped} data byte{'s' * (n_clipped != 1)} over 127 clipped")
    if n_strange:
        notices.append(f"{n_strange} message{'s' * (n_strange != 1)} left out that no MIDI file "
                       f"may hold")
    return MidiTracks(chunks.ticks_per_quarter, tuple(tracks), tuple(ends), tuple(notices))


class _Reading:
    """The events of one track chunk, read up to its end of track."""

    def __init__(self, body: bytes) -> None:
        self.body = body
        self.place = 0
        self.tick = 0
        self.status = 0  # running status goes on across meta and system messages
        self.events: list[Event] = []
        self.n_clipped = 0
        self.n_strange = 0

    def read(self) -> None:
        """Raises IndexError for an event that is cut off, ValueError for one that makes no sense."""
        while self.place < len(self.body):
            gap, self.place = number_at(self.body, self.place)
            self.tick += gap
            if self.tick >= LATE_TICKS:
                raise ValueError(f"at tick {self.tick}, beyond any song")
            if self.body[self.place] >= SYSEX:
                if self._system_message() == END:
                    return
            else:
                self._channel_message()

    def _system_message(self) -> int:
        """Read a meta or system message; returns the kind of a meta message, −1 for others."""
        start = self.place
        head = self.body[start]
        place = start + 1
        if head not in (META, SYSEX, SYSEX_GOES_ON):
            self.place = place + SYSTEM_BYTES.get(head, 0)
            self.n_strange += 1
            return -1
        kind = -1
        if head == META:
            kind = self.body[place]
            place += 1
        size, place = number_at(self.body, place)
        end = place + size
        self.place = end
        if kind == END:
            return END
        if end > len(self.body):
            raise IndexError
        self.events.append(Event(self.tick, self.body[start:end]))
        return kind

    def _channel_message(self) -> None:
        first = self.body[self.place]
        if first >= 0x80:
            self.status = first
            self.place += 1
        elif not self.status:
            raise ValueError(f"of data alone (0x{first:02x})")
        has_one = PROGRAM_CHANGE <= self.status < CHANNEL_PRESSURE + N_CHANNELS
        size = 1 if has_one else 2
        values = self.body[self.place:self.place + size]
        if len(values) < size:
            raise IndexError
        self.place += size
        if max(values) > 127:
            if self.status < KEY_PRESSURE and values[0] > 127:
                raise ValueError(f"with a note of pitch {values[0]}")
            self.n_clipped += sum(value > 127 for value in values)
            values = bytes(min(value, 127) for value in values)
        self.events.append(Event(self.tick, bytes([self.status]) + values))


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
    """A number as MIDI writes it: seven bits a byte, all but the last with the eighth set."""
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
    """What a meta message holds behind its length."""
    size, start = number_at(message, 2)
    return message[start:start + size]


# ---------------------------------------------------------------- as a song


def song_of_tracks(midi: MidiTracks, where: str) -> tuple[Song, tuple[Voice, ...]]:
    """The notes of a file, a track of the song for each voice that plays some; and these voices.

    A voice has the program that most of its notes are played with; events of one tick count before
    its notes. A voice whose track names none has the one that another track gives its channel. A
    note ends at the first note-off of its pitch after its onset, or with its track.

    Raises UserError about times beyond any song.
    """
    tracks = []
    voices = []
    tempos = []
    signatures = []
    as_written = []  # their numerators and powers of two
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
        for event in events:
            if event.meta == TEMPO:
                microseconds = int.from_bytes(meta_value(event.message)[:3], "big")
                if microseconds:
                    tempo = rounded_tempo(MICROSECONDS_PER_MINUTE / microseconds)
                    tempos.append((event.tick, tempo))
            elif event.meta == SIGNATURE:
                value = meta_value(event.message)
                if len(value) >= 2:
                    signatures.append(time_signature(event.tick, value[0], value[1]))
                    as_written.append((value[0], value[1]))
    notices = [*midi.notices, *meter_notices(as_written)]
    if n_unended:
        notices.append(f"{n_unended} note{'s' * (n_unended != 1)} {LEFT_ON}")
    texts = [text for events in midi.tracks for text in map(text_of, events) if text]
    playing = [{event.channel for event in events if event.is_onset} for events in midi.tracks]
    players = read_players(texts, playing)
    song = Song(
        midi.ticks_per_quarter,
        tuple(tracks),
        tuple(sorted(tempos, key=lambda tempo: tempo[0])),
        tuple(sorted(signatures, key=lambda signature: signature.tick)),
        tuple(notices),
        last_end_of_track=_last_end(midi),
        players={name: tuple(voices.index(voice) for voice in own if voice in voices)
                 for name, own in players.items()},
    )
    check_times(song.end_tick, song.ticks_per_quarter, where)
    return song, tuple(voices)


def _last_end(midi: MidiTracks) -> int:
    """The latest end of a track, of those that do not just end with a note."""
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

    Of overlapping notes of one pitch the first on has the first off, as MIDI files are mostly
    meant. A note that is never switched off has None.
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
    """The program of most of a voice's notes; None if none is named."""
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
