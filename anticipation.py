"""Notes that are given: when they are read, so that what is made can prepare for them; and rows to learn it from.

A given note is read a fixed time ahead: right behind the first made note from which it is no further away than the
look-ahead, or behind BOS. So at each note it is known which given ones have been read, without knowing what comes next.
The idea is that of Anticipatory Music Transformer (Thickstun et al. 2023, section 3), here on compound tokens.
"""

from __future__ import annotations

import dataclasses

import numpy as np
import torch
from torch import Tensor

from vocab import BAR, BOS, EOS, FIELDS, FIRST_ID, PITCH_INSTRUMENT, START_POS, Vocabulary

LONGEST_FILL = 8  # bars
ALONE = 0.2  # of the parts that are not made, how many are silent instead of given
SOME_PARTS = 0.3  # of the fills, how many are of some parts only
NEVER = 2**40  # steps, later than all notes


class GivenNotes:
    """The given notes of one song, handed out when they are due."""

    def __init__(self, rows: np.ndarray, vocabulary: Vocabulary, lookahead_steps: int) -> None:
        """`rows`: (N, F) ids in order."""
        self.rows, self.lookahead, self.n_read = rows, lookahead_steps, 0
        self.onsets = onsets(rows, vocabulary.steps_per_bar)

    def due(self, time: int) -> list[tuple[int, ...]]:
        """Those to be read when the last made note began at `time` (in steps) that were not due before."""
        first = self.n_read
        self.n_read = max(first, int(np.searchsorted(self.onsets, time + self.lookahead, side="right")))
        return [tuple(row) for row in self.rows[first:self.n_read].tolist()]


def onsets(rows: np.ndarray, steps_per_bar: int) -> np.ndarray:
    """(N,) when notes (N, F) begin, in steps from the beginning of bar 0."""
    return (rows[:, BAR].astype(np.int64) - FIRST_ID) * steps_per_bar + rows[:, START_POS] - FIRST_ID


def reading_order(times: np.ndarray, given: np.ndarray, start: int, lookahead_steps: int) -> np.ndarray:
    """(N,) indices of notes in the order of reading, from their times (N,), which of them are given (N,), and the
    time from which the first are due. Those due behind the last made note come at the end."""
    made_times = times[~given]
    place = np.cumsum(~given) - 1  # of a made note: its number
    due = np.where(times <= start + lookahead_steps, -1, np.searchsorted(made_times, times - lookahead_steps))
    place = np.where(given, due, place)
    return np.lexsort((np.arange(len(times)), given, place))


@dataclasses.dataclass(frozen=True)
class Anticipation:
    """Turns a share of training rows into tasks: some parts for others, or bars filled in the middle."""

    vocabulary: Vocabulary
    lookahead_steps: int
    share: float  # of the rows

    def __call__(self, rows: Tensor, generator: torch.Generator) -> Tensor:
        """(B, T, F + 1) of (B, T, F) rows: the last column is 1 for given notes, and for what fills a row up."""
        random = np.random.default_rng(int(torch.randint(2**62, (1,), generator=generator)))
        result = np.zeros((*rows.shape[:2], len(FIELDS) + 1), np.int64)
        result[..., :-1] = rows.numpy()
        for row in result:
            if random.random() < self.share:
                row[:] = self._task(row, random)
        return torch.from_numpy(result)

    def _task(self, row: np.ndarray, random: np.random.Generator) -> np.ndarray:
        """(T, F + 1) another order and choice of the rows (T, F + 1) of one window, cut or filled to its length."""
        pieces = np.split(row, np.flatnonzero(row[:, BAR] == BOS)[1 if row[0, BAR] == BOS else 0:])
        longest = max(range(len(pieces)), key=lambda i: len(pieces[i]))
        if random.random() < 0.5:
            made = self._some_parts(random)
            silent = ~made & (random.random(len(made)) < ALONE)
            pieces = [self._parts_given(piece, made, silent) for piece in pieces]
        else:
            pieces[longest] = self._filled(pieces[longest], random)
        found = np.concatenate(pieces)[:len(row)]
        filling = np.zeros((len(row) - len(found), row.shape[1]), row.dtype)
        filling[:, -1] = 1
        return np.concatenate([found, filling])

    def _some_parts(self, random: np.random.Generator) -> np.ndarray:
        """(n_parts,) bool: at least one part, and not all where there are several."""
        n = len(self.vocabulary.parts)
        some = np.zeros(n, bool)
        some[random.permutation(n)[:random.integers(1, max(n, 2))]] = True
        return some

    def _parts_given(self, piece: np.ndarray, made: np.ndarray, silent: np.ndarray) -> np.ndarray:
        parts = self.vocabulary.part_of_id[piece[:, PITCH_INSTRUMENT]]  # −1: BOS and EOS
        piece = piece[(parts < 0) | ~silent[parts]]
        parts = self.vocabulary.part_of_id[piece[:, PITCH_INSTRUMENT]]
        return self._ordered(piece, (parts >= 0) & ~made[parts])

    def _filled(self, piece: np.ndarray, random: np.random.Generator) -> np.ndarray:
        """Some bars are made, what comes before them is known, what comes after is given; EOS ends them."""
        notes = piece[:, BAR] >= FIRST_ID
        if not notes.any():
            return piece
        bars = piece[notes, BAR]
        first = random.integers(bars[0], bars[-1] + 1)
        last = first + min(2 ** random.uniform(0, np.log2(LONGEST_FILL + 1)), LONGEST_FILL) - 1
        made = self._some_parts(random) if random.random() < SOME_PARTS else np.ones(len(self.vocabulary.parts), bool)
        piece = piece[piece[:, BAR] != EOS]
        after = piece[:, BAR] > last
        inside = (piece[:, BAR] >= first) & ~after
        given = after | (inside & ~made[self.vocabulary.part_of_id[piece[:, PITCH_INSTRUMENT]]])
        end = np.full((1, piece.shape[1]), EOS, piece.dtype)
        end[:, -1] = 0
        return self._ordered(np.concatenate([piece, end]), np.append(given, False))

    def _ordered(self, piece: np.ndarray, given: np.ndarray) -> np.ndarray:
        """(N, F + 1) rows of one song in the order of reading, those that are `given` (N,) marked."""
        head = int(piece[0, BAR] == BOS)
        body, given = piece[head:].copy(), given[head:]
        body[:, -1] = given
        times = np.where(body[:, BAR] == EOS, NEVER, onsets(body, self.vocabulary.steps_per_bar))
        start = 0 if head else times.min(initial=NEVER)
        return np.concatenate([piece[:head], body[reading_order(times, given, start, self.lookahead_steps)]])
