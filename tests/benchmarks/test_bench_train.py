"""The speed benchmark: what it times, and what it counts."""

from __future__ import annotations

import pytest
import torch
from torch.utils._python_dispatch import _get_current_dispatch_mode

from backline.layers.config import ModelConfig
from backline.music.vocab import FIRST_ID, load_vocabulary
from backline.training.losses import window_losses
from benchmarks import bench_train
from model import PooledTransformer

CPU = torch.device("cpu")
SMALL = {"emb_sizes": (8,) * 4, "n_layers": 2, "n_heads": 2, "d_model": 16}


def test_every_contestant_warms_up_and_is_timed_before_flop_are_counted(monkeypatch):
    """What torch.compile first meets under the counter it never compiles."""
    monkeypatch.setattr(bench_train, "SQUARE", 16)
    counting = []

    def step(_rows: torch.Tensor) -> None:
        counting.append(_get_current_dispatch_mode() is not None)

    text = bench_train.compare([bench_train.Contestant("one", step, "fp32")], torch.ones(2, 5, 4), rounds=2)
    assert counting == [False, False, False, True]
    assert text.splitlines()[2].startswith("| one ")


def test_flop_are_those_of_the_matrix_products():
    config = ModelConfig.for_vocabulary(load_vocabulary(), **SMALL)
    rows = bench_train.random_rows(config, 2, 65, CPU)
    width, length = config.d_model, 64  # notes read: one chunk of attention
    weights = sum(config.emb_sizes) * width + config.n_layers * 12 * width ** 2 + sum(config.n_tokens) * width
    attention = config.n_layers * 2 * length * width  # Q Kᵀ and the weighted sum of values, for a note
    step = bench_train.own_step(config, "fp32", False, CPU)
    assert bench_train.flop_of(step, rows) == 3 * 2 * 2 * length * (weights + attention)  # forward, and twice backward


@pytest.mark.parametrize("bars", ["absolute", "relative"])
def test_random_rows_are_rows_of_notes(bars):
    config = ModelConfig.for_vocabulary(load_vocabulary(), **SMALL, bars=bars)
    rows = bench_train.random_rows(config, 4, 40, CPU)
    assert rows.min() >= FIRST_ID and (rows.amax((0, 1)) < torch.tensor(config.n_tokens)).all()
    assert window_losses(PooledTransformer(config), config, rows).isfinite().all()
