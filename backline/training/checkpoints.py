"""Model files: `.pth` checkpoints of a training run, and released `.safetensors` weights.

Both hold tensors and plain data alone: the model's config, its vocabulary, and what is known of its training.
Loading one never runs code from it.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
import torch

from backline.common.errors import UserError
from backline.common.files import check_file, replacing
from backline.common.settings import config_to_dict
from backline.layers.config import ModelConfig
from backline.layers.torch_io import load_plain
from backline.music.vocab import Vocabulary, load_vocabulary
from model import PooledTransformer

CHECKPOINT_FORMAT = "pooled-checkpoint"
RELEASE_FORMAT = "pooled-model"
VERSION = 1
RELEASE_SUFFIX = ".safetensors"


def save_checkpoint(path: Path, model: PooledTransformer, vocabulary: Vocabulary, training: dict[str, Any]) -> None:
    """Write a `.pth` checkpoint; `training` is what the training run needs to go on (tensors and plain data).

    Raises OSError if it cannot be written, because the disk is full, say; the file that was there is whole then.
    """
    with replacing(path, durable=True) as file:
        try:
            torch.save({"format": CHECKPOINT_FORMAT, "version": VERSION, "model_config": config_to_dict(model.config),
                        "vocabulary": vocabulary.to_dict(), "weights": model.state_dict(), "training": training}, file)
        except RuntimeError as err:  # torch finishes its archive in any case, and of that failure alone it tells
            if isinstance(err.__context__, OSError):
                raise err.__context__ from None
            raise


def load_checkpoint(path: Path) -> dict[str, Any]:
    """The content of a `.pth` checkpoint, as `save_checkpoint` wrote it. Raises UserError if it is none."""
    data = load_plain(path)
    if not isinstance(data, dict) or data.get("format") != CHECKPOINT_FORMAT:
        raise UserError(f"{path}: not a checkpoint of train_pool.py; give a run's best.pth")
    if data.get("version") != VERSION:
        raise UserError(f"{path}: checkpoint version {data.get('version')}, this program reads {VERSION}; "
                        f"use the version that wrote it")
    for key in ("model_config", "vocabulary", "weights", "training"):
        if not isinstance(data.get(key), dict):
            raise UserError(f"{path}: its {key!r} is damaged or missing; copy or make it again")
    return data


def save_release(path: Path, model: PooledTransformer, vocabulary: Vocabulary, facts: dict[str, Any],
                 dtype: torch.dtype = torch.bfloat16) -> None:
    """Write weights as one self-contained `.safetensors`; `facts` is what the model card says, as plain data."""
    weights = {name: tensor.detach().to("cpu", dtype).contiguous() for name, tensor in model.state_dict().items()}
    header = {"format": RELEASE_FORMAT, "version": str(VERSION),
              "model_config": json.dumps(config_to_dict(model.config)), "vocabulary": json.dumps(vocabulary.to_dict()),
              "facts": json.dumps(facts)}
    with replacing(path) as file:
        file.write(safetensors.torch.save(weights, header))


def load_model(path: Path, device: torch.device | str = "cpu") -> tuple[PooledTransformer, Vocabulary, dict[str, Any]]:
    """A model for generation or as the start of a new run, from a checkpoint or released weights.

    Returns:
        The model in evaluation mode (float32), its vocabulary, and what the file says of its training.
    Raises:
        UserError: missing, truncated, another kind of file, or weights that do not fit their config.
    """
    if path.suffix == RELEASE_SUFFIX:
        weights, config, vocabulary, facts = _read_release(path)
    else:
        data = load_checkpoint(path)
        weights, config, vocabulary, facts = (data["weights"], data["model_config"], data["vocabulary"],
                                              data["training"])
    vocabulary = load_vocabulary(vocabulary)
    config = ModelConfig.from_dict(config, vocabulary, f"{path}: model_config")
    if config.n_tokens != vocabulary.sizes:
        raise UserError(f"{path}: its model has {list(config.n_tokens)} ids per family, its vocabulary "
                        f"{list(vocabulary.sizes)}; the file is damaged")
    model = PooledTransformer(config)
    try:
        model.load_state_dict({name: tensor.float() for name, tensor in weights.items()})
    except (RuntimeError, AttributeError):
        raise UserError(f"{path}: its weights do not fit its model config; the file is damaged") from None
    return model.to(device).eval(), vocabulary, facts


def _read_release(path: Path) -> tuple[dict[str, torch.Tensor], dict, dict, dict]:
    check_file(path)
    try:
        with safetensors.safe_open(path, framework="pt") as file:
            header = file.metadata() or {}
            weights = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a dict)
    except (safetensors.SafetensorError, OSError) as err:
        raise UserError(f"{path}: damaged or not a safetensors file ({err}); copy or make it again") from None
    if header.get("format") != RELEASE_FORMAT or header.get("version") != str(VERSION):
        raise UserError(f"{path}: not a model released by this project (version {VERSION}); make one with release.py")
    try:
        config, vocabulary, facts = (json.loads(header[key]) for key in ("model_config", "vocabulary", "facts"))
    except (KeyError, json.JSONDecodeError):
        config = vocabulary = facts = None
    if not all(isinstance(data, dict) for data in (config, vocabulary, facts)):
        raise UserError(f"{path}: its header is damaged; copy or make it again")
    return weights, config, vocabulary, facts


def held_out_names(metadata: dict[str, Any]) -> list[str]:
    """Names of the songs a model was not trained on; empty where its file does not say.

    `metadata`: what the file says of the training; a checkpoint says it under "facts".
    """
    of_checkpoint = metadata.get("facts", {})
    return metadata.get("held_out_songs") or of_checkpoint.get("held_out_songs") or []
