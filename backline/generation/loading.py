"""From a model's file to a player: the engine on a CPU, torch on a GPU.

Torch is imported where a checkpoint `.pth` is read or a GPU plays. Released weights that play on a
CPU need none.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from backline.common.errors import UserError
from backline.common.files import check_file
from backline.common.installed import INSTALL_ALL, INSTALL_PLAYERS, is_installed
from backline.engine.graphs import HEAD_MULTIPLE, can_play
from backline.engine.model_file import RELEASE_SUFFIX, ModelFile, read_model_file
from backline.engine.player import Player
from backline.engine.verification import CHECK_FACT, logits_of_model, verify
from backline.music.vocab import Vocabulary

if TYPE_CHECKING:
    from model import PooledTransformer

# Parameters from which "auto" looks for a GPU: the notes of a smaller model come sooner from a CPU
# than work is started there (on Apple's: pytorch issue 82707).
LARGE = 30_000_000


class PlayerFile(NamedTuple):
    """A model ready to play, and what its file says besides."""

    player: Player
    vocabulary: Vocabulary
    facts: dict[str, Any]  # what is known of its training
    n_parameters: int


def load_player(path: Path, device: str = "auto", dtype: str | None = None) -> PlayerFile:
    """A player of the model at `path`.

    Args:
        device: "cpu", "auto", or a device of torch.
        dtype: one of `config.DTYPES`; None: "int8" on a CPU, "fp32" on a GPU.
    Raises:
        UserError: about the file, the device, or a dtype that the device does not have.
    """
    check_file(path)
    check_device(device)
    if path.suffix == RELEASE_SUFFIX:
        return _released(path, device, dtype)
    return _checkpoint(path, device, dtype)


def _released(path: Path, device: str, dtype: str | None) -> PlayerFile:
    """From released weights."""
    stored = read_model_file(path)
    n_parameters = sum(array.size for array in stored.weights.values())
    if playing_device(device, n_parameters) == "cpu" and can_play(stored.config):
        player = _engine(path, stored, dtype)
        return PlayerFile(player, stored.vocabulary, stored.facts, n_parameters)
    return _checkpoint(path, device, dtype)


def _checkpoint(path: Path, device: str, dtype: str | None) -> PlayerFile:
    """From any file that torch reads."""
    _check_torch(f"{path} needs")
    from backline.training.checkpoints import load_model

    model, vocabulary, facts = load_model(path)
    n_parameters = model.n_parameters()
    name = playing_device(device, n_parameters)
    if name == "cpu" and can_play(model.config):
        stored = ModelFile(model.config, vocabulary, weights_of(model), facts)
        player = _engine(path, stored, dtype, model)
    else:
        player = _torch_player(model, name, dtype)
    return PlayerFile(player, vocabulary, facts, n_parameters)


def _engine(
    path: Path,
    stored: ModelFile,
    dtype: str | None,
    model: PooledTransformer | None = None,
) -> Player:
    """The engine, which has shown that it plays the model; `model`: as torch has it."""
    try:
        from backline.engine.onnx_player import ENGINE_DTYPES, OnnxPlayer
    except ImportError as err:
        raise UserError(f"ONNX Runtime, which plays models on a CPU, cannot be imported ({err}); "
                        f"{INSTALL_PLAYERS}") from None
    # The same music in half the time: benchmarks/README.md, "Generation speed".
    dtype = dtype or "int8"
    if dtype not in ENGINE_DTYPES:
        raise UserError(f"--dtype {dtype} plays on a GPU alone; on the CPU take "
                        f"{' or '.join(ENGINE_DTYPES)}")
    player = OnnxPlayer(stored.config, stored.weights, dtype)
    expected = _expected_logits(path, stored, model)
    if expected is not None:
        verify(player, expected, path)
    return player


def _expected_logits(
    path: Path,
    stored: ModelFile,
    model: PooledTransformer | None,
) -> Sequence[np.ndarray | list[float]] | None:
    """What the engine is compared with, see `engine.verification`.

    A file of before holds none. Then torch works them out; where it is not installed, a notice
    says that nothing was compared.
    """
    if model is None and stored.facts.get(CHECK_FACT):
        return stored.facts[CHECK_FACT]
    if model is None and not is_installed("torch"):
        print(f"notice: {path} does not hold its logits, so the engine could not be compared with "
              "the model; release.py writes files that hold them", file=sys.stderr)
        return None
    if model is None:
        from backline.training.checkpoints import load_model

        model, _, _ = load_model(path)
    return logits_of_model(model)


def player_of(model: PooledTransformer) -> Player:
    """A player of a model that torch has loaded: the engine, or torch where the model is on a GPU."""
    from backline.engine.onnx_player import OnnxPlayer
    from backline.engine.torch_player import TorchPlayer

    if model.in_norm.weight.device.type == "cpu" and can_play(model.config):
        return OnnxPlayer(model.config, weights_of(model))
    return TorchPlayer(model)


def weights_of(model: PooledTransformer) -> dict[str, np.ndarray]:
    """The weights of a model on a CPU, by name, in float32."""
    return {name: tensor.detach().float().numpy() for name, tensor in model.state_dict().items()}


def _torch_player(model: PooledTransformer, device: str, dtype: str | None) -> Player:
    import torch

    from backline.engine.torch_player import TorchPlayer

    dtype = dtype or "fp32"
    if device == "cpu" and dtype != "fp32":
        raise UserError(f"--dtype {dtype}: the engine takes heads whose width is a multiple of "
                        f"{HEAD_MULTIPLE} alone, and torch plays this model in fp32")
    if dtype == "int8":
        raise UserError(f"--dtype int8 plays on the CPU alone, not on {device}; add -d cpu, or "
                        "take bf16")
    numbers = torch.bfloat16 if dtype == "bf16" else torch.float32
    return TorchPlayer(model.to(device, numbers))


# ---------------------------------------------------------------- devices


def playing_device(name: str, n_parameters: int) -> str:
    """The device that a model of this size plays on; "auto" takes a GPU for large models alone."""
    if name == "cpu" or (name == "auto" and not (n_parameters >= LARGE and is_installed("torch"))):
        return "cpu"
    from backline.layers.torch_io import pick_device

    return str(pick_device(name))


def check_device(name: str) -> None:
    """Raise UserError if there is no such device, or if it needs torch and torch is not there."""
    if name in ("auto", "cpu"):
        return
    _check_torch(f"device {name!r} needs")
    from backline.layers.torch_io import pick_device

    pick_device(name)


def _check_torch(what: str) -> None:
    """Raise UserError if torch is not installed; `what` says what for."""
    if not is_installed("torch"):
        raise UserError(f"{what} PyTorch, which is not installed; {INSTALL_ALL}")
