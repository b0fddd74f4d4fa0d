"""An engine that does not play the model as it was trained is found out when it is made."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from tiny_models import KINDS, LATE, small_model

from backline.common.errors import UserError
from backline.common.paths import BAND_MODEL, BUNDLED_MODEL
from backline.engine import graphs
from backline.engine.model_file import read_model_file, write_fact
from backline.engine.onnx_player import ENGINE_DTYPES, OnnxPlayer
from backline.engine.verification import CHECK_FACT, check_logits, logits_of_model, logits_of_player, verify
from backline.generation.loading import load_player, player_of, weights_of
from backline.music.vocab import load_vocabulary
from backline.training.checkpoints import load_model, save_checkpoint, save_release

ALL = [*KINDS, LATE | {"controls": True, "given": True}, {"given": True}, {"emb_pooling": "sum"}]


@pytest.fixture
def released(tmp_path):
    path = tmp_path / "model.safetensors"
    save_release(path, small_model(torch.float32, **LATE | {"controls": True}), load_vocabulary(), {"note": "mine"})
    return path


@pytest.mark.parametrize("kind", ALL, ids=lambda kind: "-".join(map(str, kind.values())))
@pytest.mark.parametrize("dtype", ENGINE_DTYPES)
def test_the_engine_is_what_it_should_be(kind, dtype, tmp_path):
    model = small_model(torch.float32, **kind)
    verify(OnnxPlayer(model.config, weights_of(model), dtype), check_logits(model), tmp_path)


@pytest.mark.parametrize("name", sorted(small_model(**LATE | {"controls": True, "given": True, "qk_norm": True})
                                        .state_dict()))
def test_each_weight_counts_in_the_comparison(name, tmp_path):
    """A model with one weight changed is another model."""
    model = small_model(torch.float32, **LATE | {"controls": True, "given": True, "qk_norm": True})
    expected = check_logits(model)
    model.state_dict()[name].mul_(1.5).add_(0.2)
    with pytest.raises(UserError, match="would not play this model as it was trained"):
        verify(player_of(model), expected, tmp_path)


@pytest.mark.parametrize(("path", "dtype"), [("", "fp32"), (BUNDLED_MODEL, "fp32"), (BUNDLED_MODEL, "int8"),
                                             (BAND_MODEL, "int8")])
def test_another_activation_is_found_out(monkeypatch, released, path, dtype):
    """Somebody changes the graphs, or model.py, and not the other."""
    path = path or released
    node = graphs.Graph.node

    def other(self, op_type, *inputs, domain="", **attributes):
        if op_type != "BiasGelu":
            return node(self, op_type, *inputs, domain=domain, **attributes)
        return node(self, "Relu", node(self, "Add", *inputs))

    load_player(path, "cpu", dtype)
    monkeypatch.setattr(graphs.Graph, "node", other)
    with pytest.raises(UserError, match=r".safetensors: the engine would not play .* update Backline"):
        load_player(path, "cpu", dtype)


def test_a_release_says_how_it_sounds_with_its_rounded_weights(released):
    stored = read_model_file(released)
    model, _, _ = load_model(released)
    for found, expected in zip(stored.facts[CHECK_FACT], logits_of_model(model), strict=True):
        np.testing.assert_allclose(found, expected, atol=1e-4)
    player = load_player(released, dtype="fp32").player
    for found, expected in zip(logits_of_player(player), logits_of_model(model), strict=True):
        np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-4)


def without_check(path) -> None:
    """Make a file of before: it says nothing."""
    write_fact(path, CHECK_FACT, None)
    assert read_model_file(path).facts[CHECK_FACT] is None


def test_a_file_of_before_is_compared_with_torch(monkeypatch, released):
    without_check(released)
    load_player(released, "cpu")
    worked_out = []
    monkeypatch.setattr("backline.generation.loading.logits_of_model",
                        lambda model: worked_out.append(model) or [logits + 1 for logits in logits_of_model(model)])
    with pytest.raises(UserError, match="as it was trained"):
        load_player(released, "cpu")
    assert len(worked_out) == 1


def test_without_torch_a_file_of_before_plays_with_a_notice(monkeypatch, released, capsys):
    without_check(released)
    monkeypatch.setattr("backline.generation.loading.is_installed", lambda library: library != "torch")
    load_player(released)
    error = capsys.readouterr().err
    assert error.startswith(f"notice: {released} does not hold its logits") and "release.py" in error
    assert error.count("\n") == 1


def test_a_checkpoint_is_compared_with_itself(monkeypatch, tmp_path):
    path = tmp_path / "best.pth"
    save_checkpoint(path, small_model(torch.float32), load_vocabulary(), {})
    assert isinstance(load_player(path, "cpu").player, OnnxPlayer)
    monkeypatch.setattr("backline.engine.onnx_player.graphs.EPSILON", 0.5)
    with pytest.raises(UserError, match=r"best.pth: the engine would not play"):
        load_player(path, "cpu")


def test_facts_are_plain_numbers(released):
    text = json.dumps(read_model_file(released).facts[CHECK_FACT])
    assert len(text) < 12_000
