"""Where a note stands, as rows of tables of cosines and sines: `layers.positions` in NumPy.

Shapes: B songs, T notes, F families, C width of a head.
"""

from __future__ import annotations

import math

import numpy as np

from backline.layers.config import METRE, ModelConfig
from backline.music.vocab import BAR, BOS, FIRST_ID

Table = tuple[np.ndarray, np.ndarray]  # cosines and sines, (places, C/2) each, float32


def bar_offset(rows: np.ndarray) -> int:
    """What to subtract from the bar ids of (N, F) rows to get relative ones.

    That is the bars before the first note; 0 where a song begins with the first row.
    """
    bars = rows[:, BAR]
    if bars[0] < FIRST_ID:
        return 0
    ends = np.flatnonzero(bars == BOS)
    in_cut_song = bars[:ends[0]] if len(ends) else bars
    return int(in_cut_song[in_cut_song >= FIRST_ID].min()) - FIRST_ID


def music_time(bars: np.ndarray, start_pos: np.ndarray, steps_per_bar: int) -> np.ndarray:
    """Onsets in steps from the song's start, of ids of one shape; special rows stand at 0."""
    first = FIRST_ID * steps_per_bar + FIRST_ID
    return np.maximum(bars * steps_per_bar + start_pos - first, 0)


# ---------------------------------------------------------------- tables


def index_table(config: ModelConfig) -> Table:
    """How a note is rotated at each place in the context, for "rotary" positions."""
    index = np.arange(config.block_size + 1)
    return _table(index, frequencies(config.head_width // 2))


def time_table(config: ModelConfig) -> Table:
    """How a note is rotated at each musical time that the vocabulary has."""
    n_bars = config.n_tokens[BAR] - FIRST_ID
    times = np.arange(max(n_bars, 1) * config.steps_per_bar)
    rates = metre_rates(config.head_width // 2, config.steps_per_bar)
    return _table(times, rates)


def table_of_notes(index: np.ndarray, times: np.ndarray, config: ModelConfig) -> Table:
    """(N, C/2) for "music_time": even pairs turn with the index (N,), odd ones with the time (N,)."""
    rates = frequencies(config.head_width // 4)
    by_index = _angles(index, rates)
    by_time = _angles(times, rates)
    interleaved = np.stack([by_index, by_time], -1)          # (N, C/4, 2)
    angles = interleaved.reshape(len(index), -1)
    return np.cos(angles), np.sin(angles)


def sinusoids(index: np.ndarray, width: int) -> np.ndarray:
    """(…, D) sines and cosines of positions, interleaved (Vaswani et al. 2017, section 3.5)."""
    angles = _angles(index, frequencies(width // 2))         # (…, D/2)
    interleaved = np.stack([np.sin(angles), np.cos(angles)], -1)
    return interleaved.reshape(*index.shape, width)


def frequencies(n: int) -> np.ndarray:
    """(n,) angular rates 10000^(−i/n)."""
    exponents = -np.arange(n, dtype=np.float32) / np.float32(n)
    return np.float32(10000.0) ** exponents


def metre_rates(n: int, steps_per_bar: int) -> np.ndarray:
    """(n,) angular rates per step; see `layers.positions.metre_rates`."""
    periods = np.array(METRE[:n // 2], np.float32) * np.float32(steps_per_bar)
    metre = np.float32(2 * math.pi) / periods
    return np.concatenate([metre, frequencies(n - len(periods))])


def _table(places: np.ndarray, rates: np.ndarray) -> Table:
    angles = _angles(places, rates)
    return np.cos(angles), np.sin(angles)


def _angles(places: np.ndarray, rates: np.ndarray) -> np.ndarray:
    """(…, n) float32."""
    return places[..., None].astype(np.float32) * rates
