"""Losses of a model on whole songs: the torch side of evaluate.py."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from tqdm import tqdm

from dataset import Dataset
from errors import UserError
from model import PooledTransformer
from vocab import FIELDS, PAD


def held_out_songs(facts: dict[str, Any], dataset: Dataset, where: Path) -> list[int]:
    """Indices of the dataset's songs that the model was not trained on, by the list its file carries."""
    names = facts.get("held_out_songs") or facts.get("facts", {}).get("held_out_songs")
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


@torch.inference_mode()
def song_losses(model: PooledTransformer, dataset: Dataset, songs: Sequence[int], batch_size: int = 8) -> Tensor:
    """Loss of each family and the notes counted, per song: (n_songs, F + 1) float64, sums in nats and a count.

    A song is cut into windows of the model's context. Each row but the first is predicted once, from the rows before
    it in its window.
    """
    device = next(model.parameters()).device
    size = model.config.block_size
    windows, owners = [], []
    for i, song in enumerate(songs):
        rows = song_rows(dataset, song)
        for start in range(0, max(len(rows) - 1, 0), size):
            piece = rows[start:start + size + 1]
            windows.append(nn.functional.pad(piece, (0, 0, 0, size + 1 - len(piece)), value=PAD))
            owners.append(i)
    sums = torch.zeros(len(songs), len(FIELDS) + 1, dtype=torch.float64)
    for start in tqdm(range(0, len(windows), batch_size), unit="batch", disable=None):
        batch = torch.stack(windows[start:start + batch_size]).to(device)
        targets = batch[:, 1:]
        per_family = [nn.functional.cross_entropy(logits.transpose(1, 2).float(), targets[..., f], ignore_index=PAD,
                                                  reduction="none").double().sum(1)
                      for f, logits in enumerate(model(batch[:, :-1], targets))]
        counts = (targets[..., 0] != PAD).sum(1).double()
        found = torch.stack([*per_family, counts], dim=1).cpu()
        sums.index_add_(0, torch.tensor(owners[start:start + batch_size]), found)
    return sums


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
