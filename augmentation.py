"""What is changed of training rows on the fly, so that a song is not seen twice the same; files stay as they are."""

from __future__ import annotations

import torch
from torch import Tensor

from vocab import PAD, PITCH_INSTRUMENT, Vocabulary

REACH = 4  # rows ahead in which a row without a part finds its notes


class Transposition:
    """Moves the melodic parts of each row together, by a whole number of semitones drawn for that row; drums never."""

    def __init__(self, vocabulary: Vocabulary, lowest: int, highest: int) -> None:
        """`lowest` ≤ 0 ≤ `highest` semitones."""
        ids = torch.arange(vocabulary.sizes[PITCH_INSTRUMENT])
        part = torch.from_numpy(vocabulary.part_of_id)
        drums = torch.tensor([facts.is_drum for facts in vocabulary.parts])
        self.shifts = torch.arange(lowest, highest + 1)  # (S,)
        melodic = (part >= 0) & ~drums[part.clamp(min=0)]
        moved = torch.where(melodic, ids + self.shifts[:, None], ids)  # (S, V)
        inside = (moved >= 0) & (moved < len(ids))
        self.fits = inside & (part[moved.clamp(0, len(ids) - 1)] == part)  # (S, V): in range after the move
        self.moved = moved

    def __call__(self, rows: Tensor, generator: torch.Generator) -> Tensor:
        """Move each of (B, T, F) rows, by a shift that keeps all its notes in range; all such are as likely."""
        pitches = rows[..., PITCH_INSTRUMENT].long()  # (B, T)
        fits = torch.stack([fits_shift[pitches].all(dim=1) for fits_shift in self.fits], dim=1)  # (B, S)
        drawn = torch.multinomial(fits.double(), 1, generator=generator)  # (B, 1); a shift of 0 always fits
        result = rows.clone()
        result[..., PITCH_INSTRUMENT] = self.moved[drawn, pitches].to(rows.dtype)
        return result


class PartDropping:
    """Leaves a part out of a share of the rows, one drawn for each; the notes that follow fill the row up."""

    def __init__(self, vocabulary: Vocabulary, share: float) -> None:
        self.part_of_id = torch.from_numpy(vocabulary.part_of_id)
        self.n_parts, self.share = len(vocabulary.parts), share

    def __call__(self, rows: Tensor, notes: Tensor, firsts: Tensor, generator: torch.Generator) -> Tensor:
        """Of (B, T, F) `rows`, each begun by the note of (M, F) `notes` that (B,) `firsts` names, some without a part.

        A row stays whole where the part left out makes up most of what follows.
        """
        drawn = torch.rand(len(rows), generator=generator) < self.share
        parts = torch.randint(self.n_parts, (len(rows),), generator=generator)
        rows, length = rows.clone(), rows.shape[1]
        for row in drawn.nonzero().flatten().tolist():
            following = notes[firsts[row]:firsts[row] + REACH * length]
            kept = following[self.part_of_id[following[:, PITCH_INSTRUMENT].long()] != parts[row]][:length]
            if len(kept) == length:
                rows[row] = kept
        return rows


def crops(notes: Tensor, length: int, generator: torch.Generator) -> Tensor:
    """(N, T, F) rows of `length` T cut from (M, F) `notes`, from a first note drawn from the first T on."""
    spare = min(length, len(notes) - length + 1)
    start = int(torch.randint(max(spare, 1), (1,), generator=generator))
    n_rows = (len(notes) - start) // length
    return notes[start:start + n_rows * length].view(n_rows, length, -1)


def longer(notes: Tensor, firsts: Tensor, length: int) -> Tensor:
    """(B, T, F) rows of `length` T from (M, F) `notes`, from (B,) `firsts` on; PAD where the notes end."""
    places = firsts[:, None] + torch.arange(length)
    rows = notes[places.clamp(max=len(notes) - 1)]
    return rows.masked_fill((places >= len(notes))[..., None], PAD)
