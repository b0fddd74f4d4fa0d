"""Turn training rows into tasks: given parts to play to, and bars to fill.

Notes come in the order of `reading_order.py`. The idea is that of Anticipatory Music Transformer
(Thickstun et al. 2023, section 3), here on compound tokens.
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

# Windows of notes from which a task's one is made: given notes come early, silent ones not at all.
REACH = 2
LONGEST_FILL = 8  # bars
SILENT_SHARE = 0.2  # of the parts that are not made: they are silent instead of given
SOME_PARTS_SHARE = 0.3  # of the fills: they fill some parts only
NEVER = 2**40  # a bar later than all


@dataclasses.dataclass(frozen=True)
class Anticipation:
    """Turns a share of the training rows into tasks: parts made to others, or bars in the middle."""

    vocabulary: Vocabulary
    lookahead_bars: int
    share: float  # of the rows

    def __call__(self, rows: Tensor, length: int, generator: torch.Generator) -> Tensor:
        """Tasks made of rows (B, L, F), or the first `length` T notes of those that are not drawn.

        Args:
            rows: L ≥ T. They may have the column GIVEN already, and controls after it.
        Returns:
            (B, T, F + 1) or (B, T, C) int64. Column GIVEN is 1 for given notes, and for padding.
        """
        seed = int(torch.randint(2**62, (1,), generator=generator))
        random = np.random.default_rng(seed)
        n_columns = max(rows.shape[2], GIVEN + 1)
        flagged = np.zeros((*rows.shape[:2], n_columns), np.int64)   # (B, L, C)
        flagged[..., :rows.shape[2]] = rows.numpy()
        result = flagged[:, :length]                                 # (B, T, C)
        for number, row in enumerate(flagged):
            if random.random() < self.share:
                result[number] = self._task(row, length, random)
        return torch.from_numpy(result)

    def _task(self, row: np.ndarray, length: int, random: np.random.Generator) -> np.ndarray:
        """(T, C) notes of a task: those of one window (L, C) reordered, some perhaps left out.

        They are cut or padded to `length`.
        """
        row = row[row[:, BAR] != PAD]
        begins = np.flatnonzero(row[:, BAR] == BOS)
        begins = np.concatenate([[0], begins[begins > 0]])
        pieces = np.split(row, begins[1:])  # one for each song
        if random.random() < 0.5:
            made = self._some_parts(random)
            silent = ~made & (random.random(len(made)) < SILENT_SHARE)
            pieces = [self.parts_given(piece, made, silent) for piece in pieces]
        else:
            in_sight = np.minimum([len(piece) for piece in pieces], length - begins)
            longest = int(in_sight.argmax())
            pieces[longest] = self._some_bars_filled(pieces[longest], in_sight[longest], random)
        notes = np.concatenate(pieces)[:length]
        padding = np.full((length - len(notes), row.shape[1]), PAD, row.dtype)
        padding[:, GIVEN] = 1
        return np.concatenate([notes, padding])

    def _some_parts(self, random: np.random.Generator) -> np.ndarray:
        """(n_parts,) bool: at least one part, and not all where there are several."""
        n_parts = len(self.vocabulary.parts)
        some = np.zeros(n_parts, bool)
        order = random.permutation(n_parts)
        n_drawn = random.integers(1, max(n_parts, 2))
        some[order[:n_drawn]] = True
        return some

    def parts_given(self, piece: np.ndarray, made: np.ndarray, silent: np.ndarray) -> np.ndarray:
        """Notes (N, C) of one song in the order of reading, some parts left out.

        `made` and `silent` are (n_parts,) bool; the other parts are given.
        """
        parts = self.vocabulary.part_of_id[piece[:, PITCH_INSTRUMENT]]  # (N,); −1: BOS and EOS
        is_kept = (parts < 0) | ~silent[parts]
        piece = piece[is_kept]
        parts = parts[is_kept]
        piece = self._ordered(piece, (parts >= 0) & ~made[parts])
        if piece.shape[1] > FIRST_CONTROL:
            silent_parts = np.flatnonzero(silent).tolist()
            controls = silenced(piece[:, FIRST_CONTROL:], silent_parts, self.vocabulary)
            piece[:, FIRST_CONTROL:] = controls
            self._tell(piece)
        return piece

    def _some_bars_filled(self,
                          piece: np.ndarray,
                          in_sight: int,
                          random: np.random.Generator) -> np.ndarray:
        """Make some bars of (N, C) notes a fill.

        It begins in the bar of one of the first `in_sight` notes, but for a quarter of these.
        """
        bars = piece[:in_sight, BAR]
        bars = bars[bars >= FIRST_ID]
        if not len(bars):
            return piece
        first = bars[random.integers(len(bars) // 4, len(bars))]
        octaves = random.uniform(0, np.log2(LONGEST_FILL + 1))
        n_bars = int(2 ** octaves)
        made = np.ones(len(self.vocabulary.parts), bool)
        if random.random() < SOME_PARTS_SHARE:
            made = self._some_parts(random)
        return self.filled(piece, first, first + n_bars - 1, made)

    def filled(self, piece: np.ndarray, first: int, last: int, made: np.ndarray) -> np.ndarray:
        """Notes (N, C) of one song in the order of reading, of which some bars are made.

        The notes before these bars are known and those after them given; EOS ends the bars.

        Args:
            first, last: ids of the first and the last bar that is made.
            made: (n_parts,) bool; the other parts are given there.
        """
        piece = piece[piece[:, BAR] != EOS]
        parts = self.vocabulary.part_of_id[piece[:, PITCH_INSTRUMENT]]  # (N,)
        after = piece[:, BAR] > last
        inside = (piece[:, BAR] >= first) & ~after
        given = after | (inside & ~made[parts])
        end = np.full((1, piece.shape[1]), EOS, piece.dtype)
        end[:, GIVEN:] = 0
        end[:, FIRST_CONTROL:] = piece[inside, FIRST_CONTROL:][-1:]
        piece = self._ordered(np.concatenate([piece, end]), np.append(given, False))
        if piece.shape[1] > FIRST_CONTROL:
            column = FIRST_CONTROL + key_column(self.vocabulary) + 1
            bars = np.where(piece[:, BAR] < FIRST_ID, first, piece[:, BAR])
            left = bars_left(np.maximum(last - bars, 0))
            piece[:, column] = np.where(piece[:, column] == UNKNOWN, UNKNOWN, left)
            self._tell(piece)
        return piece

    def _tell(self, piece: np.ndarray) -> None:
        """Replace the controls of (N, C) notes by what is known while they are made, in place.

        A given note is read early: it has the sheet and the bars left of the last note made. Chords
        are those of the given notes alone, since those of all would give away what is to be made.
        """
        n_chord = len(CHORD_FIELDS)
        is_made = piece[:, GIVEN] == 0
        places = np.where(is_made, np.arange(len(piece)), 0)
        last_made = np.maximum.accumulate(places)             # (N,)
        piece[:, FIRST_CONTROL:-n_chord] = piece[last_made, FIRST_CONTROL:-n_chord]
        if (piece[:, BAR] >= FIRST_ID).any():
            told = piece[:, -n_chord:]                        # (N, 3)
            known = self._chords_of_given(piece)
            piece[:, -n_chord:] = np.where(told == UNKNOWN, UNKNOWN, known)

    def _chords_of_given(self, piece: np.ndarray) -> np.ndarray:
        """(N, 3) ids of the chord at each of (N, C) rows, as the given ones alone have it.

        At least one of them is a note; BOS and EOS have no chord.
        """
        is_note = piece[:, BAR] >= FIRST_ID
        bars = piece[:, BAR] - FIRST_ID
        first_bar = int(bars[is_note].min())
        n_bars = int(bars[is_note].max()) - first_bar + 1
        given = piece[piece[:, GIVEN] != 0, :len(FIELDS)]
        chords = estimate_chords(given, self.vocabulary, first_bar, n_bars)  # (2 * n_bars, 3)
        chords[chords == NONE] = UNKNOWN  # what is to be made may have one
        steps_per_half = self.vocabulary.steps_per_bar // HALVES_PER_BAR
        in_second_half = piece[:, START_POS] - FIRST_ID >= steps_per_half
        half_bar = HALVES_PER_BAR * (bars - first_bar) + in_second_half
        half_bar = np.where(is_note, half_bar, 0)             # (N,)
        return np.where(is_note[:, None], chords[half_bar], UNKNOWN)

    def _ordered(self, piece: np.ndarray, given: np.ndarray) -> np.ndarray:
        """Notes (N, C) of one song in the order of reading, those that are `given` (N,) marked."""
        if not len(piece):
            return piece  # all of it was silent
        n_head = int(piece[0, BAR] == BOS)
        head = piece[:n_head]
        body = piece[n_head:].copy()
        given = given[n_head:]
        body[:, GIVEN] = given
        bars = body[:, BAR].astype(np.int64) - FIRST_ID
        bars[body[:, BAR] == EOS] = NEVER
        start = 0 if n_head else int(bars.min(initial=NEVER))
        order = reading_order(bars, given, start, self.lookahead_bars)
        return np.concatenate([head, body[order]])
