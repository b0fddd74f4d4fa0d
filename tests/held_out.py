"""A dataset and a checkpoint that names two of its songs as held out."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from random_songs import VOCABULARY, to_songs
from tiny_models import tiny_model

from backline.preparation.dataset import write_dataset
from backline.training.checkpoints import save_checkpoint

N_SONGS = 5
HELD_OUT = ["song 3", "song 4"]


def _random_ids(length: int, seed: int) -> np.ndarray:
    random = np.random.default_rng(seed)
    return np.stack([random.integers(4, size, length) for size in VOCABULARY.sizes], axis=1)


def write_held_out(folder: Path) -> None:
    """data.pt, a dataset of five songs, and best.pth, a checkpoint that names two of them as held out."""
    songs = [_random_ids(20 + 7 * i, i) for i in range(N_SONGS)]
    songs[-1] = _random_ids(16 * 4, 9)  # the last block is full, so that no song is cut off
    total = sum(len(rows) + 2 for rows in songs)
    names = [f"song {i}" for i in range(N_SONGS)]
    write_dataset(folder / "data.pt", to_songs(songs, VOCABULARY, names), total, VOCABULARY, {})
    model = tiny_model(VOCABULARY, block_size=16, sharpness=1)
    save_checkpoint(folder / "best.pth", model, VOCABULARY, {"facts": {"held_out_songs": HELD_OUT}})
