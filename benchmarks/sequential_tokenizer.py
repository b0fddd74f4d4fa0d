"""Tokens without pooling: one family after another in the sequence, as REMI does (Huang & Yang 2020).

A song is BOS, then for each note its bar and start_pos, where they differ from the note's before, its
pitch_instrument and its note_dur, and EOS: two to four tokens where the pooled tokenizer has one. It is here as the
rival that shows what pooling costs and saves (`benchmarks.bench_models`), and for models that read flat sequences.
"""

from __future__ import annotations

import functools
from typing import Any

import numpy as np

from backline.common.errors import UserError
from backline.music.vocab import BAR, BOS, CHOICE_ORDER, EOS, FIELDS, FIRST_ID, SPECIALS, START_POS
from tokenizer import MidiTokenizerBase, canonical

ORDER = CHOICE_ORDER  # of a note's families in the sequence


class MidiTokenizerSequential(MidiTokenizerBase):
    """Ids of one vocabulary: the special ones, then every family's in `ORDER`; what they say is the pooled ids'."""

    file_format = "sequential-tokens"

    @functools.cached_property
    def first_ids(self) -> np.ndarray:
        """(F + 1,) first id of each family in `ORDER`, and the number of all ids."""
        sizes = [self.vocabulary.sizes[family] - FIRST_ID for family in ORDER]
        return np.cumsum([FIRST_ID, *sizes])

    @property
    def n_tokens(self) -> int:
        return int(self.first_ids[-1])

    def rows_to_ids(self, rows: np.ndarray) -> list[int]:
        ids = rows[:, ORDER] - FIRST_ID + self.first_ids[:-1]
        needed = np.ones(ids.shape, bool)
        same_bar = rows[1:, BAR] == rows[:-1, BAR]
        needed[1:, 0] = ~same_bar
        needed[1:, 1] = ~same_bar | (rows[1:, START_POS] != rows[:-1, START_POS])
        return [BOS, *ids[needed].tolist(), EOS]

    def ids_to_rows(self, ids: Any, where: str = "ids") -> np.ndarray:
        """(N, F) int64 note ids, in order; EOS ends the song, other special ids are left out.

        Raises UserError naming the first id that is outside the vocabulary or cannot stand where it does.
        """
        ids = self._checked(ids, where)
        ends = np.flatnonzero(ids == EOS)
        ids = ids[:ends[0]] if len(ends) else ids
        ids = ids[ids >= FIRST_ID]
        family = np.searchsorted(self.first_ids, ids, side="right") - 1  # place in ORDER
        follows = np.concatenate([[len(ORDER) - 1], family[:-1]])  # a song begins as after a whole note
        wrong = ~_MAY_FOLLOW[follows, family]
        wrong[:1] |= family[:1] != 0  # where no bar and start_pos were said yet
        if wrong.any() or (len(ids) and family[-1] != len(ORDER) - 1):
            place = int(np.argmax(wrong)) if wrong.any() else len(ids) - 1
            raise UserError(f"{where}: {self._names[ids[place]]} cannot stand as note token {place}: a note is "
                            f"{', '.join(FIELDS[f] for f in ORDER)}, the first two only where they change")
        at_pitch = np.flatnonzero(family == 2)
        rows = np.empty((len(at_pitch), len(FIELDS)), np.int64)
        for place, column in enumerate(ORDER):
            said = np.flatnonzero(family == place)
            heard = said[np.searchsorted(said, at_pitch, side="right") - 1] if place < 2 else at_pitch + (place - 2)
            rows[:, column] = ids[heard] - self.first_ids[place] + FIRST_ID
        return canonical(rows)

    def tokens_to_events(self, ids: Any) -> list[str]:
        """The event name of each id."""
        return [self._names[id_] for id_ in self._checked(ids, "ids").tolist()]

    @functools.cached_property
    def _names(self) -> list[str]:
        names = self.vocabulary.event_names
        return [*SPECIALS, *(name for family in ORDER for name in names[family][FIRST_ID:])]

    def _checked(self, ids: Any, where: str) -> np.ndarray:
        """(L,) int64 ids, all in the vocabulary."""
        array = np.asarray(ids.cpu() if hasattr(ids, "cpu") else ids)
        if not array.size:
            array = np.zeros(0, np.int64)
        if array.ndim != 1 or not np.issubdtype(array.dtype, np.integer):
            raise UserError(f"{where}: must be whole numbers in a row, not an array of shape {list(array.shape)} "
                            f"and type {array.dtype}")
        outside = (array < 0) | (array >= self.n_tokens)
        if outside.any():
            place = int(np.argmax(outside))
            raise UserError(f"{where}: id {array[place]} at {place} is outside the vocabulary of {self.n_tokens}")
        return array.astype(np.int64)


# [family before, family]: bar → start_pos → pitch_instrument → note_dur → any but note_dur
_MAY_FOLLOW = np.array([[False, True, False, False], [False, False, True, False], [False, False, False, True],
                        [True, True, True, False]])
