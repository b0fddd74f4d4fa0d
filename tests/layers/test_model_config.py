"""The settings of a model: found wrong before anything slow, and sized by a vocabulary."""

from __future__ import annotations

import subprocess
import sys

import pytest
from commands import ROOT, fails
from random_songs import BAND, VOCABULARY

import train_pool
from backline.layers.config import ModelConfig
from backline.music.controls import fields


@pytest.mark.parametrize(("settings", "text"), [
    ('{"n_layer": 2}', "did you mean 'n_layers'"),
    ('{"d_model": 30, "n_heads": 4}', "d_model=30 must be a multiple of n_heads=4"),
    ('{"controls": true}', "set late_layers to at least 1"),
])
def test_wrong_settings_are_found_before_the_dataset_is_read(settings, text, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "dataset.pt").write_bytes(b"nothing that could be read")
    (tmp_path / "model.json").write_text(settings)
    said = fails(train_pool.main, ["--dataset_path", "dataset.pt", "--model_config", "model.json", "-d", "cpu"], capsys)
    assert "model.json: " in said and text in said


def test_importing_the_settings_brings_no_torch():
    code = "import backline.layers.config, sys; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=False).returncode == 0


def test_a_vocabulary_gives_the_sizes():
    config = ModelConfig.for_vocabulary(BAND, heads="gru", late_layers=1, controls=True)
    assert config.n_tokens == BAND.sizes
    assert config.steps_per_bar == BAND.steps_per_bar
    assert config.control_sizes == tuple(field.size for field in fields(BAND))
    assert config.sheet_sizes + config.chord_sizes == config.control_sizes
    assert ModelConfig.for_vocabulary(BAND).control_sizes == ()


def test_sizes_that_are_said_stay():
    config = ModelConfig.for_vocabulary(VOCABULARY, n_tokens=(9, 9, 9, 9), steps_per_bar=5)
    assert config.n_tokens == (9, 9, 9, 9)
    assert config.steps_per_bar == 5


def test_sizes_cannot_be_left_out():
    with pytest.raises(TypeError, match="n_tokens"):
        ModelConfig()
