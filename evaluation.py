"""Losses of a model on whole songs: the torch side of evaluate.py."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from tqdm import tqdm

from dataset import Dataset
from errors import UserError
from model import PooledTransformer, window_losses
from vocab import BAR, FIELDS, FIRST_ID, PAD


def held_out_names(facts: dict[str, Any]) -> list[str]:
    """Names of the songs that a model was not trained on, by what its file says of its training; none: not known."""
    return facts.get("held_out_songs") or facts.get("facts", {}).get("held_out_songs") or []


def held_out_songs(facts: dict[str, Any], dataset: Dataset, where: Path) -> list[int]:
    """Indices of the dataset's songs that the model was not trained on, by the list its file carries."""
    names = held_out_names(facts)
    if not names:
        raise UserError(f"{where}: carries no list of held-out songs; --all evaluates on every song of the dataset")
    wanted = set(names)
    found = [i for i, name in enumerate(dataset.songs) if name in wanted]
    if not found:
        raise UserError(f"{where}: none of its {len(wanted)} held-out songs are in this dataset; give the dataset it "
                        f"was trained with, or --all")
    return found


def song_rows(dataset: Dataset, song: int) -> Tensor:
    """(N, F) rows of one song, those of BOS and EOS included; the last song may be cut off by the last full block."""
    end = dataset.song_starts[song + 1] if song + 1 < dataset.n_songs else len(dataset.notes)
    return dataset.notes[dataset.song_starts[song]:end].long()


def song_notes(dataset: Dataset, song: int) -> np.ndarray:
    """(N, F) int64 ids of the notes of one song, without BOS and EOS."""
    rows = song_rows(dataset, song).numpy()
    return rows[rows[:, BAR] >= FIRST_ID]


def cut_windows(rows: Tensor, size: int) -> list[Tensor]:
    """A song's (N, F) rows in pieces (size + 1, F), each begun by the last row of the one before; PAD fills the last.

    Each row but the first stands once behind another.
    """
    pieces = [rows[start:start + size + 1] for start in range(0, len(rows) - 1, size)]
    return [nn.functional.pad(piece, (0, 0, 0, size + 1 - len(piece)), value=PAD) for piece in pieces]


class Losses(NamedTuple):
    """Sums in nats for each family, and in the last column how many notes they are of; float64."""

    by_song: Tensor  # (n_songs, F + 1)
    by_context: Tensor  # (T, F + 1), by the number of rows before the note in its window, from 1 on


@torch.inference_mode()
def measure_losses(model: PooledTransformer, dataset: Dataset, songs: Sequence[int], batch_size: int = 8) -> Losses:
    """Losses of whole songs, cut into windows of the model's context.

    Each row but a song's first is predicted once, from the rows before it in its window.
    """
    device = next(model.parameters()).device
    size = model.config.block_size
    windows, owners = [], []
    for i, song in enumerate(songs):
        of_song = cut_windows(song_rows(dataset, song), size)
        windows += of_song
        owners += [i] * len(of_song)
    result = Losses(torch.zeros(len(songs), len(FIELDS) + 1, dtype=torch.float64),
                    torch.zeros(size, len(FIELDS) + 1, dtype=torch.float64))
    for start in tqdm(range(0, len(windows), batch_size), unit="batch", disable=None):
        batch = torch.stack(windows[start:start + batch_size]).to(device)
        counted = (batch[:, 1:, :1] != PAD)
        losses = torch.cat([window_losses(model, model.config, batch), counted], dim=-1).double().cpu()  # (B, T, F + 1)
        result.by_song.index_add_(0, torch.tensor(owners[start:start + batch_size]), losses.sum(1))
        result.by_context.add_(losses.sum(0))
    return result


def by_context(sums: Tensor, first_limit: int = 64) -> dict[str, float]:
    """Nats per note by the rows before it in the context: "1–64", "65–128", "129–256" and so on in octaves.

    `sums`: `Losses.by_context`.
    """
    found, first, limit = {}, 0, first_limit
    while first < len(sums):
        part = sums[first:limit].sum(0)
        if part[-1]:
            found[f"{first + 1}–{min(limit, len(sums))}"] = float(part[:-1].sum() / part[-1])
        first, limit = limit, 2 * limit
    return found


def nats_per_note(sums: Tensor) -> dict[str, float | None]:
    """Mean loss of each family over all notes of all songs, their sum, and its standard error over songs.

    One song alone has no standard error: None.
    """
    notes = sums[:, -1]
    means = sums[:, :-1].sum(0) / notes.sum()
    total = sums[:, :-1].sum(1)
    # Ratio estimator over songs: notes of one song are not independent of each other.
    residual = total - means.sum() * notes
    error = float(residual.square().sum().sqrt() / notes.sum()) if len(sums) > 1 else None
    return {"nats_per_note": float(means.sum()), "standard_error": error,
            **{field: float(mean) for field, mean in zip(FIELDS, means, strict=True)}}
