"""How much more a model's own songs surprise it than real ones: the torch side of evaluate.py --drift.

A model that is right about music, sampled at temperature 1, is as surprised by its own songs as by
real ones. But it reads what it wrote itself, errors included, and so its songs drift from what it
knows.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from backline.evaluation.held_out_losses import (
    drawn_sums,
    losses_of_windows,
    octaves,
    of_notes,
    per_note,
)
from backline.evaluation.statistics import interval
from backline.generation.config import GenConfig, RuleConfig
from backline.generation.loading import player_of
from backline.generation.rules import Passage, Rules
from backline.generation.sampler import Request, sample_songs
from backline.music.vocab import BOS, EOS, FIELDS, Vocabulary
from backline.preparation.dataset import Dataset, song_rows
from model import PooledTransformer

N_NOTES = 512  # of a song that count, EOS among them
FIRST_PLACES = 64  # notes of the first range of places in the song
BATCH = 16  # songs made at a time


def measure_drift(model: PooledTransformer,
                  dataset: Dataset,
                  songs: Sequence[int],
                  n_own: int,
                  batch_size: int) -> dict[str, Any]:
    """Nats per note of the model's own songs and of real ones, and how far they are apart.

    Both are measured alike, by reading whole songs: over all notes and by place in the song.

    Args:
        songs: of the dataset, by number; their beginnings count.
        n_own: songs of the model, with the seeds 0, 1, …
    """
    own = own_songs(model, dataset.vocabulary, n_own)
    real = [song_rows(dataset, song)[:1 + N_NOTES] for song in songs]
    own_sums = note_sums(model, own, batch_size)    # (n_own, N_NOTES, F + 1)
    real_sums = note_sums(model, real, batch_size)  # (n_real, N_NOTES, F + 1)
    by_position = {}
    for first, end in octaves(FIRST_PLACES, N_NOTES):
        own_part = own_sums[:, first:end].sum(1)
        real_part = real_sums[:, first:end].sum(1)
        both_have_notes = own_part[:, -1].any() and real_part[:, -1].any()
        if both_have_notes:
            by_position[f"{first + 1}–{end}"] = difference(own_part, real_part)
    return {
        "own_songs": len(own),
        "real_songs": len(real),
        **difference(own_sums.sum(1), real_sums.sum(1)),
        "by_position": by_position,
    }


def own_songs(model: PooledTransformer,
              vocabulary: Vocabulary,
              n: int) -> list[Tensor]:
    """(N, F) rows of songs that the model plays, with BOS, and with EOS if they end within N_NOTES.

    Temperature 1, no filter, and no rule but that notes are valid.
    """
    player = player_of(model)
    config = GenConfig(sampling_fn="none", max_steps=N_NOTES, loop_guard=0.0)
    rules = Rules(vocabulary, RuleConfig(), Passage(vocabulary.bars))
    requests = [Request(rules, seed) for seed in range(n)]
    songs = []
    with tqdm(total=n, unit="song", leave=False, disable=None) as progress:
        for start in range(0, n, BATCH):
            batch = requests[start:start + BATCH]
            songs += sample_songs(player, batch, config)
            progress.update(len(songs) - start)
    begin = np.full((1, len(FIELDS)), BOS)
    end = np.full((1, len(FIELDS)), EOS)
    whole = [np.concatenate([begin, song.notes, end]) for song in songs]
    return [torch.from_numpy(rows[:1 + N_NOTES]) for rows in whole]


def note_sums(model: PooledTransformer,
              songs: Sequence[Tensor],
              batch_size: int) -> Tensor:
    """(n_songs, N_NOTES, F + 1) float64 nats of each note; the last column says whether there is one.

    `songs`: (N, F) rows of each, N up to N_NOTES + 1.
    """
    size = model.config.block_size
    n_windows = math.ceil(N_NOTES / size)
    shape = (len(songs), n_windows, size, len(FIELDS) + 1)
    result = torch.zeros(shape, dtype=torch.float64)
    for owner, number, _, losses in losses_of_windows(model, songs, batch_size):
        result[owner, number] = losses
    return result.flatten(1, 2)[:, :N_NOTES]


def difference(own: Tensor, real: Tensor) -> dict[str, Any]:
    """Nats per note of own and real songs, (n_songs, F + 1) sums each, and their difference.

    `interval`: where 95 % of such differences lie, by bootstrap over the songs of both kinds; None
    if a kind has one song only.
    """
    sides = {"own": of_notes(own), "real": of_notes(real)}
    drift = sides["own"]["nats_per_note"] - sides["real"]["nats_per_note"]
    if min(len(own), len(real)) == 1:
        return {**sides, "drift": drift, "interval": None}
    own_draws = per_note(drawn_sums(own, seed=0)).sum(-1)
    real_draws = per_note(drawn_sums(real, seed=1)).sum(-1)
    differences = own_draws - real_draws
    low, high = interval(differences.numpy())
    return {**sides, "drift": drift, "interval": [float(low), float(high)]}
