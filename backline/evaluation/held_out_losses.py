"""Losses of a model on whole songs, by family, part and place. Imports torch."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from backline.evaluation.statistics import bootstrap, interval
from backline.music.vocab import FIELDS, PAD, PITCH_INSTRUMENT
from backline.preparation.dataset import Dataset, song_rows
from backline.training.losses import cut_windows, window_losses
from model import PooledTransformer


class Losses(NamedTuple):
    """Sums of nats per family, and in the last column the number of notes summed; all float64."""

    by_song: Tensor  # (n_songs, F + 1)
    by_context: Tensor  # (T, F + 1), by the number of rows before the note in its window, from 1
    by_part: Tensor  # (n_songs, n_parts, F + 1); EOS belongs to no part
    by_position: Tensor  # (n_songs, windows of the longest, F + 1), by the note's window


class WindowLosses(NamedTuple):
    """A batch of B windows of songs, and what their rows cost."""

    songs: Tensor  # (B,) indices of the songs
    numbers: Tensor  # (B,) each window's number in its song
    rows: Tensor  # (B, T + 1, F)
    losses: Tensor  # (B, T, F + 1) float64, of each row but the first: nats, and 1 (0: padding)


@torch.inference_mode()
def losses_of_windows(model: PooledTransformer,
                      songs: Sequence[Tensor],
                      batch_size: int,
                      ) -> Iterator[WindowLosses]:
    """The losses of songs, (N, F) rows each, cut to the model's context; a batch at a time."""
    device = next(model.parameters()).device
    windows: list[Tensor] = []
    owners: list[int] = []
    numbers: list[int] = []
    for song, rows in enumerate(songs):
        song_windows = cut_windows(rows, model.config.block_size)
        windows += song_windows
        owners += [song] * len(song_windows)
        numbers += range(len(song_windows))

    starts = range(0, len(windows), batch_size)
    for start in tqdm(starts, unit="batch", disable=None):
        batch = slice(start, start + batch_size)
        rows = torch.stack(windows[batch])                           # (B, T + 1, F)
        is_real = rows[:, 1:, :1] != PAD                             # (B, T, 1)
        losses = window_losses(model, model.config, rows.to(device))  # (B, T, F)
        losses = torch.cat([losses.cpu(), is_real], dim=-1)          # (B, T, F + 1)
        songs_of_batch = torch.tensor(owners[batch])
        numbers_of_batch = torch.tensor(numbers[batch])
        yield WindowLosses(songs_of_batch, numbers_of_batch, rows, losses.double())


def measure_losses(model: PooledTransformer,
                   dataset: Dataset,
                   songs: Sequence[int],
                   batch_size: int = 8) -> Losses:
    """Losses of whole songs, cut into windows of the model's context.

    Each row but a song's first is predicted once, from the rows before it in its window.

    Args:
        songs: indices of the dataset's songs.
        batch_size: windows at a time.
    """
    rows_of_songs = [song_rows(dataset, song) for song in songs]
    n_parts = len(dataset.vocabulary.parts)
    result = _no_losses(rows_of_songs, model.config.block_size, n_parts)
    part_of_id = torch.from_numpy(dataset.vocabulary.part_of_id)
    for batch in losses_of_windows(model, rows_of_songs, batch_size):
        of_windows = batch.losses.sum(1)                             # (B, F + 1)
        result.by_song.index_add_(0, batch.songs, of_windows)
        result.by_context.add_(batch.losses.sum(0))
        result.by_position.index_put_((batch.songs, batch.numbers), of_windows, accumulate=True)
        parts = part_of_id[batch.rows[:, 1:, PITCH_INSTRUMENT]]      # (B, T)
        for part in range(result.by_part.shape[1]):
            is_part = (parts == part)[..., None]                     # (B, T, 1)
            of_part = (batch.losses * is_part).sum(1)                # (B, F + 1)
            result.by_part[:, part].index_add_(0, batch.songs, of_part)
    return result


def _no_losses(songs: Sequence[Tensor], size: int, n_parts: int) -> Losses:
    """Sums to add to, all 0, for songs of (N, F) rows in windows of `size`."""
    longest = max(map(len, songs))
    n_windows = math.ceil((longest - 1) / size)
    columns = len(FIELDS) + 1
    return Losses(
        by_song=torch.zeros(len(songs), columns, dtype=torch.float64),
        by_context=torch.zeros(size, columns, dtype=torch.float64),
        by_part=torch.zeros(len(songs), n_parts, columns, dtype=torch.float64),
        by_position=torch.zeros(len(songs), n_windows, columns, dtype=torch.float64),
    )


# ---------------------------------------------------------------- nats per note


def by_context(sums: Tensor, first_limit: int = 64) -> dict[str, float]:
    """Nats per note by the rows before it: "1–64", "65–128", "129–256" and so on in octaves.

    Args:
        sums: (T, F + 1), as `Losses.by_context`.
        first_limit: the end of the first octave.
    """
    found = {}
    for first, limit in octaves(first_limit, len(sums)):
        total = sums[first:limit].sum(0)                             # (F + 1,)
        if total[-1]:
            last = min(limit, len(sums))
            nats = total[:-1].sum() / total[-1]
            found[f"{first + 1}–{last}"] = float(nats)
    return found


def by_position(sums: Tensor, size: int) -> dict[str, dict[str, Any]]:
    """Nats per note by its place in the song: "1–512", "513–1024", "1025–2048" and so on.

    Args:
        sums: (n_songs, n_windows, F + 1), as `Losses.by_position`.
        size: notes in a window.
    """
    found = {}
    for first, limit in octaves(1, sums.shape[1]):
        of_songs = sums[:, first:limit].sum(1)                       # (n_songs, F + 1)
        if of_songs[:, -1].any():
            name = f"{first * size + 1}–{limit * size}"
            found[name] = of_notes(of_songs)
    return found


def octaves(first_limit: int, end: int) -> Iterator[tuple[int, int]]:
    """Stretches from 0 to `first_limit`, to its double, and so on, until `end` is in one.

    Each is a first index and an end that is not part of it.
    """
    first = 0
    limit = first_limit
    while first < end:
        yield first, limit
        first = limit
        limit = 2 * limit


def of_notes(sums: Tensor) -> dict[str, Any]:
    """The number of notes, their nats per note and its interval; see `nats_per_note`."""
    result = nats_per_note(sums)
    return {"notes": int(sums[:, -1].sum()),
            "nats_per_note": result["nats_per_note"],
            "interval": result["interval"]}


def nats_per_note(sums: Tensor) -> dict[str, Any]:
    """Mean loss over all notes of all songs: of each family, and their sum as "nats_per_note".

    "standard_error" and "interval" say how far that sum would differ were other songs of the kind
    held out: its standard deviation, and where the central 95 % lie. They come by bootstrap over
    songs, since the notes of one song depend on each other, and are None for a single song.
    "intervals" holds those of the families; a single song has no such entry.

    Args:
        sums: (n_songs, F + 1), as `Losses.by_song`.
    """
    means = per_note(sums.sum(0))                                    # (F,)
    result: dict[str, Any] = {"nats_per_note": float(means.sum())}
    result |= dict(zip(FIELDS, means.tolist(), strict=True))
    if len(sums) == 1:
        return result | {"standard_error": None, "interval": None}
    drawn = drawn_sums(sums)                                         # (DRAWS, F + 1)
    with_notes = drawn[drawn[:, -1] > 0]
    draws = per_note(with_notes).numpy()                             # (DRAWS, F)
    totals = draws.sum(-1)                                           # (DRAWS,)
    low, high = interval(totals)
    by_family = np.stack(interval(draws), -1)                        # (F, 2)
    return result | {
        "standard_error": float(totals.std()),
        "interval": [float(low), float(high)],
        "intervals": dict(zip(FIELDS, by_family.tolist(), strict=True)),
    }


def drawn_sums(sums: Tensor, seed: int = 0) -> Tensor:
    """(DRAWS, F + 1) sums over n_songs songs drawn with replacement from `sums` (n_songs, F + 1)."""
    draws = bootstrap(len(sums), len(sums), seed)
    return torch.stack([sums[draw].sum(0) for draw in draws])


def per_note(sums: Tensor) -> Tensor:
    """(…, F) nats per note of each family, from (…, F + 1) sums; nan where there are no notes."""
    return sums[..., :-1] / sums[..., -1:]
