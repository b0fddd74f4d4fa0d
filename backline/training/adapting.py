"""Teach a model a few songs: the steps of `adapt.py`, in memory, a minute or two of them.

Shapes: N notes of a song, M of all songs, B rows of a step, T notes of a row, F families, C columns (`batches.py`).
"""

from __future__ import annotations

import copy
import dataclasses
import math
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from tqdm import tqdm

from backline.layers.config import ModelConfig
from backline.music.controls import song_controls
from backline.music.sheet import Levels, sheet_width
from backline.music.sheet_table import SheetTable
from backline.music.vocab import BOS, EOS, FIELDS, PAD, Vocabulary
from backline.preparation.dataset import Dataset, Split
from backline.training.batches import Batches
from backline.training.config import TrainingSettings
from backline.training.control_tables import ControlTables
from backline.training.losses import cut_windows, n_predicted, window_losses
from backline.training.optimization import Optimizers, WeightAverage, rate_share
from model import PooledTransformer

LONGEST_ROW = 512  # notes
LEAST_ROWS = 16  # so that rows can begin in many places, songs come around until they fill as many
SHARE_GIVEN = 0.35  # of the rows of a model that plays to given notes, or it might forget how to


def fitted(settings: TrainingSettings, config: ModelConfig) -> TrainingSettings:
    """The settings, with rows that a model can hear and tasks that it knows, where they leave these open."""
    row_notes = settings.row_notes or min(LONGEST_ROW, config.block_size)
    given_tasks = settings.given_tasks or (SHARE_GIVEN if config.given else 0.0)
    return dataclasses.replace(settings, row_notes=row_notes, given_tasks=given_tasks)


def whole_song(notes: np.ndarray) -> Tensor:
    """(N + 2, F) a song's (N, F) note ids between its BOS and its EOS."""
    bos = np.full((1, len(FIELDS)), BOS)
    eos = np.full((1, len(FIELDS)), EOS)
    return torch.from_numpy(np.concatenate([bos, notes, eos])).long()


def own_sheets(songs: Sequence[Tensor], levels: Levels, vocabulary: Vocabulary) -> SheetTable:
    """The sheets of songs (N, F), for what nobody asks for when the model plays."""
    first_rows = [song_controls(song.numpy(), vocabulary, levels)[0] for song in songs]
    sheets = np.stack(first_rows)[:, :sheet_width(vocabulary)]
    return SheetTable(levels, sheets)


def few_songs_batches(songs: Sequence[Tensor],
                      vocabulary: Vocabulary,
                      config: ModelConfig,
                      settings: TrainingSettings,
                      levels: Levels | None) -> Batches:
    """Rows of `row_notes` notes to learn from.

    Args:
        songs: (N, F) rows of each, from BOS to EOS.
        levels: of density, of a model that can be told what to play.
    """
    length = settings.row_notes
    n_times = math.ceil((LEAST_ROWS + 1) * length / sum(map(len, songs)))
    repeated = [*songs] * n_times
    notes = torch.cat(repeated)                                           # (M, F)
    ends = np.cumsum([len(song) for song in repeated])
    starts = np.append(0, ends[:-1])
    names = tuple(map(str, range(len(repeated))))
    dataset = Dataset(notes, length, names, starts, np.arange(len(repeated)), vocabulary)
    whole = notes[:len(notes) // length * length].view(-1, length, len(FIELDS))
    split = Split(whole, whole[:0], ())
    controls = None
    if levels:
        columns = [song_controls(song.numpy(), vocabulary, levels) for song in songs]
        table = own_sheets(songs, levels, vocabulary)
        controls = ControlTables(np.concatenate(columns * n_times), table, vocabulary)
    return Batches(dataset, split, config, settings, controls)


def computed(settings: TrainingSettings, device: torch.device) -> torch.autocast:
    """Within it, models compute at the precision of the settings."""
    return torch.autocast(device.type, torch.bfloat16, enabled=settings.precision == "bf16")


class Lessons:
    """A model that learns step by step, beside the one that it began as."""

    def __init__(self, base: PooledTransformer, rows: Iterator[Tensor], settings: TrainingSettings) -> None:
        """`rows`: (B, T, C) of each step. `base` stays as it is."""
        self.model = copy.deepcopy(base).train()
        self.rows = rows
        self.settings = settings
        self.optimizers = Optimizers(self.model, settings, settings.batch_size * (settings.row_notes - 1))
        self.average = WeightAverage(self.model, settings.average)
        self.n_done = 0

    def take(self) -> None:
        """Take a step."""
        device = next(self.model.parameters()).device
        rows = next(self.rows).to(device)
        with computed(self.settings, device):
            losses = window_losses(self.model, self.model.config, rows)
        loss = losses.sum() / max(n_predicted(rows), 1)
        loss.backward()
        if self.settings.clip_norm:
            nn.utils.clip_grad_norm_(self.model.parameters(), self.settings.clip_norm)
        self.optimizers.step(rate_share(self.settings, self.n_done, self.settings.max_train_steps))
        self.n_done += 1
        self.average.update(self.n_done)

    def learned(self) -> PooledTransformer:
        """The model so far, its weights averaged over the last steps."""
        with self.average.in_place():
            return copy.deepcopy(self.model).eval()


class Teacher:
    """Teaches a model songs, from where it began each time."""

    def __init__(self, base: PooledTransformer, vocabulary: Vocabulary, settings: TrainingSettings,
                 levels: Levels | None, rehearsal: Sequence[np.ndarray] = ()) -> None:
        """What does not change from song to song.

        Args:
            levels: of density, of a model that can be told what to play.
            rehearsal: (N, F) note ids of songs that the model wrote by itself. Half of the rows are of them, so that
                it forgets less of what it knows ("pseudo-rehearsal", Robins 1995).
        """
        self.base = base
        self.vocabulary = vocabulary
        self.settings = fitted(settings, base.config)
        self.levels = levels
        self.rehearsal = [whole_song(notes) for notes in rehearsal]

    def learn(self, songs: Sequence[np.ndarray], steps: Sequence[int], about: str) -> Iterator[PooledTransformer]:
        """The model after each of some numbers of steps, in rising order.

        Args:
            songs: (N, F) note ids of each.
            about: for the progress bar.
        """
        torch.manual_seed(self.settings.seed)  # of dropout
        whole = [whole_song(notes) for notes in songs]
        lessons = Lessons(self.base, self._rows(whole), self.settings)
        for number in tqdm(range(1, steps[-1] + 1), desc=about, unit="step", disable=None):
            lessons.take()
            if number in steps:
                yield lessons.learned()

    def _rows(self, songs: Sequence[Tensor]) -> Iterator[Tensor]:
        """(B, T, C) of each step."""
        n_rows = self.settings.batch_size
        n_rehearsed = n_rows // 2 if self.rehearsal else 0
        new = self._batches(songs, n_rows - n_rehearsed)
        if not n_rehearsed:
            return new
        known = self._batches(self.rehearsal, n_rehearsed)
        return map(torch.cat, zip(new, known, strict=True))

    def _batches(self, songs: Sequence[Tensor], n_rows: int) -> Iterator[Tensor]:
        settings = dataclasses.replace(self.settings, batch_size=n_rows)
        return few_songs_batches(songs, self.vocabulary, self.base.config, settings, self.levels).from_step(0)

    @torch.inference_mode()
    def nats(self, model: PooledTransformer, songs: Sequence[np.ndarray]) -> float:
        """Nats per note of songs (N, F) to a model, each note predicted from those before it in its window."""
        device = next(model.parameters()).device
        windows = [window for notes in songs for window in cut_windows(whole_song(notes), model.config.block_size)]
        total, number = 0.0, 0
        for batch in torch.stack(windows).split(self.settings.batch_size):
            with computed(self.settings, device):
                losses = window_losses(model, model.config, batch.to(device))
            total += float(losses.sum())
            number += int((batch[:, 1:, 0] != PAD).sum())
        return total / number

    def sheets(self, songs: Sequence[np.ndarray]) -> dict[str, Any]:
        """The facts of the songs' own sheets, for a model that can be told what to play."""
        if self.levels is None:
            return {}
        whole = [whole_song(notes) for notes in songs]
        return {"controls": own_sheets(whole, self.levels, self.vocabulary).to_facts()}
