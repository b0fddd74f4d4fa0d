"""Positions in NumPy are those in torch."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from tiny_models import notes, small_model

from backline.engine import positions
from backline.layers import positions as in_torch
from backline.layers.config import POSITIONS
from backline.music.vocab import BAR, BOS, EOS, FIRST_ID, START_POS

CPU = torch.device("cpu")


@given(n=st.integers(2, 40), steps=st.sampled_from([16, 32, 48]))
def test_rates(n, steps):
    np.testing.assert_allclose(positions.frequencies(n), in_torch.frequencies(n, CPU).numpy(), rtol=1e-6)
    np.testing.assert_allclose(positions.metre_rates(n, steps), in_torch.metre_rates(n, steps, CPU).numpy(), rtol=1e-6)


@given(bars=st.lists(st.sampled_from([BOS, EOS, *range(FIRST_ID, FIRST_ID + 9)]), min_size=1, max_size=9))
def test_bar_offsets(bars):
    rows = np.zeros((len(bars), 4), np.int64)
    rows[:, BAR] = bars
    if bars[0] >= FIRST_ID or BOS in bars[:1]:
        assert positions.bar_offset(rows) == int(in_torch.bar_offsets(torch.from_numpy(rows)[None]))


@pytest.mark.parametrize("kind", [kind for kind in POSITIONS if kind != "sinusoidal"])
def test_tables_hold_what_torch_rotates_by(kind):
    config = small_model(positions=kind).config
    ids = notes(3)
    index = torch.arange(ids.shape[1])[None]
    expected = in_torch.note_rotation(ids, index, config)[:, 0, 0].numpy()  # (2, T, C/2)
    times = positions.music_time(ids[0, :, BAR].numpy(), ids[0, :, START_POS].numpy(), config.steps_per_bar)
    if kind == "music_time":
        found = positions.table_of_notes(index[0].numpy(), times, config)
    else:
        table, places = (positions.time_table(config), times) if kind == "metre" \
            else (positions.index_table(config), index[0].numpy())
        found = table[0][places], table[1][places]
    np.testing.assert_allclose(np.stack(found), expected, atol=1e-5)


def test_sinusoids():
    index = np.array([[0, 1, 30], [5, 6, 7]])
    np.testing.assert_allclose(positions.sinusoids(index, 16), in_torch.sinusoids(torch.from_numpy(index), 16).numpy(),
                               atol=1e-5)
