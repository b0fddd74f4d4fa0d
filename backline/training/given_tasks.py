"""Training rows made into tasks: given parts to play to, and bars to fill, in the order that `reading_order.py` says.

The idea is that of Anticipatory Music Transformer (Thickstun et al. 2023, section 3), here on compound tokens.
"""

from __future__ import annotations

import dataclasses

import numpy as np
import torch
from torch import Tensor

from backline.music.chords import CHORD_FIELDS, HALVES_PER_BAR, NONE, UNKNOWN, estimate_chords
from backline.music.controls import bars_left, silenced
from backline.music.reading_order import reading_order
from backline.music.sheet import key_column
from backline.music.vocab import (
    BAR,
    BOS,
    EOS,
    FIELDS,
    FIRST_CONTROL,
    FIRST_ID,
    GIVEN,
    PAD,
    PITCH_INSTRUMENT,
    START_POS,
    Vocabulary,
)

REACH = 2  # windows of notes from which one window of a task is made: given notes are read early, others are silent
LONGEST_FILL = 8  # bars
ALONE = 0.2  # of the parts that are not made, how many are silent instead of given
SOME_PARTS = 0.3  # of the fills, how many are of some parts only
NEVER = 2**40  # a bar later than all


@dataclasses.dataclass(frozen=True)
class Anticipation:
    """Turns a share of training rows into tasks: some parts for others, or bars filled in the middle."""

    vocabulary: Vocabulary
    lookahead_bars: int
    share: float  # of the rows

    def __call__(self, rows: Tensor, length: int, generator: torch.Generator) -> Tensor:
        """(B, T, F + 1) of (B, L, F) rows: tasks, or their first `length` T notes as they are; L ≥ T.

        The last column is 1 for given notes, and for what fills a row up. Rows that have it already, and controls
        behind it, keep these.
        """
        random = np.random.default_rng(int(torch.randint(2**62, (1,), generator=generator)))
        flagged = np.zeros((*rows.shape[:2], max(rows.shape[2], GIVEN + 1)), np.int64)
        flagged[..., :rows.shape[2]] = rows.numpy()
        result = flagged[:, :length]
        for number, row in enumerate(flagged):
            if random.random() < self.share:
                result[number] = self._task(row, length, random)
        return torch.from_numpy(result)

    def _task(self, row: np.ndarray, length: int, random: np.random.Generator) -> np.ndarray:
        """(T, C) another order and choice of the rows (L, C) of one window, cut or filled to `length`."""
        row = row[row[:, BAR] != PAD]
        begins = np.flatnonzero(row[:, BAR] == BOS)
        begins = np.concatenate([[0], begins[begins > 0]])
        pieces = np.split(row, begins[1:])
        if random.random() < 0.5:
            made = self._some_parts(random)
            silent = ~made & (random.random(len(made)) < ALONE)
            pieces = [self.parts_given(piece, made, silent) for piece in pieces]
        else:
            in_sight = np.minimum([len(piece) for piece in pieces], length - begins)
            longest = int(in_sight.argmax())
            pieces[longest] = self._some_bars_filled(pieces[longest], in_sight[longest], random)
        found = np.concatenate(pieces)[:length]
        filling = np.full((length - len(found), row.shape[1]), PAD, row.dtype)
        filling[:, GIVEN] = 1
        return np.concatenate([found, filling])

    def _some_parts(self, random: np.random.Generator) -> np.ndarray:
        """(n_parts,) bool: at least one part, and not all where there are several."""
        n = len(self.vocabulary.parts)
        some = np.zeros(n, bool)
        some[random.permutation(n)[:random.integers(1, max(n, 2))]] = True
        return some

    def parts_given(self, piece: np.ndarray, made: np.ndarray, silent: np.ndarray) -> np.ndarray:
        """(N, C) rows of one song in the order of reading. Parts are `made`, `silent` (n_parts,) or else given."""
        parts = self.vocabulary.part_of_id[piece[:, PITCH_INSTRUMENT]]  # −1: BOS and EOS
        piece = piece[(parts < 0) | ~silent[parts]]
        parts = self.vocabulary.part_of_id[piece[:, PITCH_INSTRUMENT]]
        piece = self._ordered(piece, (parts >= 0) & ~made[parts])
        if piece.shape[1] > FIRST_CONTROL:
            controls = silenced(piece[:, FIRST_CONTROL:], np.flatnonzero(silent).tolist(), self.vocabulary)
            piece[:, FIRST_CONTROL:] = controls
            self._tell(piece)
        return piece

    def _some_bars_filled(self, piece: np.ndarray, in_sight: int, random: np.random.Generator) -> np.ndarray:
        """Some bars are made that begin in the first `in_sight` of (N, C) rows, seldom with little before them."""
        bars = piece[:in_sight, BAR]
        bars = bars[bars >= FIRST_ID]
        if not len(bars):
            return piece
        first = bars[random.integers(len(bars) // 4, len(bars))]
        n_bars = int(2 ** random.uniform(0, np.log2(LONGEST_FILL + 1)))  # each octave as often
        made = self._some_parts(random) if random.random() < SOME_PARTS else np.ones(len(self.vocabulary.parts), bool)
        return self.filled(piece, first, first + n_bars - 1, made)

    def filled(self, piece: np.ndarray, first: int, last: int, made: np.ndarray) -> np.ndarray:
        """(N, C) rows of one song in the order of reading, of which some bars are made, by the `made` (n_parts,).

        The notes before these bars, ids from `first` to `last`, are known, those after them given; EOS ends them.
        """
        piece = piece[piece[:, BAR] != EOS]
        after = piece[:, BAR] > last
        inside = (piece[:, BAR] >= first) & ~after
        given = after | (inside & ~made[self.vocabulary.part_of_id[piece[:, PITCH_INSTRUMENT]]])
        end = np.full((1, piece.shape[1]), EOS, piece.dtype)
        end[:, GIVEN:] = 0
        end[:, FIRST_CONTROL:] = piece[inside, FIRST_CONTROL:][-1:]
        piece = self._ordered(np.concatenate([piece, end]), np.append(given, False))
        if piece.shape[1] > FIRST_CONTROL:
            column = FIRST_CONTROL + key_column(self.vocabulary) + 1
            bars = np.where(piece[:, BAR] < FIRST_ID, first, piece[:, BAR])
            piece[:, column] = np.where(piece[:, column] == UNKNOWN, UNKNOWN, bars_left(np.maximum(last - bars, 0)))
            self._tell(piece)
        return piece

    def _tell(self, piece: np.ndarray) -> None:
        """Make of the controls of (N, C) rows, in place, what is known while they are made.

        A given note is read early, and comes with the sheet and the bars left of the last note made. Chords are those
        of the given notes alone, since those of all would give away what is to be made.
        """
        if not len(piece):
            return
        made = piece[:, GIVEN] == 0
        last_made = np.maximum.accumulate(np.where(made, np.arange(len(piece)), 0))
        n_chord = len(CHORD_FIELDS)
        piece[:, FIRST_CONTROL:-n_chord] = piece[last_made, FIRST_CONTROL:-n_chord]
        is_note = piece[:, BAR] >= FIRST_ID
        if not is_note.any():
            return
        bars = piece[:, BAR] - FIRST_ID
        first_bar = int(bars[is_note].min())
        n_bars = int(bars[is_note].max()) - first_bar + 1
        chords = estimate_chords(piece[~made, :len(FIELDS)], self.vocabulary, first_bar, n_bars)
        chords[chords == NONE] = UNKNOWN  # what is to be made may have one
        in_second_half = piece[:, START_POS] - FIRST_ID >= self.vocabulary.steps_per_bar // HALVES_PER_BAR
        half_bar = np.where(is_note, HALVES_PER_BAR * (bars - first_bar) + in_second_half, 0)
        told = np.where(is_note[:, None], chords[half_bar], UNKNOWN)
        were_unknown = piece[:, -n_chord:] == UNKNOWN
        piece[:, -n_chord:] = np.where(were_unknown, UNKNOWN, told)

    def _ordered(self, piece: np.ndarray, given: np.ndarray) -> np.ndarray:
        """(N, C) rows of one song in the order of reading, those that are `given` (N,) marked."""
        if not len(piece):
            return piece  # all of it was silent
        head = int(piece[0, BAR] == BOS)
        body, given = piece[head:].copy(), given[head:]
        body[:, GIVEN] = given
        bars = np.where(body[:, BAR] == EOS, NEVER, body[:, BAR].astype(np.int64) - FIRST_ID)
        start = 0 if head else bars.min(initial=NEVER)
        return np.concatenate([piece[:head], body[reading_order(bars, given, start, self.lookahead_bars)]])
