"""The controls of a training run's songs, worked out once and kept in the run's folder."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from backline.common.errors import UserError
from backline.common.files import replacing
from backline.music.controls import fields, forgotten, song_controls
from backline.music.sheet import Levels, measure_levels, sheet_of, sheet_width
from backline.music.sheet_table import SheetTable
from backline.music.vocab import BAR, FIELDS, FIRST_CONTROL, FIRST_ID, Vocabulary
from backline.preparation.dataset import Dataset, song_rows
from backline.training.config import CONTROLS
from backline.training.distributed import Processes


class ControlTables:
    """The controls of a dataset's songs, for training."""

    def __init__(self, columns: np.ndarray, table: SheetTable, vocabulary: Vocabulary) -> None:
        """`columns`: (M, K) uint8, one row for each of the dataset's."""
        self.columns = torch.from_numpy(columns)
        self.table = table
        self.vocabulary = vocabulary

    @classmethod
    def of(cls, dataset: Dataset, n_held_out: int, folder: Path, processes: Processes,
           levels: Levels | None = None) -> ControlTables:
        """The controls of `dataset`, from the file in `folder`.

        The first process makes the file where there is none.

        Args:
            n_held_out: songs that are not for training; they are the last.
            levels: of density, as the model has learned them; None: those of the songs for training.
        """
        n_train = dataset.n_songs - n_held_out
        path = folder / CONTROLS
        vocabulary = dataset.vocabulary
        shape = (len(dataset.notes), len(fields(vocabulary)))
        if levels is None:
            songs = (song_rows(dataset, song).numpy() for song in range(n_train))
            levels = measure_levels(songs, vocabulary)
        if processes.is_first and _held(path, shape) is None:
            _write(path, dataset, levels, shape)
        processes.total(torch.zeros(1))  # the others wait here for the first
        columns = _held(path, shape)
        if columns is None:
            raise UserError(f"{path}: cannot be read; give a folder that all processes share")
        first_rows = columns[dataset.song_starts[:n_train]]  # a song's BOS has the sheet of its first bar
        sheets = first_rows[:, :sheet_width(vocabulary)].copy()
        return cls(columns, SheetTable(levels, sheets), vocabulary)

    def describe_end(self, rows: Tensor) -> None:
        """Replace the sheets of (N, C) rows, which begin with a BOS, by the sheet of these rows alone."""
        notes = rows[:, :len(FIELDS)].numpy()
        is_note = notes[:, BAR] >= FIRST_ID
        bars = notes[is_note, BAR] - FIRST_ID
        sheet = sheet_of(notes, self.vocabulary, self.table.levels, 0, int(bars.max()))
        rows[:, FIRST_CONTROL:FIRST_CONTROL + len(sheet)] = torch.from_numpy(sheet).to(rows.dtype)

    def forgotten(self, controls: Tensor, random: np.random.Generator) -> Tensor:
        """(B, T, K) controls, some of them made unknown."""
        return torch.from_numpy(forgotten(controls.numpy(), random))


def _held(path: Path, shape: tuple[int, int]) -> np.ndarray | None:
    """The array in the file at `path`, mapped into memory; None if there is none of this `shape`."""
    try:
        columns = np.load(path, mmap_mode="c")  # what is written to it stays in memory
    except (OSError, ValueError):
        return None
    return columns if columns.shape == shape and columns.dtype == np.uint8 else None


def _write(path: Path, dataset: Dataset, levels: Levels, shape: tuple[int, int]) -> None:
    """Write the controls song by song: memory holds one at a time."""
    header = {"descr": "|u1", "fortran_order": False, "shape": shape}
    songs = tqdm(range(dataset.n_songs), desc="controls", unit="song", leave=False, disable=None)
    with replacing(path) as file:
        np.lib.format.write_array_header_1_0(file, header)
        for song in songs:
            rows = song_rows(dataset, song).numpy()
            controls = song_controls(rows, dataset.vocabulary, levels)
            file.write(controls.tobytes())
