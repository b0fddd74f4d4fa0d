"""Where a note stands: its bar and its musical time, and the angles that tell the layers.

Shapes: B batch, T notes, F families, D residual width, C width of a head.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from backline.layers.config import METRE, ModelConfig
from backline.music.vocab import BAR, BOS, FIRST_ID, START_POS

# ---------------------------------------------------------------- bars and time


def bar_offsets(ids: Tensor) -> Tensor:
    """(B,) what to subtract from absolute bar ids of (B, T, F) `ids` to get relative ones.

    That is the bars before the first note; 0 where a song begins with the first row.
    """
    bars = ids[..., BAR]                                     # (B, T)
    latest = torch.iinfo(ids.dtype).max
    in_cut_song = _in_cut_song(ids)                          # (B, T)
    first_bar = bars.masked_fill(~in_cut_song, latest).amin(1)  # (B,)
    begins_with_a_song = bars[:, 0] < FIRST_ID
    return torch.where(begins_with_a_song, 0, first_bar - FIRST_ID)


def with_relative_bars(ids: Tensor) -> Tensor:
    """A copy of (B, T, F) `ids` whose notes before the first BOS count bars from their first."""
    offsets = bar_offsets(ids)[:, None]                      # (B, 1)
    moved_by = torch.where(_in_cut_song(ids), offsets, 0)    # (B, T)
    result = ids.clone()
    result[..., BAR] -= moved_by
    return result


def _in_cut_song(ids: Tensor) -> Tensor:
    """(B, T) bool: which rows of (B, T, F) `ids` are notes of a song that began before them."""
    bar = ids[..., BAR]
    songs_begun = (bar == BOS).cumsum(1)                     # (B, T)
    return (songs_begun == 0) & (bar >= FIRST_ID)


def music_time(ids: Tensor, steps_per_bar: int) -> Tensor:
    """(B, T) onset of each note of (B, T, F) `ids`, in steps from the song's start.

    Special rows stand at 0.
    """
    bar = ids[..., BAR] - FIRST_ID
    step = ids[..., START_POS] - FIRST_ID
    time = bar * steps_per_bar + step
    return torch.where(bar < 0, 0, time)


# ---------------------------------------------------------------- angles


def sinusoids(index: Tensor, width: int) -> Tensor:
    """(B, T, D) sines and cosines of positions (B, T), interleaved.

    Source: Vaswani et al. 2017, section 3.5.
    """
    rates = frequencies(width // 2, index.device)
    angles = index[..., None] * rates                        # (B, T, D/2)
    sine = angles.sin()
    cosine = angles.cos()
    interleaved = torch.stack([sine, cosine], dim=-1)        # (B, T, D/2, 2)
    return interleaved.flatten(-2)


def note_rotation(ids: Tensor, index: Tensor, config: ModelConfig) -> Tensor | None:
    """How queries and keys are rotated; None where `config.positions` rotates nothing.

    Args:
        ids: (B, T, F) notes.
        index: (B or 1, T) number of each note in the context.
    Returns:
        (2, B or 1, 1, T, C/2) cosine and sine of each pair, for `attention.rotate`.
    """
    n_pairs = config.head_width // 2
    if config.positions == "sinusoidal":
        return None
    if config.positions == "metre":
        return time_rotation(ids, config)
    if config.positions == "rotary":
        rates = frequencies(n_pairs, ids.device)
        return cos_sin(index[..., None] * rates)
    # Even pairs rotate with the index, odd ones with musical time.
    rates = frequencies(n_pairs // 2, ids.device)
    time = music_time(ids, config.steps_per_bar)             # (B, T)
    by_index = index[..., None] * rates                      # (B or 1, T, C/4)
    by_index = by_index.expand(len(ids), -1, -1)             # (B, T, C/4)
    by_time = time[..., None] * rates
    interleaved = torch.stack([by_index, by_time], -1)       # (B, T, C/4, 2)
    return cos_sin(interleaved.flatten(-2))


def time_rotation(ids: Tensor, config: ModelConfig) -> Tensor:
    """(2, B, 1, T, C/2) cosine and sine where every pair rotates with musical time.

    Of `ids` (B, T, F) only bar and start_pos count: (B, T, 2) is enough.
    """
    time = music_time(ids, config.steps_per_bar)             # (B, T)
    n_pairs = config.head_width // 2
    rates = metre_rates(n_pairs, config.steps_per_bar, ids.device)
    return cos_sin(time[..., None] * rates)


def cos_sin(angles: Tensor) -> Tensor:
    """(2, B or 1, 1, T, C/2) cosine and sine of angles (B or 1, T, C/2), for `attention.rotate`."""
    cosine = angles.cos()
    sine = angles.sin()
    both = torch.stack([cosine, sine])                       # (2, B or 1, T, C/2)
    return both.unsqueeze(2)


def frequencies(n: int, device: torch.device) -> Tensor:
    """(n,) angular rates 10000^(−i/n) (Vaswani et al. 2017, section 3.5)."""
    exponents = -torch.arange(n, device=device) / n
    return 10000.0 ** exponents


def metre_rates(n: int, steps_per_bar: int, device: torch.device) -> Tensor:
    """(n,) angular rates per step: the periods in METRE, then `frequencies`.

    Half of the rates are periods, as far as METRE has so many. Two notes one, two or four bars apart
    stand at the same angle in the pairs of these rates: repeats look close to attention.
    """
    in_bars = METRE[:n // 2]
    lengths = [float(steps_per_bar * period) for period in in_bars]
    # Filled in one by one: a list would be copied to a GPU, for which its host would have to wait.
    one_by_one = [torch.full((), length, device=device) for length in lengths]
    periods = torch.stack(one_by_one)
    metre = 2 * math.pi / periods
    others = frequencies(n - len(periods), device)
    return torch.cat([metre, others])
