"""Bars of four quarters: which bars of a song have them, cuts at bar lines, ticks as steps."""

from __future__ import annotations

import dataclasses
import math
from typing import NamedTuple

import numpy as np

from backline.common.errors import UserError
from backline.music.song import NO_NOTES, Song, TimeSignature
from backline.music.vocab import QUARTERS_PER_BAR

# ---------------------------------------------------------------- the grid


def quantize_onsets(ticks: np.ndarray,
                    ticks_per_quarter: int,
                    steps_per_quarter: int) -> np.ndarray:
    """Nearest step of each onset, a tie going down: ceil(steps − 1/2), on exact integers."""
    numerator = ticks_per_quarter - 2 * steps_per_quarter * ticks
    return -(numerator // (2 * ticks_per_quarter))


def quantize_durations(ticks: np.ndarray,
                       ticks_per_quarter: int,
                       steps_per_quarter: int,
                       longest: int) -> np.ndarray:
    """Nearest number of steps, a tie going down, from 1 to `longest`."""
    steps = quantize_onsets(ticks, ticks_per_quarter, steps_per_quarter)
    return np.clip(steps, 1, longest)


# ---------------------------------------------------------------- time signatures


class Stretch(NamedTuple):
    """Ticks from `start` to before `end`; None: to the end of the song."""

    start: int
    end: int | None


def meters(song: Song) -> list[tuple[Stretch, TimeSignature]]:
    """Each time signature and the stretch in which it holds; 4/4 where the file says nothing.

    Of several signatures at one tick the last holds.
    """
    signatures = {0: TimeSignature(0, QUARTERS_PER_BAR, 4)}
    signatures |= {signature.tick: signature for signature in song.time_signatures}
    ticks = sorted(signatures)
    ends = [*ticks[1:], None]
    return [(Stretch(tick, end), signatures[tick])
            for tick, end in zip(ticks, ends, strict=True)]


def is_four_quarters(signature: TimeSignature) -> bool:
    """Whether its bars are four quarters long: 4/4, 2/2, 8/8 and so on."""
    return signature.numerator * 4 == QUARTERS_PER_BAR * signature.denominator


CUT_METERS = ("only bars of four quarters can be represented: cut the song to its 4/4 part, or give "
              "--meters cut")


def check_meters(song: Song, where: str, remedy: str = CUT_METERS) -> None:
    """Raise UserError if a bar with music in it or after it is not four quarters long.

    `remedy`: the end of the message, what to do about it.
    """
    last_onset = song.last_onset_tick  # looks at every note: once
    for stretch, signature in meters(song):
        if is_four_quarters(signature) or stretch.start > last_onset:
            continue
        bar = 1 + stretch.start // (QUARTERS_PER_BAR * song.ticks_per_quarter)
        raise UserError(f"{where}: bar {bar} is in {signature.numerator}/{signature.denominator}; "
                        f"{remedy}")


def check_notes(song: Song, where: str) -> None:
    """Raise UserError if there are none."""
    if not any(len(track.notes) for track in song.tracks):
        raise UserError(f"{where}: has no notes; export it again with some")


def check_playable(song: Song, where: str) -> None:
    """Raise UserError if there are no notes, or if `check_meters` does."""
    check_notes(song, where)
    check_meters(song, where)


# ---------------------------------------------------------------- how long a clip is

FARTHEST_END = 8  # bars: a track that ends later after its last note says nothing of the clip


def pickup_ticks(song: Song) -> int:
    """The length of a pickup: a first bar of less than four quarters before whole ones; else 0."""
    (stretch, signature), *others = meters(song)
    length = signature.numerator * 4 * song.ticks_per_quarter // max(signature.denominator, 1)
    is_short = 0 < length < QUARTERS_PER_BAR * song.ticks_per_quarter
    is_one_bar = bool(others) and stretch.end == length
    if is_short and is_one_bar and is_four_quarters(others[0][1]):
        return length
    return 0


def bar_origin(song: Song) -> int:
    """The tick at which bar 1 begins: 0, or less if the song begins with a pickup, its end."""
    pickup = pickup_ticks(song)
    return pickup - QUARTERS_PER_BAR * song.ticks_per_quarter if pickup else 0


def without_pickup(song: Song) -> Song:
    """The song with the time signature of its pickup replaced by that of the next bar."""
    end = pickup_ticks(song)
    if not end:
        return song
    signatures = [signature
                  for signature in song.time_signatures
                  if signature.tick >= end]
    return dataclasses.replace(song, time_signatures=tuple(signatures))


class ClipLength(NamedTuple):
    """Bars that a clip lasts, from bar 1 on, and bars of silence after it that do not count."""

    n_bars: int
    n_silent: int


def clip_length(song: Song, origin: int = 0) -> ClipLength:
    """How many bars a clip lasts: to the last end of a track or a note, in whole bars.

    Up to a 32nd past a bar line does not count, since some programs end a track a tick late.
    Neither does a note that begins within a 32nd before the end, since it belongs to the next bar;
    only a note that lasts all of that bar adds it. Neither does an end of track more than
    `FARTHEST_END` bars after the last note.

    `origin` is the tick at which bar 1 begins, below 0 for a pickup.
    """
    bar = QUARTERS_PER_BAR * song.ticks_per_quarter
    late = song.ticks_per_quarter // 8

    def bars_until(tick: int) -> int:
        """Bars that begin before a tick; one that begins up to a 32nd before it does not count."""
        return math.ceil((tick - origin - late) / bar)

    notes = np.concatenate([NO_NOTES, *(track.notes for track in song.tracks)])
    onset = notes[:, 0] - origin
    is_early = onset % bar >= bar - late
    ends = notes[~is_early, 1]
    n_bars = max(bars_until(int(ends.max(initial=0))), 1)
    early = notes[is_early]
    for note_onset, end, _ in early[np.argsort(early[:, 0])].tolist():
        n_before = (note_onset - origin) // bar + 1  # bars up to the line that it is early for
        fills_next = end - note_onset >= bar - late
        if n_before < n_bars or (n_before == n_bars and fills_next):
            n_bars = max(n_bars, bars_until(end))
        elif n_before > n_bars:
            n_bars = n_before
    n_until_end = bars_until(song.last_end_of_track)
    n_silent = n_until_end - n_bars
    if n_silent > FARTHEST_END:
        return ClipLength(n_bars, n_silent)
    return ClipLength(max(n_bars, n_until_end), 0)


# ---------------------------------------------------------------- cutting


def four_quarter_stretches(song: Song, min_bars: int) -> list[Stretch]:
    """The stretches of four-quarter bars that are at least `min_bars` long."""
    joined: list[Stretch] = []
    for stretch, signature in meters(song):
        if not is_four_quarters(signature):
            continue
        if joined and joined[-1].end == stretch.start:
            start = joined[-1].start
            joined[-1] = Stretch(start, stretch.end)
        else:
            joined.append(stretch)
    end_of_music = song.last_onset_tick + 1
    bar_ticks = QUARTERS_PER_BAR * song.ticks_per_quarter

    def n_bars(stretch: Stretch) -> int:
        """Bars of a stretch up to the last onset of the song, rounded up."""
        end = min(end_of_music, stretch.end or end_of_music)
        return math.ceil((end - stretch.start) / bar_ticks)

    return [stretch for stretch in joined if n_bars(stretch) >= min_bars]


def cut(parts: list[np.ndarray], stretch: Stretch, early: int) -> list[np.ndarray]:
    """The notes of each part that begin in `stretch`, counted from its start.

    No note sounds past the end. A note up to `early` ticks before a bar line belongs to the bar
    that it is rounded to.

    `parts` are sorted by onset: a look at every note for each of many stretches would take time
    quadratic in the file.
    """
    start, end = stretch
    length = None if end is None else end - start
    result = []
    for notes in parts:
        onset = notes[:, 0]
        first = np.searchsorted(onset, start - early)
        last = len(notes)
        if end is not None:
            last = int(np.searchsorted(onset, end - early))
        moved = notes[first:last] - np.array([start, start, 0])  # (N, 3)
        times = moved[:, :2]
        moved[:, :2] = np.clip(times, 0, length)
        result.append(moved)
    return result
