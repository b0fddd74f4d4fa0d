"""Changes to training rows, drawn anew for each epoch; the files stay as they are.

Shapes: B rows, T notes of a row, L notes from which one is made, C columns (fields, and what stands
beside them), S shifts, V ids of pitches.
"""

from __future__ import annotations

from typing import Protocol

import torch
from torch import Tensor

from backline.music.controls import silenced, transposed
from backline.music.vocab import FIRST_CONTROL, PAD, PITCH_INSTRUMENT, Vocabulary

SPARE = 4  # times the notes of a row: among so many, a row without a part finds enough others


class Notes(Protocol):
    """(M, C) notes, joined perhaps for the rows asked for alone."""

    def __len__(self) -> int: ...

    def __getitem__(self, which: Tensor) -> Tensor: ...


class Transposition:
    """Moves each row's melodic parts together, by semitones drawn for that row; drums never."""

    def __init__(self, vocabulary: Vocabulary, lowest: int, highest: int) -> None:
        """`lowest` ≤ 0 ≤ `highest` semitones."""
        self.vocabulary = vocabulary
        self.shifts = torch.arange(lowest, highest + 1)                    # (S,)
        ids = torch.arange(vocabulary.sizes[PITCH_INSTRUMENT])             # (V,)
        part = torch.from_numpy(vocabulary.part_of_id)                     # (V,); −1: of no part
        drums = torch.tensor([voice.is_drum for voice in vocabulary.parts])
        is_melodic = (part >= 0) & ~drums[part.clamp(min=0)]               # (V,)
        self.moved = torch.where(is_melodic, ids + self.shifts[:, None], ids)  # (S, V)
        inside = (self.moved >= 0) & (self.moved < len(ids))
        part_after = part[self.moved.clamp(0, len(ids) - 1)]
        self.fits = inside & (part_after == part)                          # (S, V): stays in range

    def __call__(self, rows: Tensor, generator: torch.Generator) -> Tensor:
        """Move each of (B, T, C) rows by a shift that keeps all its notes in range.

        All such shifts are equally likely; 0 is always one. The argument stays unchanged.
        """
        pitches = rows[..., PITCH_INSTRUMENT].long()                       # (B, T)
        fits = [fits_shift[pitches].all(dim=1) for fits_shift in self.fits]
        weights = torch.stack(fits, dim=1).double()                        # (B, S)
        drawn = torch.multinomial(weights, 1, generator=generator)         # (B, 1)
        result = rows.clone()
        result[..., PITCH_INSTRUMENT] = self.moved[drawn, pitches].to(rows.dtype)
        if rows.shape[-1] > FIRST_CONTROL:
            semitones = self.shifts[drawn[:, 0]].tolist()
            for row, shift in zip(result, semitones, strict=True):
                controls = transposed(row[:, FIRST_CONTROL:].numpy(), shift, self.vocabulary)
                row[:, FIRST_CONTROL:] = torch.from_numpy(controls)
        return result


class PartDropping:
    """Drops a part, drawn anew, from a share of the rows; the notes that follow fill the row up."""

    def __init__(self, vocabulary: Vocabulary, share: float) -> None:
        self.vocabulary = vocabulary
        self.part_of_id = torch.from_numpy(vocabulary.part_of_id)
        self.n_parts = len(vocabulary.parts)
        self.share = share

    def __call__(self, rows: Tensor, length: int, generator: torch.Generator) -> Tensor:
        """The first `length` T notes of each of (B, L, C) rows, in some of them without a part.

        L is SPARE × T. A row stays whole where the dropped part makes up most of what follows. The
        argument stays unchanged.
        """
        drawn = torch.rand(len(rows), generator=generator) < self.share
        parts = torch.randint(self.n_parts, (len(rows),), generator=generator)
        result = rows[:, :length].clone()
        for number in drawn.nonzero().flatten().tolist():
            row = rows[number]
            dropped = int(parts[number])
            ids = row[:, PITCH_INSTRUMENT].long()
            stays = (ids != PAD) & (self.part_of_id[ids] != dropped)
            kept = row[stays][:length]
            if len(kept) < length:
                continue
            result[number] = kept
            if rows.shape[-1] > FIRST_CONTROL:
                controls = silenced(kept[:, FIRST_CONTROL:].numpy(), [dropped], self.vocabulary)
                result[number, :, FIRST_CONTROL:] = torch.from_numpy(controls)
        return result


def crop_start(n_notes: int, length: int, generator: torch.Generator) -> int:
    """Which of `n_notes` the first row of `length` notes begins with: one of the first `length`."""
    n_starts = min(length, n_notes - length + 1)
    return int(torch.randint(max(n_starts, 1), (1,), generator=generator))


def windows_from(notes: Notes | Tensor,
                 firsts: Tensor,
                 length: int,
                 end: int | None = None) -> Tensor:
    """Rows (B, T, C) of `length` T notes from (M, C) `notes`, beginning with `firsts` (B,).

    From the note `end` on (default: M) they are PAD.
    """
    end = len(notes) if end is None else end
    places = firsts[:, None] + torch.arange(length)    # (B, T)
    rows = notes[places.clamp(max=end - 1)]            # (B, T, C)
    is_beyond = places >= end
    return rows.masked_fill(is_beyond[..., None], PAD)
