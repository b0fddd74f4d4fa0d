"""The diagram of a model: it says what the config says, is legible, and is drawn by a command."""

from __future__ import annotations

import dataclasses
import itertools

import numpy as np
import pytest
from commands import ROOT, fails, help_without, succeeds
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.image import imread
from matplotlib.patches import FancyArrowPatch, FancyBboxPatch
from matplotlib.path import Path
from matplotlib.transforms import Bbox
from tiny_models import tiny_model

from backline.common.paths import BUNDLED_CONFIG
from backline.layers.config import POOLINGS, ModelConfig
from backline.music.vocab import FIELDS, load_vocabulary
from backline.training.checkpoints import save_release
from diagram import BETWEEN, POSITIONS, main, model_diagram, read_config, words_of
from model import PooledTransformer

CONFIGS = sorted((ROOT / "configs").glob("model_*.json"))
EXAMPLE = ROOT / "examples" / "model.png"
BUNDLED = read_config(BUNDLED_CONFIG)
REFERENCE = ModelConfig.for_vocabulary(load_vocabulary())
PICTURES = {
    "bundled": BUNDLED,
    "reference": REFERENCE,
    "pitch_first": dataclasses.replace(BUNDLED, heads="chain", late_layers=0, positions="rotary", given=False,
                                       controls=False, control_sizes=(),
                                       order=("pitch_instrument", "bar", "start_pos", "note_dur")),
    "summed": dataclasses.replace(REFERENCE, emb_sizes=(256,) * len(FIELDS), emb_pooling="sum", positions="music_time"),
    "one_of_each": dataclasses.replace(BUNDLED, heads="chain", n_layers=2, late_layers=1, n_heads=1, lookahead_bars=1),
    "large": dataclasses.replace(BUNDLED, emb_sizes=(1024, 1024, 1024, 2048), n_tokens=(4100, 1028, 2052, 12345),
                                 d_model=4096, n_heads=32, n_layers=48, late_layers=24, block_size=16384,
                                 positions="sinusoidal"),
}


def words(config: ModelConfig, n_parameters: int = 10**10) -> str:
    return words_of(model_diagram(config, n_parameters))


def words_of_model(config: ModelConfig) -> bytes:
    return words(config, PooledTransformer(config).n_parameters()).encode()


# ---------------------------------------------------------------- what it says


@pytest.mark.parametrize("config", PICTURES.values(), ids=PICTURES)
def test_says_what_the_config_says(config):
    said = words(config).split("; ")
    for name, n_ids, size in zip(FIELDS, config.n_tokens, config.emb_sizes, strict=True):
        at = next(i for i, text in enumerate(said) if text == name)  # the row of the table
        assert said[at + 2:at + 4] == [f"{n_ids:,}", f"{size:,}"]
        assert f"one of {n_ids:,} ids" in said
    joined = any(f"joined end to end ({sum(config.emb_sizes):,})" in text for text in said)
    assert joined == (config.emb_pooling == POOLINGS[0])
    assert any(text.endswith(f"linear layer to {config.d_model:,}") for text in said)
    assert any(f"at most {config.block_size:,} are read" in text for text in said)
    assert any(text.startswith(f"{config.n_layers - config.late_layers} decoder layer") for text in said)
    assert any("late layer" in text for text in said) == bool(config.late_layers)
    assert any("mark of given notes" in text for text in said) == config.given
    assert any("density, key, bars left" in text for text in said) == config.controls
    assert any("time and chord" in text for text in said) == bool(config.controls)


def test_says_in_which_order_the_families_are_chosen():
    for config in (PICTURES["pitch_first"], BUNDLED):
        said = words(config)
        assert all(f"{number}  {name}" in said for number, name in enumerate(config.order, start=1))
        assert said.count(BETWEEN[config.heads]) >= 2
    assert "four numbers at once" in words(REFERENCE)
    assert "1  " not in words(REFERENCE)


@pytest.mark.parametrize("change", [
    {"positions": positions} for positions in ("sinusoidal", *POSITIONS) if positions != BUNDLED.positions] + [
    {"heads": "chain"}, {"heads": "parallel", "late_layers": 0, "controls": False}, {"late_layers": 1},
    {"bars": "absolute"},
    {"given": False}, {"lookahead_bars": 2}, {"n_layers": 7}, {"n_heads": 2}, {"d_model": 512}, {"d_ff": 99},
    {"block_size": 99},
    {"order": ("start_pos", "bar", "note_dur", "pitch_instrument")}, {"emb_sizes": (64,) * len(FIELDS)},
    {"emb_sizes": (64,) * len(FIELDS), "emb_pooling": "sum"}], ids=str)
def test_another_config_is_another_picture(change):
    assert words(dataclasses.replace(BUNDLED, **change)) != words(BUNDLED)


# ---------------------------------------------------------------- whether it can be read


def extents(figure: Figure) -> dict[str, Bbox]:
    renderer = FigureCanvasAgg(figure).get_renderer()
    return {f"{i} {text.get_text()}": text.get_window_extent(renderer) for i, text in enumerate(figure.axes[0].texts)
            if text.get_text()}


def overlap(a: Bbox, b: Bbox) -> bool:
    return a.x0 < b.x1 and b.x0 < a.x1 and a.y0 < b.y1 and b.y0 < a.y1


def inside(a: Bbox, b: Bbox) -> bool:
    return b.x0 <= a.x0 and a.x1 <= b.x1 and b.y0 <= a.y0 and a.y1 <= b.y1


def lines_of(arrow: FancyArrowPatch) -> Path:
    path = arrow.get_path()
    drawn = path.codes != Path.CLOSEPOLY  # whose point is none
    return Path(path.vertices[drawn], path.codes[drawn])


@pytest.mark.parametrize("config", PICTURES.values(), ids=PICTURES)
def test_no_word_meets_another_or_a_line(config):
    figure = model_diagram(config, 10**10)
    found = extents(figure)
    for (text, extent), (other, its_extent) in itertools.combinations(found.items(), 2):
        assert not overlap(extent, its_extent), f"{text!r} meets {other!r}"
    patches = figure.axes[0].patches
    boxes = [patch.get_window_extent() for patch in patches if isinstance(patch, FancyBboxPatch)]
    arrows = [figure.axes[0].transData.transform_path(lines_of(patch)) for patch in patches
              if isinstance(patch, FancyArrowPatch)]
    assert boxes and arrows
    for text, extent in found.items():
        assert inside(extent, figure.bbox), f"{text!r} leaves the picture"
        assert all(inside(extent, box) or not overlap(extent, box) for box in boxes), f"{text!r} crosses a box"
        assert not any(arrow.intersects_bbox(extent, filled=False) for arrow in arrows), f"an arrow through {text!r}"


# ---------------------------------------------------------------- the command


@pytest.mark.parametrize("config", CONFIGS, ids=lambda path: path.stem)
def test_draws_each_config_the_same_each_time(config, tmp_path, capsys):
    for name in ("a.png", "b.png"):
        succeeds(main, ["--model_config", config, "-o", tmp_path / "new" / name])
    assert capsys.readouterr().out.startswith(f"{tmp_path / 'new' / 'a.png'}: ")
    first, second = ((tmp_path / "new" / name).read_bytes() for name in ("a.png", "b.png"))
    assert first.startswith(b"\x89PNG")
    assert words_of_model(read_config(config)) in first
    assert first == second


def test_draws_a_model(tmp_path):
    model = tiny_model(load_vocabulary(), block_size=64)
    save_release(tmp_path / "model.safetensors", model, load_vocabulary(), {})
    succeeds(main, ["-mp", tmp_path / "model.safetensors", "-o", tmp_path / "model.png"])
    assert words(model.config, model.n_parameters()).encode() in (tmp_path / "model.png").read_bytes()


def test_example_is_what_the_command_draws(tmp_path):
    succeeds(main, ["-o", tmp_path / "model.png"])
    assert words_of_model(BUNDLED) in EXAMPLE.read_bytes()
    drawn, example = imread(tmp_path / "model.png"), imread(EXAMPLE)
    assert drawn.shape == example.shape
    assert np.abs(drawn - example).mean() < 0.002  # another machine may draw edges a shade darker
    assert (example[[0, 0, -1, -1], [0, -1, 0, -1]] == 1).all()  # white to the corners, for dark pages too


def test_refuses_to_overwrite_unless_forced(tmp_path, capsys):
    out = tmp_path / "model.png"
    out.write_bytes(b"mine")
    assert "--force" in fails(main, ["-o", out], capsys)
    assert out.read_bytes() == b"mine"
    succeeds(main, ["-o", out, "--force"])
    assert out.read_bytes() != b"mine"


def test_bad_input_is_one_line(tmp_path, capsys):
    config, out = tmp_path / "model.json", tmp_path / "model.png"
    assert "no such file" in fails(main, ["--model_config", config, "-o", out], capsys)
    config.write_text('{"n_layer": 2}')
    assert "did you mean 'n_layers'" in fails(main, ["--model_config", config, "-o", out], capsys)
    config.write_text('{"d_model": 7}')
    assert "multiple of n_heads" in fails(main, ["--model_config", config, "-o", out], capsys)
    assert "not a PyTorch file" in fails(main, ["-mp", config, "-o", out], capsys)
    assert ".png" in fails(main, ["-o", tmp_path / "model.jpg"], capsys)
    assert not out.exists()


def test_help_is_quick():
    assert "Example" in help_without("diagram", "torch", "matplotlib")
