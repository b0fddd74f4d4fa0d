"""What model files depend on: names, order, shapes and first values of parameters, and what the bundled model says.

The order is that of `parameters()` too, by which optimizers find their state again when a run is resumed. First
values of weights show that the same seed still makes the same model. To renew after a change that is meant: delete
the golden file and run this test.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from random_songs import TINY_MODEL, VOCABULARY, random_song, whole
from torch import Tensor

from backline.common.paths import BAND_MODEL, BUNDLED_MODEL
from backline.engine.verification import logits_of_model, logits_of_player
from backline.generation.loading import load_player
from backline.layers.config import ModelConfig
from backline.training.checkpoints import load_model
from backline.training.losses import note_losses
from model import PooledTransformer

GOLDEN = Path(__file__).parent / "golden" / "parameters.json"
ALL_OPTIONS = {"positions": "metre", "late_layers": 1, "given": True, "controls": True}
KINDS = {
    "parallel": {"heads": "parallel"},
    "chain": {"heads": "chain"},
    "gru": {"heads": "gru"},
    "chain, pitch first": {"heads": "chain", "order": ("pitch_instrument", "bar", "start_pos", "note_dur")},
    "chain, all options": {"heads": "chain", **ALL_OPTIONS},
    "gru, all options": {"heads": "gru", "qk_norm": True, "bars": "relative", **ALL_OPTIONS},
    "gru, summed embeddings": {"heads": "gru", "emb_pooling": "sum", "positions": "rotary"},
}
N_NOTES = 12


def tiny_model(**changes: Any) -> PooledTransformer:
    torch.manual_seed(0)
    return PooledTransformer(ModelConfig.for_vocabulary(VOCABULARY, **TINY_MODEL | changes))


def described(tensors: dict[str, Tensor]) -> list[list]:
    """For each tensor in order its name, its shape and its first number."""
    return [[name, list(tensor.shape), round(tensor.flatten()[0].item(), 5)] for name, tensor in tensors.items()]


def bundled_losses() -> list[list[float]]:
    """(N, F) nats that the bundled model loses on a song of random notes, rounded."""
    model = load_model(BUNDLED_MODEL)[0]
    ids = torch.from_numpy(whole(random_song(0, N_NOTES)))[None]
    told = torch.ones((1, len(ids[0]) - 1, len(model.config.control_sizes)), dtype=torch.long)
    given = torch.arange(len(ids[0]) - 1)[None] % 4 == 1
    with torch.no_grad():
        logits = model(ids[:, :-1], ids[:, 1:], given, told[..., :-3], told[..., -3:])
    return note_losses(logits, ids[:, 1:])[0].double().numpy().round(4).tolist()


def test_parameters_and_the_bundled_model_are_what_the_golden_file_says():
    found = {"parameters": {name: described(tiny_model(**kind).state_dict()) for name, kind in KINDS.items()},
             "bundled model": described(load_model(BUNDLED_MODEL)[0].state_dict()),
             "its losses": bundled_losses()}
    if not GOLDEN.exists():
        lines = json.dumps(found).replace("]], ", "]],\n ").replace('], [', '],\n  [')
        GOLDEN.write_text(lines + "\n")
        pytest.fail(f"{GOLDEN.name} was missing and is written; look it through, and run again")
    golden = json.loads(GOLDEN.read_text())
    for name in KINDS:
        same_tensors(found["parameters"][name], golden["parameters"][name])
    same_tensors(found["bundled model"], golden["bundled model"])
    torch.testing.assert_close(torch.tensor(found["its losses"]), torch.tensor(golden["its losses"]),
                               rtol=0, atol=1e-3)


def same_tensors(found: list[list], expected: list[list]) -> None:
    assert [row[:2] for row in found] == [row[:2] for row in expected]
    assert [row[2] for row in found] == pytest.approx([row[2] for row in expected], abs=2e-5)


@pytest.mark.parametrize("kind", KINDS.values(), ids=KINDS)
def test_parameters_stand_in_the_order_of_the_file(kind):
    model = tiny_model(**kind)
    assert [name for name, _ in model.named_parameters()] == list(model.state_dict())


@pytest.mark.parametrize("path", [BUNDLED_MODEL, BAND_MODEL], ids=lambda path: path.name)
@torch.no_grad()
def test_the_engine_gives_the_logits_of_the_models_here(path):
    model = load_model(path)[0]
    player = load_player(path, "cpu", "fp32").player
    for found, expected in zip(logits_of_player(player), logits_of_model(model), strict=True):
        np.testing.assert_allclose(found, expected, rtol=0, atol=1e-4)

