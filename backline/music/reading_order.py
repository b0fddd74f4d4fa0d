"""When given notes are read: a fixed number of bars ahead, so that what is made can prepare for them.

Given notes are read a bar at a time. Behind BOS come those of the first `lookahead_bars` bars;
behind the first made note of a bar come those of the bar that is so much later. This order depends
only on the past, so sampling can follow it; and almost every made note still follows the made note
before it, as in ordinary songs. The idea is that of Anticipatory Music Transformer (Thickstun et
al. 2023, section 3), here on compound tokens.
"""

from __future__ import annotations

import numpy as np

from backline.music.vocab import BAR, FIRST_ID


class GivenNotes:
    """The given notes of one song, handed out when they are due."""

    def __init__(self, rows: np.ndarray, lookahead_bars: int) -> None:
        """`rows`: (N, F) note ids in order."""
        self.rows = rows
        self.lookahead_bars = lookahead_bars
        self.n_read = 0

    def due(self, bar: int) -> list[tuple[int, ...]]:
        """The notes that are due when the last made note stands in `bar`, from 0, and were not due before."""
        bars = self.rows[:, BAR] - FIRST_ID
        first = self.n_read
        n_due = int(np.searchsorted(bars, bar + self.lookahead_bars, side="right"))
        self.n_read = max(first, n_due)
        return [tuple(row) for row in self.rows[first:self.n_read].tolist()]


def reading_order(bars: np.ndarray, given: np.ndarray, start: int, lookahead_bars: int) -> np.ndarray:
    """(N,) indices of the notes of one song in the order in which they are read.

    Given notes that come due behind the last made note stand at the end.

    Args:
        bars: (N,) of each note; those of the made notes ascend.
        given: (N,) bool, the notes that are given; the others are made.
        start: the bar that the song begins in: notes up to `lookahead_bars` later are read first.
    """
    made_before = np.cumsum(~given) - 1                         # (N,); for a made note: its number
    due = np.searchsorted(bars[~given], bars - lookahead_bars)  # number of the made note that a given one follows
    due = np.where(bars <= start + lookahead_bars, -1, due)
    place = np.where(given, due, made_before)
    return np.lexsort((np.arange(len(bars)), given, place))
