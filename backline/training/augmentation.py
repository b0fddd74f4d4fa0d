"""Changes to training rows, drawn anew for each epoch; the files stay as they are.

Shapes: B rows, T notes of a row, L notes from which one is made, C columns (fields, and what stands
beside them), S shifts, V ids of pitches.
"""

from __future__ import annotations

from typing import Protocol

import torch
from torch import Tensor

from backline.music.controls import silenced, transposed
from backline.music.vocab import (
    BAR,
    FIELDS,
    FIRST_CONTROL,
    GIVEN,
    NOTE_DUR,
    PAD,
    PITCH_INSTRUMENT,
    START_POS,
    Vocabulary,
)

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


class WrongNotes:
    """Gives some notes another pitch and length in what a model hears, not in what it is to predict.

    A model that only ever hears real songs trusts each note; when it plays by itself, one slip leads
    to the next (exposure bias). One that hears slips in training, and is to go on as the song does,
    learns to come back. Times stay, and so does the order of notes.
    """

    def __init__(self, vocabulary: Vocabulary, share: float) -> None:
        """`share` of all notes; in each row it is drawn from 0 to twice that."""
        self.vocabulary = vocabulary
        self.share = share
        self.part_of_id = torch.from_numpy(vocabulary.part_of_id)          # (V,); −1: of no part
        self.is_drum = torch.tensor([part.is_drum for part in vocabulary.parts])

    def __call__(self, rows: Tensor, generator: torch.Generator) -> Tensor:
        """(B, T, F) of (B, T, C) rows, some of them slips. The argument stays unchanged.

        A slip has the length of another note of its row, and that one's pitch, or in parts that are
        no drums as often its own, one or two semitones off. Given notes stay, as people gave them.
        """
        heard = rows[..., :len(FIELDS)].clone()
        n_rows, length = heard.shape[:2]
        chance = torch.rand((n_rows, length), generator=generator)
        rate = 2 * self.share * torch.rand((n_rows, 1), generator=generator)
        other = torch.randint(length, (n_rows, length), generator=generator)
        semitones = torch.tensor([-2, -1, 1, 2])
        which = torch.randint(len(semitones), (n_rows, length), generator=generator)
        moves = torch.rand((n_rows, length), generator=generator) < 0.5

        pitch = heard[..., PITCH_INSTRUMENT].long()                        # (B, T)
        part = self.part_of_id[pitch]
        is_melodic = (part >= 0) & ~self.is_drum[part.clamp(min=0)]
        moved = pitch + semitones[which]
        moved = moved.clamp(0, len(self.part_of_id) - 1)
        slip = torch.where(moves & is_melodic, moved, pitch.gather(1, other))
        is_wrong = (chance < rate) & (self.part_of_id[slip] == part) & (part >= 0) & (slip != pitch)
        if rows.shape[-1] > GIVEN:
            is_wrong &= rows[..., GIVEN] == 0
        is_wrong[:, 1:] &= ~is_wrong[:, :-1]  # of neighbours the first, so that each stands among true ones
        is_wrong &= self._in_order(heard, slip)
        heard[..., PITCH_INSTRUMENT] = torch.where(is_wrong, slip.to(heard.dtype), heard[..., PITCH_INSTRUMENT])
        length_of_other = heard[..., NOTE_DUR].gather(1, other)
        takes_length = is_wrong & (self.part_of_id[pitch.gather(1, other)] == part)
        heard[..., NOTE_DUR] = torch.where(takes_length, length_of_other, heard[..., NOTE_DUR])
        return heard

    @staticmethod
    def _in_order(notes: Tensor, slip: Tensor) -> Tensor:
        """(B, T) bool: whether a pitch (B, T) in the place of a note's keeps (B, T, F) notes in order."""
        same_time = (notes[:, 1:, [BAR, START_POS]] == notes[:, :-1, [BAR, START_POS]]).all(-1)  # (B, T − 1)
        pitch = notes[..., PITCH_INSTRUMENT]
        fits = torch.ones(slip.shape, dtype=torch.bool)
        fits[:, 1:] &= ~same_time | (slip[:, 1:] > pitch[:, :-1])
        fits[:, :-1] &= ~same_time | (slip[:, :-1] < pitch[:, 1:])
        return fits


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
