"""Losses of a model on whole songs: the torch side of evaluate.py."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from tqdm import tqdm

from backline.evaluation.statistics import bootstrap, interval
from backline.music.vocab import BAR, FIELDS, FIRST_ID, PAD, PITCH_INSTRUMENT
from backline.preparation.dataset import Dataset
from model import PooledTransformer, window_losses


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
    by_part: Tensor  # (n_songs, n_parts, F + 1); a song's EOS is of no part
    by_position: Tensor  # (n_songs, windows of the longest, F + 1), by the window of the song that the note is in


@torch.inference_mode()
def losses_of_windows(model: PooledTransformer, songs: Sequence[Tensor], batch_size: int,
                      ) -> Iterator[tuple[Tensor, Tensor, Tensor, Tensor]]:
    """What the rows of songs, (N, F) each, cost in windows of the model's context, a batch at a time.

    Yields:
        which song (B,) and which window of it (B,) each is, its rows (B, T + 1, F), and of each row but the first the
        nats of each family, and whether it is there, (B, T, F + 1) float64.
    """
    device = next(model.parameters()).device
    windows, owners, numbers = [], [], []
    for i, rows in enumerate(songs):
        of_song = cut_windows(rows, model.config.block_size)
        windows += of_song
        owners += [i] * len(of_song)
        numbers += range(len(of_song))
    for start in tqdm(range(0, len(windows), batch_size), unit="batch", disable=None):
        batch = torch.stack(windows[start:start + batch_size])
        there = batch[:, 1:, :1] != PAD
        losses = window_losses(model, model.config, batch.to(device)).cpu()
        owner, number = (torch.tensor(of_window[start:start + batch_size]) for of_window in (owners, numbers))
        yield owner, number, batch, torch.cat([losses, there], dim=-1).double()


def measure_losses(model: PooledTransformer, dataset: Dataset, songs: Sequence[int], batch_size: int = 8) -> Losses:
    """Losses of whole songs, cut into windows of the model's context.

    Each row but a song's first is predicted once, from the rows before it in its window.
    """
    size, rows = model.config.block_size, [song_rows(dataset, song) for song in songs]
    most_windows = -(-(max(map(len, rows)) - 1) // size)
    part_of_id = torch.from_numpy(dataset.vocabulary.part_of_id)
    shapes = ((len(songs),), (size,), (len(songs), len(dataset.vocabulary.parts)), (len(songs), most_windows))
    result = Losses(*(torch.zeros(*shape, len(FIELDS) + 1, dtype=torch.float64) for shape in shapes))
    for owner, number, batch, losses in losses_of_windows(model, rows, batch_size):
        result.by_song.index_add_(0, owner, losses.sum(1))
        result.by_context.add_(losses.sum(0))
        result.by_position.index_put_((owner, number), losses.sum(1), accumulate=True)
        parts = part_of_id[batch[:, 1:, PITCH_INSTRUMENT]]  # (B, T)
        for part in range(result.by_part.shape[1]):
            result.by_part[:, part].index_add_(0, owner, (losses * (parts == part)[..., None]).sum(1))
    return result


def by_context(sums: Tensor, first_limit: int = 64) -> dict[str, float]:
    """Nats per note by the rows before it in the context: "1–64", "65–128", "129–256" and so on in octaves.

    `sums`: `Losses.by_context`.
    """
    places = ((slice(first, limit), f"{first + 1}–{min(limit, len(sums))}")
              for first, limit in octaves(first_limit, len(sums)))
    return {name: float(part[:-1].sum() / part[-1]) for where, name in places if (part := sums[where].sum(0))[-1]}


def by_position(sums: Tensor, size: int) -> dict[str, dict[str, Any]]:
    """Nats per note by its place in the song: "1–512", "513–1024", "1025–2048" and so on in octaves of windows.

    `sums`: `Losses.by_position`; `size`: notes of a window.
    """
    return {f"{first * size + 1}–{limit * size}": of_notes(part) for first, limit in octaves(1, sums.shape[1])
            if (part := sums[:, first:limit].sum(1))[:, -1].any()}


def octaves(first_limit: int, end: int) -> Iterator[tuple[int, int]]:
    """0 to `first_limit`, from there to its double, and so on until `end` is reached; ends are exclusive."""
    first, limit = 0, first_limit
    while first < end:
        yield first, limit
        first, limit = limit, 2 * limit


def of_notes(sums: Tensor) -> dict[str, Any]:
    """Nats per note of all songs (n_songs, F + 1), and between which two figures it lies; see `nats_per_note`."""
    result = nats_per_note(sums)
    return {"notes": int(sums[:, -1].sum()), **{key: result[key] for key in ("nats_per_note", "interval")}}


def nats_per_note(sums: Tensor) -> dict[str, Any]:
    """Mean loss of each family over all notes of all songs, and their sum, from sums (n_songs, F + 1).

    `standard_error` and `interval`: how far the sum would differ were other songs of the kind held out, and where 95 %
    of such sums lie, by bootstrap over songs, since the notes of one song are not independent of each other. One song
    alone has neither: None. `intervals`: the same of each family.
    """
    means = per_note(sums.sum(0))
    families = {field: float(mean) for field, mean in zip(FIELDS, means, strict=True)}
    if len(sums) == 1:
        return {"nats_per_note": float(means.sum()), **families, **dict.fromkeys(("standard_error", "interval"))}
    drawn = drawn_sums(sums)
    draws = per_note(drawn[drawn[:, -1] > 0]).numpy()
    low, high = interval(draws.sum(-1))
    return {"nats_per_note": float(means.sum()), **families,
            "standard_error": float(draws.sum(-1).std()), "interval": [float(low), float(high)],
            "intervals": dict(zip(FIELDS, np.stack(interval(draws), -1).tolist(), strict=True))}


def drawn_sums(sums: Tensor, seed: int = 0) -> Tensor:
    """(DRAWS, F + 1) sums over as many songs, drawn anew, as (n_songs, F + 1) `sums` are of."""
    return torch.stack([sums[draw].sum(0) for draw in bootstrap(len(sums), len(sums), seed)])


def per_note(sums: Tensor) -> Tensor:
    """(…, F) nats of each family for a note, of (…, F + 1) sums; nan where there are no notes."""
    return sums[..., :-1] / sums[..., -1:]
