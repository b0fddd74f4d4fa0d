"""How much more a model's own songs surprise it than real ones do: the torch side of evaluate.py --drift.

A song sampled at temperature 1 from a model that is right about music would surprise it as real music does. The model
reads what it wrote itself, though, errors included, and so its songs drift from what it knows.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from backline.evaluation.held_out_losses import drawn_sums, losses_of_windows, octaves, of_notes, per_note, song_rows
from backline.evaluation.statistics import interval
from backline.generation.config import GenConfig, RuleConfig
from backline.generation.rules import Rules
from backline.generation.sampler import Request, sample_songs
from backline.layers.packed import for_inference
from backline.music.vocab import BOS, EOS, FIELDS, Vocabulary
from backline.preparation.dataset import Dataset
from model import PooledTransformer

N_NOTES = 512  # of a song that count, EOS among them
FIRST_PLACES = 64  # notes of the first stretch of it
BATCH = 16  # songs made at a time


def measure_drift(model: PooledTransformer, dataset: Dataset, songs: Sequence[int], n_own: int, batch_size: int,
                  ) -> dict[str, Any]:
    """Nats per note of `n_own` songs of the model, seeds 0, 1, …, and of the beginnings of the dataset's `songs`.

    Both are measured alike, by reading whole songs. Of all notes and by their place in the song; with the difference.
    """
    own = own_songs(model, dataset.vocabulary, n_own)
    real = [song_rows(dataset, song)[:1 + N_NOTES] for song in songs]
    sums = [note_sums(model, rows, batch_size) for rows in (own, real)]
    stretches = {f"{first + 1}–{end}": [of_kind[:, first:end].sum(1) for of_kind in sums]
                 for first, end in octaves(FIRST_PLACES, N_NOTES)}
    return {"own_songs": len(own), "real_songs": len(real), **difference(*(of_kind.sum(1) for of_kind in sums)),
            "by_position": {name: difference(*both) for name, both in stretches.items()
                            if all(of_kind[:, -1].any() for of_kind in both)}}


def own_songs(model: PooledTransformer, vocabulary: Vocabulary, n: int) -> list[Tensor]:
    """(N, F) rows of songs as the model plays them, BOS included, and EOS of those that end within N_NOTES.

    Temperature 1, no filter, and no rule but that notes are valid. The model stays as it is.
    """
    player = for_inference(copy.deepcopy(model), "fp32")
    config = GenConfig(sampling_fn="none", max_steps=N_NOTES)
    requests = [Request(Rules(vocabulary, RuleConfig(), vocabulary.bars), seed) for seed in range(n)]
    made = []
    with tqdm(total=n, unit="song", leave=False, disable=None) as progress:
        for start in range(0, n, BATCH):
            made += sample_songs(player, requests[start:start + BATCH], config)
            progress.update(len(made) - start)
    begin, end = (np.full((1, len(FIELDS)), row) for row in (BOS, EOS))
    return [torch.from_numpy(np.concatenate([begin, song.notes, end])[:1 + N_NOTES]) for song in made]


def note_sums(model: PooledTransformer, songs: Sequence[Tensor], batch_size: int) -> Tensor:
    """(n_songs, N_NOTES, F + 1) nats of each note in float64, and in the last column whether there is one.

    `songs`: (N, F) rows of each, N up to N_NOTES + 1.
    """
    size = model.config.block_size
    result = torch.zeros(len(songs), -(-N_NOTES // size), size, len(FIELDS) + 1, dtype=torch.float64)
    for owner, number, _, losses in losses_of_windows(model, songs, batch_size):
        result[owner, number] = losses
    return result.flatten(1, 2)[:, :N_NOTES]


def difference(own: Tensor, real: Tensor) -> dict[str, Any]:
    """Nats per note of both kinds of songs, (n_songs, F + 1) sums each, and how much more the own ones cost.

    `interval`: where 95 % of such differences lie, by bootstrap over the songs of both kinds; None where one is alone.
    """
    sides = {"own": of_notes(own), "real": of_notes(real)}
    apart = sides["own"]["nats_per_note"] - sides["real"]["nats_per_note"]
    if min(len(own), len(real)) == 1:
        return {**sides, "drift": apart, "interval": None}
    draws = [per_note(drawn_sums(of_kind, seed)).sum(-1) for seed, of_kind in enumerate((own, real))]
    low, high = interval((draws[0] - draws[1]).numpy())
    return {**sides, "drift": apart, "interval": [float(low), float(high)]}
