"""Bars that copy earlier ones note for note: how many in a row, in a song as it grows.

Songs repeat themselves, and sampled ones may fall into a loop: once some bars in a row are copies, one more is the
likeliest thing there is (Holtzman et al. 2020, of text). Bars are compared by what is struck when, not by how long it
lasts.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence

import numpy as np

from backline.music.vocab import BAR, FIRST_ID, PITCH_INSTRUMENT, START_POS

REACH = 8  # bars back in which the one that is copied is looked for: phrases of four and of eight come back whole


class Copies:
    """Follows a song, note by note."""

    def __init__(self) -> None:
        self.in_a_row = 0  # of the bars that are over, how many up to the last are copies
        self._before: deque[frozenset[tuple[int, int]]] = deque(maxlen=REACH)
        self.bar = FIRST_ID  # the one under way, and what is struck in it when
        self._struck: set[tuple[int, int]] = set()

    def add(self, note: Sequence[int]) -> None:
        """One more note, a row of ids, no earlier than the last."""
        while self.bar < note[BAR]:
            self.end_bar()
        self._struck.add((int(note[START_POS]), int(note[PITCH_INSTRUMENT])))

    def end_bar(self) -> None:
        """The bar under way is over; an empty one is no copy."""
        bar = frozenset(self._struck)
        self.in_a_row = self.in_a_row + 1 if bar and bar in self._before else 0
        self._before.append(bar)
        self.bar, self._struck = self.bar + 1, set()


def copies_in_a_row(rows: np.ndarray) -> np.ndarray:
    """(n_bars,) for each bar of (N, F) note ids in order, from bar 0: how many in a row up to it are copies."""
    copies, counts = Copies(), []
    for note in rows.tolist():
        while copies.bar < note[BAR]:
            copies.end_bar()
            counts.append(copies.in_a_row)
        copies.add(note)
    if len(rows):
        copies.end_bar()
        counts.append(copies.in_a_row)
    return np.array(counts, np.int64)
