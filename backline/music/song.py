"""A song as arrays of notes, with times in ticks, as a MIDI file holds them.

`midi_reader.py` makes songs of MIDI, `midi_writer.py` makes MIDI of notes.
"""

from __future__ import annotations

import dataclasses
import itertools
import numbers
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from backline.common.errors import UserError

# Tempos are in beats per minute; MIDI stores microseconds per quarter in 24 bits, from 1.
DEFAULT_TEMPO = 120.0  # what a MIDI file without a tempo plays at
MICROSECONDS_PER_MINUTE = 60e6
SLOWEST = MICROSECONDS_PER_MINUTE / 0xFFFFFF
FASTEST = MICROSECONDS_PER_MINUTE
TICKS_PER_QUARTER = 96  # of songs made from tokens
MAX_TICKS_PER_QUARTER = 0x7FFF  # 15 bits of a MIDI header
LARGEST_POWER = 7  # of two, in a time signature that is meant: 128ths
# Longest song that is read, in quarters: a day of music. Past it the times are garbage.
MAX_QUARTERS = 24 * 60 * 240
VELOCITY = 100  # of notes whose velocity nobody says
NO_NOTES = np.zeros((0, 3), np.int64)


class TimeSignature(NamedTuple):
    """`numerator`/`denominator` from `tick` on."""

    tick: int
    numerator: int
    denominator: int


def time_signature(tick: int, numerator: int, power: int) -> TimeSignature:
    """The signature of a MIDI file's `numerator` over two to the `power`, a byte each.

    A power that no bar can have wraps as in common parsers, where the denominator is a byte too.
    """
    return TimeSignature(tick, numerator, 1 << power % 32 & 0xFF)


def meter_notices(signatures: Sequence[tuple[int, int]]) -> list[str]:
    """A line about signatures, (numerator, power of two), that no bar can have; else no line."""
    strange = [(numerator, power)
               for numerator, power in signatures
               if not numerator or power > LARGEST_POWER]
    if not strange:
        return []
    numerator, power = strange[0]
    read = time_signature(0, numerator, power)
    is_four_quarters = read.numerator == read.denominator
    meaning = "bars of four quarters" if is_four_quarters else f"{read.numerator}/{read.denominator}"
    count = f"a time signature of {numerator}/2^{power}"
    if len(strange) > 1:
        count = f"{len(strange)} time signatures beyond belief, the first {numerator}/2^{power}"
    return [f"{count}, read as {meaning}"]


@dataclasses.dataclass(frozen=True)
class Track:
    """Notes of one track, channel and program.

    notes: (N, 3) int64: onset and end in ticks, pitch.
    is_drum: whether it is on the drum channel, or on one that the file sets up for drums.
    has_program: whether the file names its program; else `program` is 0.
    shares_name: whether several channels share its name, which then says little about any.
    channel: counted from 0; −1 where it is not known.
    spread: the same number for all channels that one instrument is spread over, a channel for each
        note that sounds, as MPE keyboards do; −1 for ordinary tracks.
    """

    name: str
    program: int
    is_drum: bool
    notes: np.ndarray
    has_program: bool = True
    shares_name: bool = False
    channel: int = -1
    spread: int = -1


@dataclasses.dataclass(frozen=True)
class Song:
    """A MIDI file's notes and time line.

    `tempos` are (tick, beats per minute) pairs; both lists are sorted by tick.
    `notices` say what was odd about the file but read all the same; an ordinary file has none.
    `players` maps a part's name to the indices of the tracks that play it, if the file says so.
    `last_end_of_track` is the tick at which the longest track ends, of those that do not end with a
    note of theirs; 0 if that is not known.
    """

    ticks_per_quarter: int
    tracks: tuple[Track, ...]
    tempos: tuple[tuple[int, float], ...] = ()
    time_signatures: tuple[TimeSignature, ...] = ()
    notices: tuple[str, ...] = ()
    last_end_of_track: int = 0
    players: Mapping[str, tuple[int, ...]] = dataclasses.field(default_factory=dict)

    @property
    def end_tick(self) -> int:
        """When the last note ends; 0 without notes."""
        ends = (int(track.notes[:, 1].max())
                for track in self.tracks
                if len(track.notes))
        return max(ends, default=0)

    @property
    def last_onset_tick(self) -> int:
        """When the last note begins; 0 without notes."""
        onsets = (int(track.notes[:, 0].max())
                  for track in self.tracks
                  if len(track.notes))
        return max(onsets, default=0)

    @property
    def n_notes(self) -> int:
        """Notes in all tracks."""
        return sum(len(track.notes) for track in self.tracks)

    def seconds_until(self, tick: int) -> float:
        """How long after the song's beginning a tick is, by its tempo map."""
        ticks = [0, *(min(each, tick) for each, _ in self.tempos), tick]
        tempos = [DEFAULT_TEMPO, *(tempo for _, tempo in self.tempos)]
        minutes = sum((after - before) / tempo
                      for (before, after), tempo in zip(itertools.pairwise(ticks), tempos, strict=True))
        return 60 * minutes / self.ticks_per_quarter

    def main_tempo(self) -> float:
        """The tempo in force for most of the song's ticks, 120 where there is none."""
        end = max(self.end_tick, 1)
        changes = [(0, DEFAULT_TEMPO)]
        changes += [(tick, tempo) for tick, tempo in self.tempos if tick < end]
        next_ticks = [tick for tick, _ in changes[1:]]
        next_ticks.append(end)
        ticks: dict[float, int] = {}  # that each tempo is in force
        for (tick, tempo), next_tick in zip(changes, next_ticks, strict=True):
            ticks[tempo] = ticks.get(tempo, 0) + next_tick - tick
        return max(ticks, key=lambda tempo: ticks[tempo])


# ---------------------------------------------------------------- tempo


def rounded_tempo(tempo: float) -> float:
    """A tempo as songs hold it: to three decimals, and within the range of MIDI."""
    return min(max(round(tempo, 3), SLOWEST), FASTEST)


def check_tempo(tempo: Any, where: str) -> float:
    """`tempo` in beats per minute. Raises UserError unless it is a number that MIDI can hold."""
    is_number = isinstance(tempo, numbers.Real) and not isinstance(tempo, bool)
    if not is_number or not SLOWEST <= tempo <= FASTEST:
        raise UserError(f"{where}: tempo must be a number from {SLOWEST:.2f} to {FASTEST:.0f} "
                        f"beats per minute, not {tempo!r:.40}; correct it, or leave it out for "
                        f"{DEFAULT_TEMPO:g}")
    return float(tempo)


def check_times(last_tick: int, ticks_per_quarter: int, where: str) -> None:
    """Raise UserError if the last note ends beyond any song."""
    latest = last_tick / ticks_per_quarter
    if latest > MAX_QUARTERS:
        raise UserError(f"{where}: has a note at quarter {latest:.0f}, beyond any song; its times "
                        f"are damaged")
