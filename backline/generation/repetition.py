"""Bars that repeat earlier ones note for note: how many in a row, in a song as it grows.

Songs repeat themselves, and sampled ones may fall into a loop: once some bars in a row are repeats,
one more is the likeliest continuation (Holtzman et al. 2020, of text). Bars are compared by the
onsets and pitches of their notes, not by durations.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence

import numpy as np

from backline.music.vocab import BAR, FIRST_ID, PITCH_INSTRUMENT, START_POS

BARS_BACK = 8  # where the repeated bar is looked for: phrases of four and eight come back whole


class Repeats:
    """Counts the repeats in a song, note by note."""

    def __init__(self) -> None:
        self.in_a_row = 0  # how many finished bars, up to the last, are repeats
        self.bar = FIRST_ID  # the bar in progress, an id
        self._onsets: set[tuple[int, int]] = set()  # (start_pos, pitch) of its notes, ids
        self._before: deque[frozenset[tuple[int, int]]] = deque(maxlen=BARS_BACK)

    def add(self, note: Sequence[int]) -> None:
        """One more note, a row of ids, no earlier than the last."""
        while self.bar < note[BAR]:
            self.end_bar()
        start_pos = int(note[START_POS])
        pitch = int(note[PITCH_INSTRUMENT])
        self._onsets.add((start_pos, pitch))

    def end_bar(self) -> None:
        """Finish the bar in progress; an empty one is no repeat."""
        onsets = frozenset(self._onsets)
        is_repeat = bool(onsets) and onsets in self._before
        self.in_a_row = self.in_a_row + 1 if is_repeat else 0
        self._before.append(onsets)
        self.bar += 1
        self._onsets = set()


def repeats_in_a_row(rows: np.ndarray) -> np.ndarray:
    """(n_bars,) for each bar of (N, F) note ids: how many in a row up to it are repeats."""
    repeats = Repeats()
    counts = []
    for note in rows.tolist():
        while repeats.bar < note[BAR]:
            repeats.end_bar()
            counts.append(repeats.in_a_row)
        repeats.add(note)
    if len(rows):
        repeats.end_bar()
        counts.append(repeats.in_a_row)
    return np.array(counts, np.int64)
