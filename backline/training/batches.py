"""Which rows each training step sees: a function of seed, epoch and step, so that a resumed run finds its place.

A row of training is (T, F) notes; where the model can be given notes, one more column marks them, and where it can be
told what to play, the controls stand behind that (`music.controls`).
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence

import numpy as np
import torch
from torch import Tensor

from backline.common.errors import UserError
from backline.layers.config import ModelConfig
from backline.music.vocab import BAR, BOS, EOS, FIELDS, FIRST_CONTROL, FIRST_ID
from backline.preparation.dataset import Dataset, Split
from backline.training.augmentation import SPARE, PartDropping, Transposition, crop_start, windows_from
from backline.training.config import TrainingSettings
from backline.training.control_tables import ControlTables
from backline.training.distributed import SEEDS
from backline.training.given_tasks import REACH, Anticipation

SHORTEST_END, LONGEST_END = 4, 32  # bars of a row that is the end of a song


class Columns:
    """The notes of songs with all that stands beside them, (M, C): joined for the rows asked for alone."""

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
        return torch.cat([notes, given, self.controls[which].to(notes.dtype)], dim=-1)


class Batches:
    """The rows of a run.

    Rows have `row_notes` notes, or those of the dataset's rows where that is 0; from the share `whole_rows_from` of
    the run on all rows have the dataset's length, and a step as many notes as before.
    """

    def __init__(self, dataset: Dataset, split: Split, config: ModelConfig, settings: TrainingSettings,
                 controls: ControlTables | None = None) -> None:
        """`controls`: those of the dataset's songs, for a model that can be told what to play.

        Raises UserError if the settings do not fit the model or the dataset.
        """
        self.settings = settings
        self.whole_length = split.train.shape[1]
        self.length = settings.row_notes or self.whole_length
        if self.whole_length % self.length:
            raise UserError(f"row_notes={self.length}: the dataset's rows have {self.whole_length} notes, which must "
                            f"be a multiple of it")
        self.rows_per_step = settings.batch_size * settings.accumulation
        self.longer_by = self.whole_length // self.length
        if self.longer_by > 1 and settings.whole_rows_from < 1 and settings.batch_size % self.longer_by:
            raise UserError(f"batch_size={settings.batch_size} must be a multiple of {self.longer_by}, or whole rows "
                            f"of {self.whole_length} notes do not make up a step")
        self.notes = split.train.flatten(0, 1)  # (M, F)
        self.steps_per_epoch = -(-(len(self.notes) // self.length) // self.rows_per_step)
        self.total_steps = self.steps_per_epoch * settings.num_epochs
        if settings.max_train_steps:
            self.total_steps = min(self.total_steps, settings.max_train_steps)

        vocabulary = dataset.vocabulary
        n_songs = dataset.n_songs - len(split.held_out_songs)
        self.song_starts = np.append(dataset.song_starts[:n_songs], len(self.notes))
        self.bar_starts = bar_starts(self.notes) if settings.bar_lines or settings.song_ends else None
        self.controls = controls
        self.columns = Columns(self.notes, controls.columns[:len(self.notes)] if controls else None)
        self.transposition = Transposition(vocabulary, *settings.transpose) if settings.transpose else None
        self.part_dropping = PartDropping(vocabulary, settings.drop_parts) if settings.drop_parts else None
        if settings.given_tasks and not config.given:
            raise UserError(f"given_tasks={settings.given_tasks} needs a model with \"given\": true")
        self._kept: tuple = (None, None)  # the epoch last asked for
        self.anticipation = None
        if settings.given_tasks:
            self.anticipation = Anticipation(vocabulary, config.lookahead_bars, settings.given_tasks)

    def length_at(self, step: int) -> int:
        """Notes in each row of step `step`, from 0."""
        return self.whole_length if step >= self.settings.whole_rows_from * self.total_steps else self.length

    def from_step(self, step: int) -> Iterator[Tensor]:
        """Batches (B, T, C) of step `step` and those after it."""
        return map(self.__getitem__, itertools.count(step))

    def __getitem__(self, step: int) -> Tensor:
        """The batch (B, T, C) of a step; each epoch goes through all rows, in an order of its own."""
        epoch, done = divmod(step, self.steps_per_epoch)
        length = self.length_at(step)
        order, start, n_rows = self._epoch(epoch, length)
        indices = order[done % len(order)]  # whole rows may make fewer steps
        firsts = start + indices % n_rows * length  # one row comes twice where crops are one fewer
        seed = (self._epoch_seed(epoch) * 1_000_003 + done) % SEEDS
        return self.rows(firsts, length, start + n_rows * length, seed)

    def _epoch_seed(self, epoch: int) -> int:
        return self.settings.seed * 1_000_003 + epoch

    def _epoch(self, epoch: int, length: int) -> tuple[Sequence[Tensor], int, int]:
        """Which rows the steps of an epoch take, with which note the first row begins, and how many there are."""
        if self._kept[0] != (epoch, length):
            n_rows = len(self.notes) // length
            generator = torch.Generator().manual_seed(self._epoch_seed(epoch))
            order = torch.randperm(n_rows, generator=generator).split(self.rows_per_step * self.length // length)
            start = 0
            if self.settings.random_crops:
                start = crop_start(len(self.notes), length, generator)
                n_rows = (len(self.notes) - start) // length
            self._kept = (epoch, length), (order, start, n_rows)
        return self._kept[1]

    def rows(self, firsts: Tensor, length: int, end: int, seed: int) -> Tensor:
        """The rows (B, T, C) that begin with the notes `firsts` (B,), changed as the settings say.

        Args:
            length: T.
            end: the note with which the songs end.
            seed: of all that is drawn.
        """
        draws = torch.Generator().manual_seed(seed)
        random = np.random.default_rng(seed)
        n_notes = length * (REACH if self.anticipation else 1)
        ends = [False] * len(firsts)
        if self.settings.song_starts or self.settings.song_ends or self.settings.bar_lines:
            firsts, ends = self._placed(firsts, random)
        n_more = SPARE if self.part_dropping else 1
        rows = windows_from(self.columns, firsts, n_notes * n_more, end)
        for row, is_end in zip(rows, ends, strict=True):
            if is_end:
                self._begin_song(row)
        if self.part_dropping:  # first: what fills its rows up comes from the songs as they stand in the files
            rows = self.part_dropping(rows, n_notes, draws)
        if self.transposition:
            rows = self.transposition(rows, draws)
        if self.anticipation:
            rows = self.anticipation(rows, length, draws)
        if self.controls:
            rows[..., FIRST_CONTROL:] = self.controls.forgotten(rows[..., FIRST_CONTROL:], random)
        return rows

    def _placed(self, firsts: Tensor, random: np.random.Generator) -> tuple[Tensor, list[bool]]:
        """Where rows begin that would begin with the notes `firsts` (B,), and which of them are the end of a song.

        A share of them begin with a song, a share are the last bars of one, and the others begin at a bar line. The end
        of a song has a row before its first note, which `_begin_song` makes its BOS.
        """
        settings = self.settings
        places = firsts.numpy().copy()
        ends = [False] * len(places)
        for b, kind in enumerate(random.random(len(places))):
            song = random.integers(len(self.song_starts) - 1)
            if kind < settings.song_starts:
                places[b] = self.song_starts[song]
            elif kind < settings.song_starts + settings.song_ends:
                places[b], ends[b] = self._end_of(song, random)
            elif settings.bar_lines:
                bar = np.searchsorted(self.bar_starts, places[b], side="right") - 1
                places[b] = self.bar_starts[max(bar, 0)]
        return torch.from_numpy(places), ends

    def _end_of(self, song: int, random: np.random.Generator) -> tuple[int, bool]:
        """The note before the last bars of a song, 4 to 32, each octave as often; its first row where it has no more.
        """
        first, end = self.song_starts[song:song + 2]
        bars = self.notes[first:end, BAR].numpy()
        n_bars = int(SHORTEST_END * 2 ** random.uniform(0, np.log2(LONGEST_END / SHORTEST_END)))
        is_cut = bars[-1] != EOS  # by the end of the last full row
        if is_cut or bars[-2] - n_bars < bars[1]:
            return first, False
        return first + int(np.searchsorted(bars[1:-1], bars[-2] - n_bars + 1)), True

    def _begin_song(self, row: Tensor) -> None:
        """Make a BOS of the first of (L, C) notes, which are the end of a song, and count its bars from there."""
        n_notes = int((row[:, BAR] == EOS).nonzero()[0]) if (row[:, BAR] == EOS).any() else len(row)
        song = row[1:n_notes]
        song[:, BAR] -= song[0, BAR].item() - FIRST_ID
        row[0, :len(FIELDS)] = BOS
        if self.controls:
            row[0, FIRST_CONTROL:] = song[0, FIRST_CONTROL:]
            self.controls.describe_end(row[:n_notes + 1])


def bar_starts(notes: Tensor) -> np.ndarray:
    """Indices of the rows of (M, F) `notes` with which a bar begins: a song's BOS, and not the note after it."""
    bars = notes[:, BAR].numpy()
    before = np.concatenate([[EOS], bars[:-1]])
    begins = (bars >= FIRST_ID) & (bars != before) & (before != BOS)
    return np.flatnonzero(begins | (bars == BOS))
