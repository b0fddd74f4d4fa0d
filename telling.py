"""What a model with controls is told to play, for every bar and half bar that a song can have. Light: no torch."""

from __future__ import annotations

import dataclasses

import numpy as np

from chords import CHORD_FIELDS, HALVES_PER_BAR, UNKNOWN
from controls import fields
from vocab import FIRST_ID, Vocabulary


@dataclasses.dataclass(frozen=True)
class Told:
    """Ids of controls; see `controls.fields` for their order."""

    by_bar: np.ndarray  # (bars, S) uint8: the sheet and how many bars are left, read with the notes of a bar
    by_half_bar: np.ndarray  # (2 * bars, 3) uint8: the chord, which counts once a note's time is chosen

    def chord_at(self, bar: int, start_pos: int, vocabulary: Vocabulary) -> np.ndarray:
        """(3,) ids of the chord at a time, given as ids; unknown for special ids."""
        if bar < FIRST_ID or start_pos < FIRST_ID:
            return np.full(len(CHORD_FIELDS), UNKNOWN, np.uint8)
        half = (start_pos - FIRST_ID) * HALVES_PER_BAR // vocabulary.steps_per_bar
        return self.by_half_bar[(bar - FIRST_ID) * HALVES_PER_BAR + half]


def nothing_told(vocabulary: Vocabulary) -> Told:
    """All controls unknown."""
    n_sheet = len(fields(vocabulary)) - len(CHORD_FIELDS)
    by_bar = np.full((vocabulary.bars, n_sheet), UNKNOWN, np.uint8)
    return Told(by_bar, np.full((HALVES_PER_BAR * vocabulary.bars, len(CHORD_FIELDS)), UNKNOWN, np.uint8))
