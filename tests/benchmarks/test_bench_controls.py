"""The measures of benchmarks/bench_controls.py, by examples."""

from __future__ import annotations

import math

import numpy as np
import pytest
from random_songs import VOCABULARY
from written_songs import NOTHING, notes

from backline.music.sheet import PART_CONTROLS, measure_levels
from benchmarks.bench_controls import N_BARS, part_levels, played_level, rank_correlation

DRUMS, BASS, PIANO = range(3)
LEVELS = measure_levels([], VOCABULARY)


def bars_with(part: str, bars: range, pitches: tuple[int, ...] = (36,)) -> np.ndarray:
    """A note in each of these bars, of one pitch after the other."""
    return notes(*((bar, 0, part, pitches[i % len(pitches)]) for i, bar in enumerate(bars)))


@pytest.mark.parametrize(("bars", "level"), [
    (range(N_BARS), 1), (range(0, N_BARS - 2), 2), (range(0, N_BARS, 2), 3), (range(2), 4)])
def test_rests_are_heard_at_the_level_of_their_share(bars, level):
    assert played_level(bars_with("bass", bars), BASS, "rests", VOCABULARY, LEVELS) == level


def test_repeats_are_heard_at_the_level_of_what_comes_back():
    same = bars_with("bass", range(N_BARS))
    assert played_level(same, BASS, "repeats", VOCABULARY, LEVELS) == 4
    other = bars_with("bass", range(N_BARS), tuple(range(30, 30 + N_BARS)))
    assert played_level(other, BASS, "repeats", VOCABULARY, LEVELS) == 1
    after_eight = bars_with("bass", range(N_BARS), tuple(range(30, 38)))
    assert played_level(after_eight, BASS, "repeats", VOCABULARY, LEVELS) == 2.5  # 1 after four bars, 4 after eight


def test_of_a_part_that_does_not_play_nothing_is_said():
    assert math.isnan(played_level(bars_with("bass", range(4)), PIANO, "rests", VOCABULARY, LEVELS))
    assert math.isnan(played_level(NOTHING, BASS, "repeats", VOCABULARY, LEVELS))


@pytest.mark.parametrize("control", PART_CONTROLS)
def test_levels_are_drawn_by_the_seed_from_all_there_are(control):
    drawn = [part_levels(control, seed, VOCABULARY) for seed in range(60)]
    assert drawn[7] == part_levels(control, 7, VOCABULARY) != drawn[8]
    assert {int(level) for each in drawn for level in each.values()} == set(
        range(1, PART_CONTROLS[control].n_levels + 1))


def test_rank_correlation_leaves_out_what_is_not_known():
    assert rank_correlation([1, 2, 3, 4], [10, 20, 30, 40]) == pytest.approx(1)
    assert rank_correlation([1, 2, 3, 4], [10, 20, 30, math.nan]) == pytest.approx(1)
    assert rank_correlation([1, 2, 3, 9], [3, 2, 1, math.nan]) == pytest.approx(-1)
    assert rank_correlation([1, 1, 2, 2], [5, 5, 7, 7]) == pytest.approx(1)
