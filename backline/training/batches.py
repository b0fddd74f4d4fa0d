"""Which rows each training step sees: a function of seed, epoch and step, so a resumed run finds its place.

Shapes: B rows of a batch, T notes of a row, L notes from which one is made, M notes of all songs, C
columns. The columns are the F fields; where the model can be given notes, one more that marks them;
and where it can be told what to play, the K controls after that (`music.controls`).
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
import torch
import torch.utils.data
from torch import Tensor

from backline.common.errors import UserError
from backline.layers.config import ModelConfig
from backline.music.vocab import BAR, BOS, EOS, FIELDS, FIRST_CONTROL, FIRST_ID
from backline.preparation.dataset import Dataset, Split
from backline.training.augmentation import (
    SPARE,
    PartDropping,
    Transposition,
    crop_start,
    windows_from,
)
from backline.training.config import TrainingSettings
from backline.training.control_tables import ControlTables
from backline.training.distributed import SEEDS
from backline.training.given_tasks import REACH, Anticipation

SHORTEST_END = 4  # bars of a row that is the end of a song
LONGEST_END = 32


class EpochRows(NamedTuple):
    """The rows of one epoch."""

    order: Sequence[Tensor]  # of each step the numbers of its rows
    start: int  # the note with which the first row begins
    n_rows: int


class Columns:
    """(M, C) notes of songs with their controls, joined only for the rows that are asked for."""

    def __init__(self, notes: Tensor, controls: Tensor | None) -> None:
        self.notes = notes
        self.controls = controls

    def __len__(self) -> int:
        return len(self.notes)

    def __getitem__(self, which: Tensor) -> Tensor:
        notes = self.notes[which]
        if self.controls is None:
            return notes
        given = notes.new_zeros((*notes.shape[:-1], 1))
        controls = self.controls[which].to(notes.dtype)
        return torch.cat([notes, given, controls], dim=-1)


class Batches(torch.utils.data.Dataset[Tensor]):
    """The rows of a run, step by step.

    A row has `row_notes` notes, or as many as the dataset's rows where that is 0. From the share
    `whole_rows_from` of the run on, rows have the dataset's length, and a step as many notes as before.
    """

    def __init__(self, dataset: Dataset, split: Split, config: ModelConfig,
                 settings: TrainingSettings, controls: ControlTables | None = None) -> None:
        """`controls`: those of the dataset's songs, for a model that can be told what to play.

        Raises UserError if the settings do not fit the model or the dataset.
        """
        if settings.given_tasks and not config.given:
            raise UserError(f"given_tasks={settings.given_tasks} needs a model with \"given\": true")
        self.settings = settings
        self.rows_per_step = settings.batch_size * settings.accumulation
        self.whole_length = split.train.shape[1]
        self.length = settings.row_notes or self.whole_length
        self._check_lengths()
        self.notes = split.train.flatten(0, 1)  # (M, F)
        n_rows = len(self.notes) // self.length
        self.steps_per_epoch = math.ceil(n_rows / self.rows_per_step)
        self.total_steps = self.steps_per_epoch * settings.num_epochs
        if settings.max_train_steps:
            self.total_steps = min(self.total_steps, settings.max_train_steps)

        vocabulary = dataset.vocabulary
        n_songs = dataset.n_songs - len(split.held_out_songs)
        self.song_starts = np.append(dataset.song_starts[:n_songs], len(self.notes))
        self.bar_starts = bar_starts(self.notes) if settings.bar_lines else np.zeros(1, np.int64)
        self.controls = controls
        of_notes = controls.columns[:len(self.notes)] if controls else None
        self.columns = Columns(self.notes, of_notes)
        self.transposition = None
        if settings.transpose:
            lowest, highest = settings.transpose
            self.transposition = Transposition(vocabulary, lowest, highest)
        self.part_dropping = None
        if settings.drop_parts:
            self.part_dropping = PartDropping(vocabulary, settings.drop_parts)
        self.anticipation = None
        if settings.given_tasks:
            self.anticipation = Anticipation(vocabulary, config.lookahead_bars, settings.given_tasks)
        self._kept: tuple[tuple[int, int], EpochRows] | None = None  # (epoch, length) last asked for

    def _check_lengths(self) -> None:
        settings = self.settings
        if self.whole_length % self.length:
            raise UserError(f"row_notes={self.length}: the dataset's rows have {self.whole_length} notes, "
                            f"which must be a multiple of it")
        ratio = self.whole_length // self.length
        if ratio > 1 and settings.whole_rows_from < 1 and settings.batch_size % ratio:
            raise UserError(f"batch_size={settings.batch_size} must be a multiple of {ratio}, or whole "
                            f"rows of {self.whole_length} notes do not make up a step")

    def length_at(self, step: int) -> int:
        """Notes in each row of step `step`, from 0."""
        is_whole = step >= self.settings.whole_rows_from * self.total_steps
        return self.whole_length if is_whole else self.length

    def from_step(self, step: int) -> Iterator[Tensor]:
        """Batches (B, T, C) of step `step` and those after it."""
        return map(self.__getitem__, itertools.count(step))

    def __getitem__(self, step: int) -> Tensor:
        """The batch (B, T, C) of a step; each epoch goes through all rows, in an order of its own."""
        epoch, done = divmod(step, self.steps_per_epoch)
        length = self.length_at(step)
        epoch_rows = self._epoch(epoch, length)
        order = epoch_rows.order
        indices = order[done % len(order)]  # whole rows may make fewer steps
        indices = indices % epoch_rows.n_rows  # one row comes twice where crops are one fewer
        firsts = epoch_rows.start + indices * length
        end = epoch_rows.start + epoch_rows.n_rows * length
        seed = (self._epoch_seed(epoch) * 1_000_003 + done) % SEEDS
        return self.rows(firsts, length, end, seed)

    def _epoch_seed(self, epoch: int) -> int:
        return self.settings.seed * 1_000_003 + epoch

    def _epoch(self, epoch: int, length: int) -> EpochRows:
        """The rows of an epoch, where they have `length` notes."""
        if self._kept is not None and self._kept[0] == (epoch, length):
            return self._kept[1]
        n_rows = len(self.notes) // length
        rows_per_step = self.rows_per_step * self.length // length
        generator = torch.Generator().manual_seed(self._epoch_seed(epoch))
        order = torch.randperm(n_rows, generator=generator).split(rows_per_step)
        start = 0
        if self.settings.random_crops:
            start = crop_start(len(self.notes), length, generator)
            n_rows = (len(self.notes) - start) // length
        rows = EpochRows(order, start, n_rows)
        self._kept = ((epoch, length), rows)
        return rows

    def rows(self, firsts: Tensor, length: int, end: int, seed: int) -> Tensor:
        """The rows (B, T, C) that begin with the notes `firsts` (B,), changed as the settings say.

        Args:
            length: T.
            end: the first note that is in no row.
            seed: for all that is drawn.
        """
        settings = self.settings
        draws = torch.Generator().manual_seed(seed)
        random = np.random.default_rng(seed)
        n_notes = length * (REACH if self.anticipation else 1)
        ends = [False] * len(firsts)
        if settings.song_starts or settings.song_ends or settings.bar_lines:
            firsts, ends = self._placed(firsts, end, random)
        n_more = SPARE if self.part_dropping else 1
        rows = windows_from(self.columns, firsts, n_notes * n_more, end)  # (B, L, C)
        for row, is_end in zip(rows, ends, strict=True):
            if is_end:
                self._begin_song(row)
        if self.part_dropping:  # first: its rows are filled up from the songs as they stand in the files
            rows = self.part_dropping(rows, n_notes, draws)
        if self.transposition:
            rows = self.transposition(rows, draws)
        if self.anticipation:
            rows = self.anticipation(rows, length, draws)
        if self.controls:
            controls = rows[..., FIRST_CONTROL:]
            rows[..., FIRST_CONTROL:] = self.controls.forgotten(controls, random)
        return rows

    def _placed(self, firsts: Tensor, end: int, random: np.random.Generator) -> tuple[Tensor, list[bool]]:
        """Where rows begin instead of with the notes `firsts` (B,), and which of them are ends of songs.

        `end` is the first note that is in no row.

        A share of the rows begin where a song begins, a share are the last bars of a song, and the
        others begin at a bar line. An end of a song has a note before its first one, of which
        `_begin_song` makes its BOS.
        """
        settings = self.settings
        places = firsts.numpy().copy()
        ends = [False] * len(places)
        for b, kind in enumerate(random.random(len(places))):
            song = random.integers(np.searchsorted(self.song_starts[:-1], end))  # of those that are in rows
            if kind < settings.song_starts:
                places[b] = self.song_starts[song]
            elif kind < settings.song_starts + settings.song_ends:
                places[b], ends[b] = self._end_of(int(song), end, random)
            elif settings.bar_lines:
                bar = np.searchsorted(self.bar_starts, places[b], side="right") - 1
                places[b] = self.bar_starts[max(bar, 0)]
        return torch.from_numpy(places), ends

    def _end_of(self, song: int, end_of_rows: int, random: np.random.Generator) -> tuple[int, bool]:
        """The note before the last bars of a song, and True; or the song's BOS, and False.

        Their number is drawn from SHORTEST_END to LONGEST_END, each octave as often. False: the song
        has no more bars than these, or its end is in no row.
        """
        first, end = self.song_starts[song:song + 2].tolist()
        bars = self.notes[first:end, BAR].numpy()  # BOS, notes, EOS
        octaves = random.uniform(0, np.log2(LONGEST_END / SHORTEST_END))
        n_bars = int(SHORTEST_END * 2 ** octaves)
        is_cut = bars[-1] != EOS or end > end_of_rows  # by the end of the last full row
        if is_cut or bars[-2] - n_bars < bars[1]:
            return first, False
        first_bar = bars[-2] - n_bars + 1
        n_before = int(np.searchsorted(bars[1:-1], first_bar))
        return first + n_before, True

    def _begin_song(self, row: Tensor) -> None:
        """Make the first of (L, C) notes, an end of a song, its BOS, and count bars from there; in place."""
        is_end = row[:, BAR] == EOS
        n_notes = int(is_end.nonzero()[0]) if is_end.any() else len(row)
        song = row[1:n_notes]
        song[:, BAR] -= song[0, BAR].item() - FIRST_ID
        row[0, :len(FIELDS)] = BOS
        if self.controls:
            row[0, FIRST_CONTROL:] = song[0, FIRST_CONTROL:]
            self.controls.describe_end(row[:n_notes + 1])


def bar_starts(notes: Tensor) -> np.ndarray:
    """Indices of the (M, F) `notes` with which a bar begins.

    A song's first bar begins with its BOS, and not with the note after it.
    """
    bars = notes[:, BAR].numpy()
    before = np.concatenate([[EOS], bars[:-1]])
    begins = (bars >= FIRST_ID) & (bars != before) & (before != BOS)
    return np.flatnonzero(begins | (bars == BOS))
