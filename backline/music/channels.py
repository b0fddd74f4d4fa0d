"""What MIDI says of its channels: who plays on them, with which programs, and which are drums.

Drums are on the tenth channel, and where a file sets another one up for them: by a message of
Roland's GS or Yamaha's XG, or by a bank of drum kits in XG or General MIDI 2.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Sequence

from backline.music.midi_events import (
    CHANNEL_PRESSURE,
    CONTROL_CHANGE,
    END,
    KEY_PRESSURE,
    META,
    N_CHANNELS,
    NOTE_ON,
    PITCH_BEND,
    PROGRAM_CHANGE,
    SYSEX,
    SYSEX_GOES_ON,
    SYSTEM_BYTES,
    number_at,
)

DRUM_CHANNEL = 9  # counted from 0
XG_KITS, GM2_KITS = 127, 120  # values of bank select; in GS, 127 holds sounds of the MT-32
# "Use for rhythm part": the part, whose number 0 stands for the tenth channel, and 0 for off.
GS_RHYTHM = re.compile(rb"\x41.\x42\x12[\x40\x50]([\x10-\x1f])\x15(.)", re.DOTALL)
GS = re.compile(rb"\x41.\x42\x12", re.DOTALL)
FEWEST_SPREAD = 3  # channels
XG_MODE = re.compile(rb"\x43[\x10-\x1f]\x4c\x08([\x00-\x0f])\x07(.)", re.DOTALL)  # 0: melodic


@dataclasses.dataclass
class SetUp:
    """Which channels a file sets up for drums, or not for drums, and whether it is for GS."""

    is_drum: dict[int, bool] = dataclasses.field(default_factory=dict)
    is_gs: bool = False

    def read(self, data: bytes) -> None:
        """Take note of the set-up messages in the bytes of a track, or of its messages."""
        if b"\x42\x12" in data and GS.search(data):  # the first is quick, and mostly says no
            self.is_gs = True
            for part, mode in GS_RHYTHM.findall(data):
                number = part[0] & 15
                channel = number - 1 if 0 < number <= DRUM_CHANNEL else number or DRUM_CHANNEL
                self.is_drum[channel] = mode != b"\0"
        if b"\x4c\x08" in data:
            for part, mode in XG_MODE.findall(data):
                self.is_drum[part[0]] = mode != b"\0"

    def plays_drums(self, channel: int, bank: int) -> bool:
        """Whether a channel plays drums that begins with a program of this bank."""
        if channel in self.is_drum:
            return self.is_drum[channel]
        is_kit = bank == GM2_KITS or (bank == XG_KITS and not self.is_gs)
        return channel == DRUM_CHANNEL or is_kit


@dataclasses.dataclass
class Survey:
    """What a track says of its channels, as far as it was read.

    played: in how many stretches a channel plays with a program; None: before it names one.
    banks: of each channel, the bank of the program that its first note is played with.
    first_onsets: of each channel that plays, the tick of its first note.
    changes: (tick, channel, program) of the program changes, in order.
    bends: of each channel, how many.
    has_late_change: whether a program change follows a note of its channel in the same tick. It
        counts before that note.
    """

    played: dict[tuple[int, int | None], int] = dataclasses.field(default_factory=dict)
    banks: dict[int, int] = dataclasses.field(default_factory=dict)
    first_onsets: dict[int, int] = dataclasses.field(default_factory=dict)
    changes: list[tuple[int, int, int]] = dataclasses.field(default_factory=list)
    bends: dict[int, int] = dataclasses.field(default_factory=dict)
    has_late_change: bool = False

    @property
    def voices(self) -> list[tuple[int, int | None]]:
        """Channels and programs as symusic sorts its tracks; no program is its program 0."""
        named = {(channel, program or 0): program
                 for channel, program in self.played
                 if program is not None}
        unnamed = {(channel, 0): None for channel, program in self.played if program is None}
        merged = {**unnamed, **named}
        return [(channel, merged[channel, program]) for channel, program in sorted(merged)]


def survey(body: bytes, n_channels: int = N_CHANNELS + 1) -> Survey:
    """Read a track's events until `n_channels` have begun to play; else to its end.

    Raises IndexError or ValueError for events that make no sense.
    """
    found = Survey()
    channels = [_Channel(number, found) for number in range(N_CHANNELS)]
    place = tick = status = 0
    while place < len(body):  # one long loop, as in `midi_events`
        gap = body[place]
        place += 1
        if gap >= 0x80:
            gap, place = number_at(body, place - 1)
        tick += gap
        head = body[place]
        if head >= SYSEX:
            kind, place = _skip_system(body, place)
            if kind == END:
                break
            continue
        if head >= 0x80:
            status = head
            place += 1
        elif not status:
            raise ValueError("of data alone")
        first = body[place]
        place += 1
        if PROGRAM_CHANGE <= status < CHANNEL_PRESSURE + N_CHANNELS:  # the others have two bytes
            if status < CHANNEL_PRESSURE:
                channels[status & 15].change(tick, min(first, 127))
            continue
        second = body[place]
        place += 1
        if NOTE_ON <= status < KEY_PRESSURE and second:
            channel = channels[status & 15]
            channel.last_onset = tick
            if channel.begun < 0:
                channel.begin(tick)
                if len(found.first_onsets) == n_channels:
                    break
        elif CONTROL_CHANGE <= status < PROGRAM_CHANGE:
            if not first:
                channels[status & 15].selected = second
        elif status >= PITCH_BEND:
            found.bends[status & 15] = found.bends.get(status & 15, 0) + 1
    return found


class _Channel:
    """The state of a channel while a track is read."""

    def __init__(self, number: int, found: Survey) -> None:
        self.number = number
        self.found = found
        self.program: int | None = None
        self.bank = 0  # of the program
        self.selected = 0  # the bank for the next program
        self.begun = -1  # the tick of the first note with this program
        self.last_onset = -1

    def begin(self, tick: int) -> None:
        """A note begins, the first with this program."""
        self.begun = tick
        self._count(1)
        if self.number not in self.found.first_onsets:
            self.found.first_onsets[self.number] = tick
            self.found.banks[self.number] = self.bank

    def change(self, tick: int, program: int) -> None:
        """The program changes, also for the notes that have begun in this tick."""
        found = self.found
        found.changes.append((tick, self.number, program))
        self.bank = self.selected
        if found.first_onsets.get(self.number) == tick:
            found.banks[self.number] = self.bank
        if program == self.program:
            return
        is_late = self.last_onset == tick
        if self.begun == tick:
            self._count(-1)
        self.program = program
        self.begun = -1
        if is_late:
            found.has_late_change = True
            self.begin(tick)

    def _count(self, n: int) -> None:
        key = (self.number, self.program)
        played = self.found.played
        played[key] = played.get(key, 0) + n
        if not played[key]:
            del played[key]


def _skip_system(body: bytes, place: int) -> tuple[int, int]:
    """The kind of a meta message, −1 for others, and the place after it."""
    head = body[place]
    place += 1
    if head not in (META, SYSEX, SYSEX_GOES_ON):
        return -1, place + SYSTEM_BYTES.get(head, 0)
    kind = -1
    if head == META:
        kind = body[place]
        place += 1
    size, place = number_at(body, place)
    return kind, place + size


def is_spread(channels: Sequence[tuple[int, int | None, int, int]]) -> bool:
    """Whether a track's channels are one instrument's: each note has one of its own, as in MPE.

    Such keyboards bend each channel anew for each note that it begins, and name no programs that
    differ.

    Args:
        channels: number, program (None: unnamed), how many notes and bends of each that plays.
    """
    programs = {program for _, program, _, _ in channels} - {None}
    is_bent = all(n_bends >= n_notes for _, _, n_notes, n_bends in channels)
    return len(channels) >= FEWEST_SPREAD and len(programs) <= 1 and is_bent


def program_from(changes: list[tuple[int, int, int]],
                 channel: int,
                 first_onset: int) -> int | None:
    """The program that other tracks set a channel to by its first note; None if they set none."""
    before = [(tick, program)
              for tick, of_channel, program in changes
              if of_channel == channel and tick <= first_onset]
    if not before:
        return None
    last_tick = max(tick for tick, _ in before)
    return [program for tick, program in before if tick == last_tick][-1]
