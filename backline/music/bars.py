"""Bars of four quarters: which bars of a song are, cutting a song at bar lines, and ticks as steps of a bar."""

from __future__ import annotations

import numpy as np

from backline.common.errors import UserError
from backline.music.song import Song, TimeSignature
from backline.music.vocab import QUARTERS_PER_BAR


def quantize_onsets(ticks: np.ndarray, ticks_per_quarter: int, steps_per_quarter: int) -> np.ndarray:
    """Nearest step of each onset, a tie going down: ceil(steps − 1/2), on exact integers."""
    return -((ticks_per_quarter - 2 * steps_per_quarter * ticks) // (2 * ticks_per_quarter))


def quantize_durations(ticks: np.ndarray, ticks_per_quarter: int, steps_per_quarter: int, longest: int) -> np.ndarray:
    """Nearest number of steps, a tie going down, from 1 to `longest`."""
    return np.clip(quantize_onsets(ticks, ticks_per_quarter, steps_per_quarter), 1, longest)


def meters(song: Song) -> list[tuple[int, int | None, TimeSignature]]:
    """(first tick, tick after the last or None, time signature) of each stretch; 4/4 where the file says nothing.

    Of several signatures at one tick the last holds.
    """
    signatures = {0: TimeSignature(0, QUARTERS_PER_BAR, 4), **{each.tick: each for each in song.time_signatures}}
    ticks = sorted(signatures)
    return [(tick, until, signatures[tick]) for tick, until in zip(ticks, [*ticks[1:], None], strict=True)]


def check_meters(song: Song, where: str) -> None:
    """Raise UserError if a bar is not four quarters long, with music in or after it."""
    last_onset = song.last_onset_tick  # looks at every note
    for tick, _, signature in meters(song):
        if not is_four_quarters(signature) and tick <= last_onset:
            bar = tick // (QUARTERS_PER_BAR * song.ticks_per_quarter)
            raise UserError(f"{where}: bar {bar} is in "
                            f"{signature.numerator}/{signature.denominator} (bars count from 0); "
                            f"only bars of four quarters can be represented: cut the song to its "
                            f"4/4 part, or let tokenizer.py --meters cut do it")


def check_notes(song: Song, where: str) -> None:
    """Raise UserError if there are none."""
    if not any(len(track.notes) for track in song.tracks):
        raise UserError(f"{where}: has no notes; export it again with some")


def check_playable(song: Song, where: str) -> None:
    """Raise UserError if there are no notes, or a bar that is not four quarters long with music in or after it."""
    check_notes(song, where)
    check_meters(song, where)


def is_four_quarters(signature: TimeSignature) -> bool:
    return signature.numerator * 4 == QUARTERS_PER_BAR * signature.denominator


def four_quarter_stretches(song: Song, min_bars: int) -> list[tuple[int, int | None]]:
    """First tick, and tick after the last (None: the end), of each stretch of at least `min_bars` four-quarter bars."""
    joined: list[list[int | None]] = []
    for tick, until, signature in meters(song):
        if not is_four_quarters(signature):
            continue
        if joined and joined[-1][1] == tick:
            joined[-1][1] = until
        else:
            joined.append([tick, until])
    end = song.last_onset_tick + 1
    bar = QUARTERS_PER_BAR * song.ticks_per_quarter
    return [(start, until) for start, until in joined
            if -(-(min(end, until or end) - start) // bar) >= min_bars]


def cut(parts: list[np.ndarray], start: int, end: int | None, early: int) -> list[np.ndarray]:
    """The notes of each part that begin from tick `start` to `end`, counted from `start`; none sounds past `end`.

    `parts` are sorted by onset: a look at every note for each of many stretches would take time
    quadratic in the file. A note up to `early` ticks before a bar line belongs to the bar that it
    is rounded to.
    """
    result = []
    for notes in parts:
        onset = notes[:, 0]
        first = np.searchsorted(onset, start - early)
        last = len(notes) if end is None else np.searchsorted(onset, end - early)
        moved = notes[first:last] - np.array([start, start, 0])
        moved[:, :2] = np.clip(moved[:, :2], 0, None if end is None else end - start)
        result.append(moved)
    return result
