"""Songs as a model plays by itself: from scratch, told nothing, without an end."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from backline.common.paths import CONFIGS
from backline.common.settings import config_from_file
from backline.generation.config import GenConfig
from backline.generation.prompt import read_prompt
from backline.generation.reading import Asked
from backline.generation.session import BATCH, LoadedModel, open_session
from backline.generation.wish import Wish

FREELY = CONFIGS / "genconfig_free.json"
FIRST_SEED = 500_000  # far from the seeds by which songs are judged


def free_config() -> GenConfig:
    """How a model plays by itself, without an ending."""
    config = config_from_file(GenConfig, FREELY)
    controls = dataclasses.replace(config.controls, ending="no")
    return dataclasses.replace(config, controls=controls)


def made_songs(loaded: LoadedModel, n: int, seed: int) -> Iterator[np.ndarray]:
    """(N, F) rows of songs from scratch that have notes, the i-th of seed + i."""
    config = free_config()
    nothing = read_prompt(None, Path(), Asked(), loaded.tokenizer)
    session = open_session(loaded, Wish(), config, nothing)
    for first in range(seed, seed + n, BATCH):
        seeds = range(first, min(first + BATCH, seed + n))
        for song in loaded.make(session.task, config, seeds):
            if len(song.notes):
                yield song.notes
