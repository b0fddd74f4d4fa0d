"""Where a note stands, for the layers: its bar and its time, and the angles that say them.

Shapes: B batch, T notes, F families, D residual width, C width of a head.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from backline.music.vocab import BAR, BOS, FIRST_ID, START_POS

# Periods in bars that music is made of, the most telling first: the bar, its beats and their parts, its multiples.
METRE = (1, 1 / 4, 1 / 2, 1 / 8, 2, 4, 1 / 16, 8, 16, 1 / 3, 1 / 6, 1 / 12, 32, 3, 64, 128)


def bar_offsets(ids: Tensor) -> Tensor:
    """(B,) what "relative" bars are less than absolute ones: the bars before the first note of (B, T, F) `ids`.

    0 where a song begins with the first row.
    """
    bars = ids[..., BAR].masked_fill(~_in_cut_song(ids), torch.iinfo(ids.dtype).max).amin(1)  # the lowest is the first
    return torch.where(ids[:, 0, BAR] < FIRST_ID, 0, bars - FIRST_ID)


def with_relative_bars(ids: Tensor) -> Tensor:
    """`ids` (B, T, F) whose first notes, up to the first BOS, have bars counted from the first of them."""
    result = ids.clone()
    result[..., BAR] -= torch.where(_in_cut_song(ids), bar_offsets(ids)[:, None], 0)
    return result


def _in_cut_song(ids: Tensor) -> Tensor:
    """(B, T) whether a row of (B, T, F) `ids` is a note of a song that began before them."""
    return ((ids[..., BAR] == BOS).cumsum(1) == 0) & (ids[..., BAR] >= FIRST_ID)


def music_time(ids: Tensor, steps_per_bar: int) -> Tensor:
    """(B, T) time of each note of `ids` (B, T, F) in steps from the song's start; 0 for special rows."""
    time = (ids[..., BAR] - FIRST_ID) * steps_per_bar + ids[..., START_POS] - FIRST_ID
    return torch.where(ids[..., BAR] < FIRST_ID, 0, time)


def frequencies(n: int, device: torch.device) -> Tensor:
    """(n,) angular rates 10000^(−i/n) (Vaswani et al. 2017, section 3.5)."""
    return 10000.0 ** (-torch.arange(n, device=device) / n)


def metre_rates(n: int, steps_per_bar: int, device: torch.device) -> Tensor:
    """(n,) angular rates per step: half of them once in a bar, in its parts and in its multiples, half `frequencies`.

    A note one bar, or two, or four after another meets it at the same angle in the pairs of these rates, so that what
    repeats is near.
    """
    periods = [steps_per_bar * period for period in METRE[:n // 2]]
    return torch.cat([2 * math.pi / torch.tensor(periods, device=device), frequencies(n - len(periods), device)])


def turns(angles: Tensor) -> Tensor:
    """Cosine and sine (2, B or 1, 1, T, C/2) of angles (B or 1, T, C/2), for `rotate`."""
    return torch.stack([angles.cos(), angles.sin()]).unsqueeze(2)


def sinusoids(index: Tensor, width: int) -> Tensor:
    """(B, T, D) sines and cosines, interleaved, of the positions `index` (B, T) (Vaswani et al. 2017, section 3.5)."""
    angles = index[..., None] * frequencies(width // 2, index.device)
    return torch.stack([angles.sin(), angles.cos()], dim=-1).flatten(-2)
