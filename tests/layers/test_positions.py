"""Where notes stand: rates of rotation, and the angles that are made of them."""

from __future__ import annotations

import math

import pytest
import torch

from backline.layers.attention import rotate
from backline.layers.positions import METRE, cos_sin, frequencies, metre_rates, sinusoids

CPU = torch.device("cpu")
STEPS_PER_BAR = 32


def test_frequencies_fall_from_1_by_equal_ratios():
    rates = frequencies(4, CPU).tolist()
    assert rates == pytest.approx([1, 10000 ** -0.25, 10000 ** -0.5, 10000 ** -0.75])


@pytest.mark.parametrize(("n", "n_periods"), [(2, 1), (8, 4), (32, 16), (64, 16)])
def test_half_of_the_metre_s_rates_are_periods_as_far_as_there_are_any(n, n_periods):
    rates = metre_rates(n, STEPS_PER_BAR, CPU)
    assert len(rates) == n
    periods = 2 * math.pi / rates[:n_periods] / STEPS_PER_BAR  # in bars
    assert periods.tolist() == pytest.approx(METRE[:n_periods])
    assert torch.equal(rates[n_periods:], frequencies(n - n_periods, CPU))


def test_a_bar_later_the_pairs_of_the_bar_and_its_parts_stand_where_they_stood():
    rates = metre_rates(32, STEPS_PER_BAR, CPU)
    query = torch.randn(1, 1, 1, 64, generator=torch.Generator().manual_seed(0))
    here, a_bar_later = (rotate(query, cos_sin(torch.full((1, 1, 1), time) * rates))
                         for time in (5.0, 5.0 + STEPS_PER_BAR))
    moved = (here - a_bar_later).view(2, 32).abs().amax(0) > 1e-4
    divides_a_bar = torch.tensor([(1 / period).is_integer() for period in map(float, METRE)])
    assert torch.equal(moved[:len(METRE)], ~divides_a_bar)


def test_sinusoids_agree_with_a_slow_version():
    found = sinusoids(torch.tensor([[0, 1, 7]]), 6)
    for t, position in enumerate((0, 1, 7)):
        for d in range(6):
            angle = position / 10000 ** (d // 2 / 3)
            expected = math.cos(angle) if d % 2 else math.sin(angle)
            assert found[0, t, d].item() == pytest.approx(expected, abs=1e-6)


def test_cosine_and_sine_stand_where_rotate_looks_for_them():
    cosine, sine = cos_sin(torch.tensor([[[0.0, math.pi / 2]]]))
    assert cosine.shape == sine.shape == (1, 1, 1, 2)
    torch.testing.assert_close(cosine.flatten(), torch.tensor([1.0, 0.0]), rtol=0, atol=1e-6)
    torch.testing.assert_close(sine.flatten(), torch.tensor([0.0, 1.0]), rtol=0, atol=1e-6)
