"""What (N, F) rows of note ids hold: how many bars, which parts, which of some other rows."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from backline.music.vocab import BAR, FIRST_ID, PITCH_INSTRUMENT, Vocabulary


def bars_in(rows: np.ndarray) -> int:
    """Bars of (N, F) rows in order, up to the last that has a note."""
    if not len(rows):
        return 0
    return int(rows[-1, BAR]) - FIRST_ID + 1


def parts_of(rows: np.ndarray, vocabulary: Vocabulary) -> tuple[str, ...]:
    """Names of the parts that have notes in (N, F) rows."""
    part_of_note = vocabulary.part_of_id[rows[:, PITCH_INSTRUMENT]]
    present = set(part_of_note.tolist())
    return tuple(name
                 for p, name in enumerate(vocabulary.part_names)
                 if p in present)


def played_by(rows: np.ndarray,
              parts: Sequence[str],
              vocabulary: Vocabulary) -> np.ndarray:
    """(N,) bool: which of (N, F) rows `parts` play."""
    wanted = [p
              for p, name in enumerate(vocabulary.part_names)
              if name in parts]
    part_of_note = vocabulary.part_of_id[rows[:, PITCH_INSTRUMENT]]
    return np.isin(part_of_note, wanted)


def are_among(rows: np.ndarray, others: np.ndarray) -> np.ndarray:
    """(N,) bool: which of (N, F) rows are also rows of (M, F) `others`."""
    known = set(map(tuple, others.tolist()))
    is_known = [tuple(row) in known for row in rows.tolist()]
    return np.array(is_known, bool)
