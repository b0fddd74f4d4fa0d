"""Model files: `.pth` checkpoints of a training run, and released `.safetensors` weights.

Both hold tensors and plain data alone: weights, the model's config, its vocabulary, and what is
known of its training. Loading one never runs code from it.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
import torch

from backline.common.errors import UserError
from backline.common.files import check_file, replacing, write_bytes
from backline.common.settings import config_to_dict
from backline.layers.config import ModelConfig
from backline.layers.torch_io import load_plain
from backline.music.vocab import Vocabulary, load_vocabulary
from model import PooledTransformer

CHECKPOINT_FORMAT = "pooled-checkpoint"
RELEASE_FORMAT = "pooled-model"
VERSION = 1
RELEASE_SUFFIX = ".safetensors"


def save_checkpoint(path: Path, model: PooledTransformer, vocabulary: Vocabulary,
                    training: dict[str, Any]) -> None:
    """Write a `.pth` checkpoint.

    Args:
        training: what the training run needs to go on, as tensors and plain data.
    Raises:
        OSError: it cannot be written, because the disk is full, say. The file that was there is
            whole then.
    """
    content = {
        "format": CHECKPOINT_FORMAT,
        "version": VERSION,
        "model_config": config_to_dict(model.config),
        "vocabulary": vocabulary.to_dict(),
        "weights": model.state_dict(),
        "training": training,
    }
    with replacing(path, durable=True) as file:
        try:
            torch.save(content, file)
        except RuntimeError as err:
            # torch tries to finish its archive after a failed write, and reports only that failure.
            if isinstance(err.__context__, OSError):
                raise err.__context__ from None
            raise


def load_checkpoint(path: Path) -> dict[str, Any]:
    """The content of a `.pth` checkpoint, as `save_checkpoint` wrote it.

    Raises UserError if it is none.
    """
    data = load_plain(path)
    if not isinstance(data, dict) or data.get("format") != CHECKPOINT_FORMAT:
        raise UserError(f"{path}: not a checkpoint of train_pool.py; give a run's best.pth")
    if data.get("version") != VERSION:
        raise UserError(f"{path}: checkpoint version {data.get('version')}, this program reads "
                        f"{VERSION}; use the version that wrote it")
    for key in ("model_config", "vocabulary", "weights", "training"):
        if not isinstance(data.get(key), dict):
            raise UserError(f"{path}: its {key!r} is damaged or missing; copy or make it again")
    return data


def save_release(path: Path, model: PooledTransformer, vocabulary: Vocabulary,
                 metadata: dict[str, Any], dtype: torch.dtype = torch.bfloat16) -> None:
    """Write weights as one self-contained `.safetensors`.

    Args:
        metadata: what the model card says of the training, as plain data.
    """
    weights = {}
    for name, tensor in model.state_dict().items():
        weights[name] = tensor.detach().to("cpu", dtype).contiguous()
    header = {
        "format": RELEASE_FORMAT,
        "version": str(VERSION),
        "model_config": json.dumps(config_to_dict(model.config)),
        "vocabulary": json.dumps(vocabulary.to_dict()),
        "facts": json.dumps(metadata),
    }
    with replacing(path) as file:
        file.write(safetensors.torch.save(weights, header))


def load_model(
    path: Path,
    device: torch.device | str = "cpu",
) -> tuple[PooledTransformer, Vocabulary, dict[str, Any]]:
    """A model for generation or as the start of a new run, from a checkpoint or released weights.

    Returns:
        The model in evaluation mode (float32), its vocabulary, and what the file says of its training.
    Raises:
        UserError: missing, truncated, another kind of file, or weights that do not fit their config.
    """
    data = _read_release(path) if path.suffix == RELEASE_SUFFIX else load_checkpoint(path)
    vocabulary = load_vocabulary(data["vocabulary"])
    config = ModelConfig.from_dict(data["model_config"], vocabulary, f"{path}: model_config")
    if config.n_tokens != vocabulary.sizes:
        raise UserError(f"{path}: its model has {list(config.n_tokens)} ids per family, its vocabulary "
                        f"{list(vocabulary.sizes)}; the file is damaged")
    model = PooledTransformer(config)
    try:
        weights = {name: tensor.float() for name, tensor in data["weights"].items()}
        model.load_state_dict(weights)
    except (RuntimeError, AttributeError):
        raise UserError(f"{path}: its weights do not fit its model config; the file is damaged") from None
    return model.to(device).eval(), vocabulary, data["training"]


def _read_release(path: Path) -> dict[str, Any]:
    """The content of a `.safetensors`, under the names that a checkpoint has for it.

    Raises UserError if it is no model of this project.
    """
    check_file(path)
    try:
        with safetensors.safe_open(path, framework="pt") as file:
            header = file.metadata() or {}
            weights = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a dict)
    except (safetensors.SafetensorError, OSError) as err:
        raise UserError(f"{path}: damaged or not a safetensors file ({err}); copy or make it "
                        f"again") from None
    if header.get("format") != RELEASE_FORMAT or header.get("version") != str(VERSION):
        raise UserError(f"{path}: not a model released by this project (version {VERSION}); make one "
                        f"with release.py")
    data: dict[str, Any] = {"weights": weights}
    keys = {"model_config": "model_config", "vocabulary": "vocabulary", "training": "facts"}
    for key, header_key in keys.items():
        try:
            data[key] = json.loads(header[header_key])
        except (KeyError, json.JSONDecodeError):
            data[key] = None
        if not isinstance(data[key], dict):
            raise UserError(f"{path}: its header is damaged; copy or make it again")
    return data


def write_fact(path: Path, name: str, value: Any) -> None:
    """Add a fact to what a released model says of its training, in place of an older one.

    Its tensors keep their bytes. The file is one that `load_model` reads.
    """
    data = path.read_bytes()
    size = int.from_bytes(data[:8], "little")  # of the header, which the tensors follow
    header = json.loads(data[8:8 + size])
    metadata = header["__metadata__"]
    facts = json.loads(metadata["facts"])
    metadata["facts"] = json.dumps({**facts, name: value})
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)  # tensors begin at a multiple of eight
    start = len(text).to_bytes(8, "little")
    write_bytes(path, start + text + data[8 + size:])


def held_out_names(metadata: dict[str, Any]) -> list[str]:
    """Names of the songs a model was not trained on; empty where its file does not say.

    `metadata`: what the file says of the training; a checkpoint says it under "facts".
    """
    of_checkpoint = metadata.get("facts", {})
    return metadata.get("held_out_songs") or of_checkpoint.get("held_out_songs") or []
