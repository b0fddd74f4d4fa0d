"""The controls of a training run's songs: worked out once, kept in the run's folder, and changed from row to row.

Beside them stands what a model's file carries of them: where the levels of density begin, and the sheets of the songs
trained on, from which `generate.py` draws what it is not told.
"""

from __future__ import annotations

import base64
import dataclasses
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from controls import Levels, fields, forgotten, key_column, measure_levels, sheet_of, song_controls
from dataset import Dataset
from errors import UserError
from files import replacing
from processes import Processes
from training_args import CONTROLS
from vocab import BAR, FIELDS, FIRST_CONTROL, FIRST_ID, Vocabulary


@dataclasses.dataclass(frozen=True)
class SheetTable:
    """What a model's file carries of its songs' controls."""

    levels: Levels
    sheets: np.ndarray  # (n_songs, S) uint8, of each song's first bars

    def to_facts(self) -> dict[str, Any]:
        """Plain data; the sheets are bytes in base64, compressed."""
        packed = base64.b64encode(zlib.compress(self.sheets.tobytes())).decode()
        return {**dataclasses.asdict(self.levels), "sheets": packed, "n_songs": len(self.sheets)}

    @classmethod
    def from_facts(cls, data: dict[str, Any], vocabulary: Vocabulary, where: Path) -> SheetTable:
        """Raises UserError if the data is damaged."""
        try:
            levels = Levels(tuple(tuple(edges) for edges in data["density_edges"]))
            sheets = np.frombuffer(zlib.decompress(base64.b64decode(data["sheets"])), np.uint8)
            return cls(levels, sheets.reshape(data["n_songs"], sheet_width(vocabulary)))
        except (KeyError, TypeError, ValueError, zlib.error):
            raise UserError(f"{where}: its table of sheets is damaged; copy or make it again") from None


def sheet_table(facts: dict[str, Any], vocabulary: Vocabulary, where: Path) -> SheetTable | None:
    """The table in what a model's file says of its training; None where there is none."""
    data = facts.get("controls") or facts.get("facts", {}).get("controls")
    return SheetTable.from_facts(data, vocabulary, where) if data else None


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
        """Those of `dataset`, from the file in `folder`, which the first process makes where there is none.

        Args:
            n_held_out: songs that are not for training, the last of all.
            levels: of density, which the model has learned already; None: those of the songs for training.
        """
        n_train = dataset.n_songs - n_held_out
        path = folder / CONTROLS
        vocabulary = dataset.vocabulary
        shape = (len(dataset.notes), len(fields(vocabulary)))
        if levels is None:
            levels = measure_levels((notes_of(dataset, song) for song in range(n_train)), vocabulary)
        if processes.is_first and _held(path, shape) is None:
            _write(path, dataset, levels, shape)
        processes.total(torch.zeros(1))  # the others wait here for the first
        columns = _held(path, shape)
        sheets = columns[dataset.song_starts[:n_train], :sheet_width(vocabulary)].copy()  # BOS has the first bar's
        return cls(columns, SheetTable(levels, sheets), vocabulary)

    def describe_end(self, rows: Tensor) -> None:
        """Put in place of the sheets of (N, C) rows, which begin with a BOS, that of these rows alone."""
        notes = rows[:, :len(FIELDS)].numpy()
        bars = notes[notes[:, BAR] >= FIRST_ID, BAR] - FIRST_ID
        sheet = sheet_of(notes, self.vocabulary, self.table.levels, 0, int(bars.max()))
        rows[:, FIRST_CONTROL:FIRST_CONTROL + len(sheet)] = torch.from_numpy(sheet).to(rows.dtype)

    def forgotten(self, controls: Tensor, random: np.random.Generator) -> Tensor:
        """(B, T, K) controls of which some are unknown."""
        return torch.from_numpy(forgotten(controls.numpy(), random))


def sheet_width(vocabulary: Vocabulary) -> int:
    """Columns of a sheet, which are the first of the controls; behind them stands how many bars are left."""
    return key_column(vocabulary) + 1


def notes_of(dataset: Dataset, song: int) -> np.ndarray:
    """(N, F) ids of all rows of a song."""
    end = dataset.song_starts[song + 1] if song + 1 < dataset.n_songs else len(dataset.notes)
    return dataset.notes[dataset.song_starts[song]:end].numpy()


def _held(path: Path, shape: tuple[int, int]) -> np.ndarray | None:
    """What the file at `path` holds, mapped into memory; None if that is nothing of this `shape`."""
    try:
        columns = np.load(path, mmap_mode="c")  # as it stands in the file, whatever is written to it in memory
    except (OSError, ValueError):
        return None
    return columns if columns.shape == shape and columns.dtype == np.uint8 else None


def _write(path: Path, dataset: Dataset, levels: Levels, shape: tuple[int, int]) -> None:
    with replacing(path) as file:
        np.lib.format.write_array_header_1_0(file, {"descr": "|u1", "fortran_order": False, "shape": shape})
        for song in tqdm(range(dataset.n_songs), desc="controls", unit="song", leave=False, disable=None):
            file.write(song_controls(notes_of(dataset, song), dataset.vocabulary, levels).tobytes())
