"""Bands, verdicts, and telling songs apart: on numbers whose answer is known."""

from __future__ import annotations

import numpy as np
import pytest

from backline.evaluation import statistics as judging
from backline.evaluation.statistics import ENOUGH_SONGS, bootstrap, cut_alike, interval, judge, tell_apart

NAMES = ["one", "two", "three"]


def table(n: int, seed: int, shift: float = 0) -> np.ndarray:
    values = np.random.default_rng(seed).normal(size=(n, len(NAMES)))
    values[:, 1] += shift
    return values


def test_bands_are_as_wide_as_the_mean_of_so_many_songs_varies():
    real = table(5000, 0)
    for n in (25, 400):
        for verdict in judge(NAMES, real, table(n, 1)):
            assert verdict.high - verdict.low == pytest.approx(2 * 1.96 / np.sqrt(n), rel=0.1)


def test_19_of_20_fair_verdicts_are_inside():
    real = table(400, 0)
    inside = [verdict.inside for seed in range(1, 101) for verdict in judge(NAMES, real, table(50, seed))]
    assert 0.88 <= np.mean(inside) <= 0.99


def test_another_mean_is_outside():
    verdicts = judge(NAMES, table(2000, 0), table(100, 3, shift=1))
    assert [verdict.name for verdict in verdicts if not verdict.inside] == ["two"]
    assert verdicts[1].generated > verdicts[1].high


def test_what_a_song_has_nothing_for_does_not_count():
    real, generated = table(50, 0), table(20, 1)
    generated[:, 0] = np.nan
    generated[3:, 1] = np.nan
    verdicts = judge(NAMES, real, generated)
    assert [verdict.name for verdict in verdicts] == ["two", "three"]
    assert verdicts[0].generated == pytest.approx(generated[:3, 1].mean())


@pytest.fixture
def small_forests(monkeypatch):
    """Fewer trees and draws: as right for tables as plain as these, in a tenth of the time."""
    for name in ("ROUNDS", "TREES", "DRAWS"):
        monkeypatch.setattr(judging, name, max(getattr(judging, name) // 4, 1))


def test_songs_alike_are_not_told_apart_and_others_are(small_forests):
    real = table(120, 0)
    same, other = tell_apart(NAMES, real, table(60, 1)), tell_apart(NAMES, real, table(60, 2, shift=3))
    assert abs(same.auc - 0.5) < 0.15
    assert same.low < same.auc < same.high
    assert abs(same.control - 0.5) < 0.15
    assert other.auc > 0.95
    assert other.by_measure[0][0] == "two"
    assert other.by_measure[0][1] > 0.95
    assert tell_apart(NAMES, real, table(60, 1)) == same  # no chance in it


def test_few_songs_are_not_told_apart():
    assert tell_apart(NAMES, table(100, 0), table(ENOUGH_SONGS - 1, 1)) is None


def test_missing_values_can_give_songs_away(small_forests):
    real, generated = table(60, 0), table(40, 1)
    generated[:, 2] = np.nan
    found = tell_apart(NAMES, real, generated)
    assert found.auc > 0.9
    assert dict(found.by_measure)["three"] == 0.5


def test_real_songs_are_cut_to_the_lengths_of_the_others():
    real = [np.full((100, 4), i) for i in range(7)]
    others = [np.zeros((n, 4)) for n in (5, 10, 200)]
    cut = cut_alike(real, others)
    lengths = [len(rows) for rows in cut]
    assert sorted(lengths[:3]) == sorted(lengths[3:6]) == [5, 10, 100]
    assert all((rows == i).all() for i, rows in enumerate(cut))
    assert [len(rows) for rows in cut_alike(real, others)] == lengths


def test_draws_are_the_same_each_time():
    assert (bootstrap(10, 4) == bootstrap(10, 4)).all()
    assert interval(np.arange(1001.0)) == pytest.approx((25, 975))
