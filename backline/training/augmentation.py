"""What is changed of training rows on the fly, so that a song is not seen twice the same; files stay as they are."""

from __future__ import annotations

import torch
from torch import Tensor

from backline.music.controls import silenced, transposed
from backline.music.vocab import FIRST_CONTROL, PAD, PITCH_INSTRUMENT, Vocabulary

SPARE = 4  # times the notes of a row, in which a row without a part finds as many


class Transposition:
    """Moves the melodic parts of each row together, by a whole number of semitones drawn for that row; drums never."""

    def __init__(self, vocabulary: Vocabulary, lowest: int, highest: int) -> None:
        """`lowest` ≤ 0 ≤ `highest` semitones."""
        self.vocabulary = vocabulary
        ids = torch.arange(vocabulary.sizes[PITCH_INSTRUMENT])
        part = torch.from_numpy(vocabulary.part_of_id)
        drums = torch.from_numpy(vocabulary.is_drum)
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
        if rows.shape[-1] > FIRST_CONTROL:
            for row, semitones in zip(result, self.shifts[drawn[:, 0]].tolist(), strict=True):
                moved = transposed(row[:, FIRST_CONTROL:].numpy(), semitones, self.vocabulary)
                row[:, FIRST_CONTROL:] = torch.from_numpy(moved)
        return result


class PartDropping:
    """Leaves a part out of a share of the rows, one drawn for each; the notes that follow fill the row up."""

    def __init__(self, vocabulary: Vocabulary, share: float) -> None:
        self.vocabulary = vocabulary
        self.part_of_id = torch.from_numpy(vocabulary.part_of_id)
        self.n_parts, self.share = len(vocabulary.parts), share

    def __call__(self, rows: Tensor, length: int, generator: torch.Generator) -> Tensor:
        """The first `length` T notes of each of (B, L, C) rows, in some of them without a part; L = SPARE × T.

        A row stays whole where the part left out makes up most of what follows.
        """
        drawn = torch.rand(len(rows), generator=generator) < self.share
        parts = torch.randint(self.n_parts, (len(rows),), generator=generator)
        result = rows[:, :length].clone()
        for row in drawn.nonzero().flatten().tolist():
            following = rows[row]
            ids = following[:, PITCH_INSTRUMENT].long()
            kept = following[(ids != PAD) & (self.part_of_id[ids] != parts[row])][:length]
            if len(kept) < length:
                continue
            result[row] = kept
            if rows.shape[-1] > FIRST_CONTROL:
                controls = silenced(kept[:, FIRST_CONTROL:].numpy(), [int(parts[row])], self.vocabulary)
                result[row, :, FIRST_CONTROL:] = torch.from_numpy(controls)
        return result


def crop_start(n_notes: int, length: int, generator: torch.Generator) -> int:
    """A note from the first `length` on, from which rows of so many notes are cut from `n_notes`."""
    spare = min(length, n_notes - length + 1)
    return int(torch.randint(max(spare, 1), (1,), generator=generator))


def longer(notes: Tensor, firsts: Tensor, length: int, end: int | None = None) -> Tensor:
    """(B, T, C) rows of `length` T from (M, C) `notes`, from (B,) `firsts` on; PAD from the note `end` on."""
    end = len(notes) if end is None else end
    places = firsts[:, None] + torch.arange(length)
    rows = notes[places.clamp(max=end - 1)]
    return rows.masked_fill((places >= end)[..., None], PAD)
