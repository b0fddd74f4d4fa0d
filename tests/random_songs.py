"""Songs of random notes, as token rows, token files and small datasets; and models small enough to train in a test."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from backline.music.vocab import (
    BOS,
    EOS,
    FIELDS,
    FIRST_ID,
    NOTE_DUR,
    PITCH_INSTRUMENT,
    Part,
    Vocabulary,
    load_vocabulary,
)
from backline.preparation.dataset import Songs, write_dataset

TINY_MODEL = {"emb_sizes": [8, 8, 8, 8], "n_layers": 2, "n_heads": 2, "d_model": 16, "block_size": 64}

VOCABULARY = load_vocabulary()
BAND = Vocabulary(40, 24, 100, (Part("drums", True, 0, (), 35, 50), Part("shaker", True, 0, (), 70, 82),  # seven parts
                                *(Part(name, False, program, (), lowest, lowest + 40) for name, program, lowest in
                                  [("bass", 33, 24), ("guitar", 25, 40), ("piano", 0, 30), ("strings", 48, 50),
                                   ("lead", 80, 55)])))


def random_song(seed: int, n_notes: int = 40, n_bars: int = 4, vocabulary: Vocabulary = VOCABULARY) -> np.ndarray:
    """(N, F) note ids in the order of token files, no two at one onset and pitch."""
    rng = np.random.default_rng(seed)
    sizes = (n_bars, vocabulary.steps_per_bar, vocabulary.sizes[PITCH_INSTRUMENT] - FIRST_ID)
    keys = np.unravel_index(np.sort(rng.choice(np.prod(sizes), n_notes, replace=False)), sizes)
    duration = rng.integers(vocabulary.max_duration_steps, size=n_notes)
    return np.stack([*keys[:NOTE_DUR], duration, keys[-1]], axis=1) + FIRST_ID


def whole(rows: np.ndarray) -> np.ndarray:
    """`rows` between the BOS and the EOS row."""
    return np.concatenate([[[BOS] * len(FIELDS)], rows, [[EOS] * len(FIELDS)]])


def write_tokens(path: Path, rows: np.ndarray, **more) -> Path:
    """A token file with nothing but what its readers need, as the predecessor wrote it, and what `more` says."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({"ids": whole(rows).tolist(), **more}))
    return path


def write_json(path: Path, data: dict) -> Path:
    path.write_text(json.dumps(data))
    return path


def to_songs(songs: Sequence[np.ndarray], vocabulary: Vocabulary = VOCABULARY, names: Sequence[str] | None = None,
             clusters: Sequence[int] | None = None) -> Songs:
    """What `write_dataset` takes, from (N, F) note ids; named song0, song1, …, and each in a cluster of its own."""
    numbers = np.arange(len(songs))
    return Songs([f"song{i}" for i in numbers] if names is None else names, np.array([len(rows) for rows in songs]),
                 numbers if clusters is None else np.array(clusters),
                 (rows.astype(vocabulary.id_type).tobytes() for rows in songs))


def make_dataset(path: Path, songs: Sequence[np.ndarray], block_size: int = 32,
                 vocabulary: Vocabulary = VOCABULARY, clusters: Sequence[int] | None = None) -> Path:
    """`songs` as a dataset, in their order and named song0, song1, …"""
    write_dataset(path, to_songs(songs, vocabulary, clusters=clusters), block_size, vocabulary, {})
    return path
