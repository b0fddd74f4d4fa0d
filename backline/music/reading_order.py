"""When given notes are read: some bars ahead, so that what is made can prepare for them.

Given notes are read a bar at a time. After BOS come those of the first `lookahead_bars` bars;
after the first made note of a bar come those of the bar that is so much later. This order depends
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

    @property
    def all_read(self) -> bool:
        """Whether none is left."""
        return self.n_read == len(self.rows)

    def due(self, bar: int) -> list[tuple[int, ...]]:
        """The notes that come due when the last made note stands in `bar`, from 0."""
        bars = self.rows[:, BAR] - FIRST_ID
        first = self.n_read
        last_bar = bar + self.lookahead_bars
        n_due = int(np.searchsorted(bars, last_bar, side="right"))
        self.n_read = max(first, n_due)
        rows = self.rows[first:self.n_read]
        return [tuple(row) for row in rows.tolist()]


def reading_order(bars: np.ndarray,
                  given: np.ndarray,
                  start: int,
                  lookahead_bars: int) -> np.ndarray:
    """(N,) indices of the notes of one song in the order in which they are read.

    Given notes that come due after the last made note stand at the end.

    Args:
        bars: (N,) of each note; those of the made notes ascend.
        given: (N,) bool, the notes that are given; the others are made.
        start: the bar that the song begins in: notes up to `lookahead_bars` later are read first.
    """
    bars_made = bars[~given]
    number = np.cumsum(~given) - 1                           # (N,) of a made note, from 0
    follows = np.searchsorted(bars_made, bars - lookahead_bars)  # (N,) number of the made note
    is_due_at_once = bars <= start + lookahead_bars
    follows[is_due_at_once] = -1
    place = np.where(given, follows, number)
    index = np.arange(len(bars))
    return np.lexsort((index, given, place))
