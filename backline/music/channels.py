"""What a MIDI file says of its channels: which play, with which programs, and which are drums.

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
    KEY_PRESSURE,
    N_CHANNELS,
    NOTE_ON,
    PITCH_BEND,
    PROGRAM_CHANGE,
    SYSEX,
    events_of,
)

DRUM_CHANNEL = 9  # counted from 0
XG_KITS, GM2_KITS = 127, 120  # values of bank select; in GS, 127 holds sounds of the MT-32
UNKNOWN_BANK = -1  # of a damaged byte: clipped to 127 it would be one of kits
FEWEST_SPREAD = 3  # channels that one instrument is spread over
# "Use for rhythm part": the part, whose number 0 stands for the tenth channel, and 0 for off.
GS_RHYTHM = re.compile(rb"\x41.\x42\x12[\x40\x50]([\x10-\x1f])\x15(.)", re.DOTALL)
GS = re.compile(rb"\x41.\x42\x12", re.DOTALL)
XG_MODE = re.compile(rb"\x43[\x10-\x1f]\x4c\x08([\x00-\x0f])\x07(.)", re.DOTALL)  # 0: melodic


@dataclasses.dataclass
class SetUp:
    """Which channels a file sets up for drums, or for other sounds, and whether it is for GS."""

    is_drum: dict[int, bool] = dataclasses.field(default_factory=dict)
    is_gs: bool = False

    def read(self, data: bytes) -> None:
        """Take note of the set-up messages in these bytes: a whole track, or one message."""
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
        """Whether a channel that begins with a program of this bank plays drums."""
        if channel in self.is_drum:
            return self.is_drum[channel]
        is_kit = bank == GM2_KITS or (bank == XG_KITS and not self.is_gs)
        return channel == DRUM_CHANNEL or is_kit


@dataclasses.dataclass
class Survey:
    """What a track says of its channels, as far as it was read.

    played: by (channel, program), in how many stretches it plays; None: before any program change.
    banks: by channel, the bank of the program that its first note is played with.
    first_onsets: by channel, the tick of its first note.
    changes: (tick, channel, program) of the program changes, in order.
    bends: by channel, how many it has.
    has_late_change: whether a program change follows a note of its channel in the same tick. The
        change takes effect before that note.
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
    for tick, _, status, first, second, n_over, _ in events_of(body):
        if status >= SYSEX:
            continue
        channel = channels[status & 15]
        if NOTE_ON <= status < KEY_PRESSURE and second:
            channel.last_onset = tick
            if channel.begun < 0:
                channel.begin(tick)
                if len(found.first_onsets) == n_channels:
                    break
        elif PROGRAM_CHANGE <= status < CHANNEL_PRESSURE:
            channel.change(tick, first)
        elif CONTROL_CHANGE <= status < PROGRAM_CHANGE and not first:
            channel.selected = UNKNOWN_BANK if n_over else second
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


def is_spread(channels: Sequence[tuple[int, int | None, int, int]]) -> bool:
    """Whether the channels of a track play one instrument, each note on one of its own, as in MPE.

    Such keyboards bend a channel anew for each note that begins on it, and do not name different
    programs.

    Args:
        channels: number, program (None: unnamed), how many notes and bends of each that plays.
    """
    programs = {program for _, program, _, _ in channels} - {None}
    is_bent = all(n_bends >= n_notes for _, _, n_notes, n_bends in channels)
    return len(channels) >= FEWEST_SPREAD and len(programs) <= 1 and is_bent


def program_from(changes: list[tuple[int, int, int]],
                 channel: int,
                 first_onset: int) -> int | None:
    """The last program that other tracks set a channel to by its first note; None without one."""
    before = [(tick, program)
              for tick, of_channel, program in changes
              if of_channel == channel and tick <= first_onset]
    if not before:
        return None
    last_tick = max(tick for tick, _ in before)
    return [program for tick, program in before if tick == last_tick][-1]
