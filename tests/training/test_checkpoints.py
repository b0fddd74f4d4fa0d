"""Model files: what is written comes back, and anything else is one clear error and runs nothing."""

from __future__ import annotations

import io
import json
import os
import pickle
from pathlib import Path

import pytest
import safetensors.torch
import torch
from commands import fails
from random_songs import TINY_MODEL, VOCABULARY, make_dataset, random_song

import train_pool
from backline.common.errors import UserError
from backline.common.settings import config_to_dict
from backline.layers.config import ModelConfig
from backline.music.vocab import load_vocabulary
from backline.training.checkpoints import load_checkpoint, load_model, save_checkpoint, save_release
from model import PooledTransformer

TRAINING = {"settings": {"lr": 0.1}, "facts": {"held_out_songs": ["a", "b"]}, "moments": torch.arange(3.0)}
SUFFIXES = [".pth", ".safetensors"]


@pytest.fixture(scope="module")
def model() -> PooledTransformer:
    torch.manual_seed(0)
    return PooledTransformer(ModelConfig.from_dict(TINY_MODEL, VOCABULARY, "test"))


@pytest.fixture
def path(request, model, tmp_path) -> Path:
    """A model file; its suffix by indirect parametrization, otherwise .pth."""
    path = tmp_path / f"model{getattr(request, 'param', '.pth')}"
    if path.suffix == ".pth":
        save_checkpoint(path, model, VOCABULARY, TRAINING)
    else:
        save_release(path, model, VOCABULARY, {"songs": 3})
    return path


def refused(path: Path) -> str:
    with pytest.raises(UserError) as caught:
        load_model(path)
    assert str(caught.value).startswith(f"{path}: ")
    assert "\n" not in str(caught.value)
    return str(caught.value)


# ---------------------------------------------------------------- there and back


def test_a_checkpoint_comes_back(path, model, tmp_path):
    loaded, vocabulary, training = load_model(path)
    assert loaded.config == model.config
    assert not loaded.training
    assert vocabulary == VOCABULARY
    assert training["settings"] == TRAINING["settings"]
    assert training["facts"] == TRAINING["facts"]
    assert torch.equal(training["moments"], TRAINING["moments"])
    assert_same_weights(loaded, model.state_dict())
    assert [file.name for file in tmp_path.iterdir()] == ["model.pth"]


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
def test_released_weights_come_back_rounded(model, tmp_path, dtype):
    path = tmp_path / "model.safetensors"
    save_release(path, model, VOCABULARY, {"songs": 3, "split": [0.9]}, dtype)
    loaded, vocabulary, facts = load_model(path)
    assert loaded.config == model.config
    assert not loaded.training
    assert vocabulary == VOCABULARY
    assert len(facts.pop("check_logits")) == 4
    assert facts == {"songs": 3, "split": [0.9]}
    assert_same_weights(loaded, {name: tensor.to(dtype).float() for name, tensor in model.state_dict().items()})
    assert path.stat().st_size < model.n_parameters() * dtype.itemsize + 20_000


def assert_same_weights(model: PooledTransformer, wanted: dict[str, torch.Tensor]) -> None:
    state = model.state_dict()
    assert state.keys() == wanted.keys()
    for name, tensor in state.items():
        assert tensor.dtype == torch.float32
        assert torch.equal(tensor, wanted[name]), name


@pytest.mark.parametrize("path", SUFFIXES, indirect=True)
def test_another_vocabulary_travels_with_its_model(path, tmp_path):
    vocabulary = load_vocabulary(VOCABULARY.to_dict() | {"bars": 20, "steps_per_bar": 16})
    model = PooledTransformer(ModelConfig.from_dict(TINY_MODEL, vocabulary, "test"))
    save = save_checkpoint if path.suffix == ".pth" else save_release
    save(path, model, vocabulary, {})
    loaded, found, _ = load_model(path)
    assert found == vocabulary
    assert loaded.config == model.config


def test_a_checkpoint_that_cannot_be_written_leaves_the_old_one(path, model, tmp_path):
    before = path.read_bytes()
    with pytest.raises((AttributeError, pickle.PicklingError)):
        save_checkpoint(path, model, VOCABULARY, {"hook": lambda: None})
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


# ---------------------------------------------------------------- broken and foreign files


@pytest.mark.parametrize("path", SUFFIXES, indirect=True)
def test_a_truncated_file_is_refused(path):
    data = path.read_bytes()
    for length in [*range(0, len(data), len(data) // 15), len(data) - 1]:
        path.write_bytes(data[:length])
        assert "copy or make it again" in refused(path)


@pytest.mark.parametrize("path", SUFFIXES, indirect=True)
@pytest.mark.parametrize("content", [b"", b"weights", b"MThd\0\0\0\6\0\1\0\1\0\x60", b'{"ids": []}', b"\xff" * 100])
def test_other_kinds_of_file_are_refused(path, content):
    path.write_bytes(content)
    assert "damaged or not a" in refused(path)


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_a_missing_file_is_named(tmp_path, suffix):
    (tmp_path / f"folder{suffix}").mkdir()
    assert "no such file; check the path" in refused(tmp_path / f"none{suffix}")
    assert "a folder, where a file is needed" in refused(tmp_path / f"folder{suffix}")


class Runs:
    """Creates a file by a shell when unpickled."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self):
        return os.system, (f"touch {self.marker}",)


class Makes(Runs):
    """Creates a folder by Python when unpickled."""

    def __reduce__(self):
        return os.mkdir, (str(self.marker),)


def as_pickle(content: object, protocol: int) -> bytes:
    return pickle.dumps(content, protocol)


def as_torch(content: object, zipped: bool) -> bytes:
    buffer = io.BytesIO()
    torch.save(content, buffer, _use_new_zipfile_serialization=zipped)
    return buffer.getvalue()


@pytest.mark.parametrize("kind", [Runs, Makes])
@pytest.mark.parametrize(("save", "how"), [(as_pickle, 2), (as_pickle, 4), (as_torch, True), (as_torch, False)])
@pytest.mark.parametrize("inside", [False, True])
def test_code_in_a_file_never_runs(model, tmp_path, kind, save, how, inside):
    path, marker = tmp_path / "model.pth", tmp_path / "marker"
    content = kind(marker)
    if inside:  # of what is otherwise a checkpoint
        good = tmp_path / "good.pth"
        save_checkpoint(good, model, VOCABULARY, {})
        content = load_checkpoint(good) | {"training": {"facts": content}}
    path.write_bytes(save(content, how))
    assert "holds more than tensors and plain data, so it is not loaded (it could run code)" in refused(path)
    assert not marker.exists()
    pickle.loads(pickle.dumps(kind(marker)))  # the same by pickle does run
    assert marker.exists()


def test_a_pickled_module_is_refused(path, model):
    torch.save(model, path)
    assert "holds more than tensors and plain data" in refused(path)


@pytest.mark.parametrize("content", [[1], {"weights": {}}, {"format": "pooled-dataset", "version": 1}, torch.ones(3)])
def test_other_content_is_refused(path, content):
    torch.save(content, path)
    assert "not a checkpoint of train_pool.py" in refused(path)


def rewritten(path: Path, **changes) -> None:
    """Write a model file again with entries changed, or gone where the change is None."""
    if path.suffix == ".pth":
        data = torch.load(path) | changes
        torch.save({key: value for key, value in data.items() if value is not None}, path)
        return
    with safetensors.safe_open(path, "pt") as file:
        header, weights = file.metadata(), {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    weights = changes.pop("weights", weights)
    header |= {key: value if isinstance(value, str | None) else json.dumps(value) for key, value in changes.items()}
    path.write_bytes(safetensors.torch.save(weights, {key: text for key, text in header.items() if text is not None}))


@pytest.mark.parametrize("path", SUFFIXES, indirect=True)
def test_another_version_is_refused(path):
    rewritten(path, version=2)
    assert "version" in refused(path)


@pytest.mark.parametrize("path", SUFFIXES, indirect=True)
@pytest.mark.parametrize("key", ["model_config", "vocabulary"])
@pytest.mark.parametrize("value", [None, [1], 3, "none.json"])
def test_a_damaged_entry_is_refused(path, key, value):
    rewritten(path, **{key: value})
    assert "damaged" in refused(path)


@pytest.mark.parametrize("value", [None, [1]])
@pytest.mark.parametrize("key", ["weights", "training"])
def test_a_checkpoint_without_weights_or_training_is_refused(path, key, value):
    rewritten(path, **{key: value})
    assert f"its {key!r} is damaged or missing" in refused(path)


def test_a_safetensors_file_of_others_is_refused(tmp_path):
    path = tmp_path / "model.safetensors"
    for header in (None, {"format": "pt"}, {"format": "pooled-model", "version": "2"}):
        path.write_bytes(safetensors.torch.save({"weight": torch.ones(2)}, header))
        assert "not a model released by this project" in refused(path)


@pytest.mark.parametrize("path", [".safetensors"], indirect=True)
def test_a_safetensors_header_of_a_wrong_length_is_refused(path):
    data = bytearray(path.read_bytes())
    data[0] ^= 0xFF
    path.write_bytes(data)
    assert "damaged or not a safetensors file" in refused(path)


@pytest.mark.parametrize("path", SUFFIXES, indirect=True)
@pytest.mark.parametrize("change", ["one more layer", "another width", "a tensor missing", "a tensor too many", "none"])
def test_weights_must_fit_their_config(path, model, change):
    weights, config = dict(model.state_dict()), config_to_dict(model.config)
    if change == "one more layer":
        config["n_layers"] += 1
    elif change == "another width":
        config["d_model"] *= 2
    elif change == "a tensor missing":
        del weights["out_norm.bias"]
    elif change == "a tensor too many":
        weights["extra"] = torch.ones(1)
    rewritten(path, model_config=config, weights=weights)
    if change == "none":
        assert load_model(path)[0].config == model.config
    else:
        assert "its weights do not fit its model config; the file is damaged" in refused(path)


@pytest.mark.parametrize("path", SUFFIXES, indirect=True)
def test_the_model_must_fit_its_vocabulary(path):
    rewritten(path, vocabulary=VOCABULARY.to_dict() | {"bars": 20})
    assert "ids per family, its vocabulary [24, 36, 132, 227]; the file is damaged" in refused(path)


@pytest.mark.parametrize("path", SUFFIXES, indirect=True)
def test_an_unknown_model_setting_is_refused(path, model):
    rewritten(path, model_config=config_to_dict(model.config) | {"n_layer": 2})
    assert "unknown key 'n_layer'; did you mean 'n_layers'?" in refused(path)


@pytest.mark.parametrize("name", ["broken.pth", "broken.safetensors"])
def test_a_command_given_a_broken_file_says_so_in_one_line(tmp_path, capsys, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    make_dataset(tmp_path / "d.pt", [random_song(0), random_song(1)])
    Path(name).write_bytes(b"not weights")
    message = fails(train_pool.main, ["--dataset_path", "d.pt", "-fp", name, "-d", "cpu"], capsys)
    assert message.startswith(f"error: {name}: damaged or not a")
