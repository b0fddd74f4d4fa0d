"""Model files: `.pth` checkpoints of a training run, and released `.safetensors` weights.

Both hold tensors and plain data alone: weights, the model's config, its vocabulary, and what is
known of its training. Loading one never runs code from it.
"""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import safetensors.torch
import torch

from backline.common.errors import UserError
from backline.common.files import replacing
from backline.common.settings import config_to_dict
from backline.engine.model_file import (
    RELEASE_FORMAT,
    RELEASE_SUFFIX,
    RELEASE_VERSION,
    in_order,
    read_config,
    read_model_file,
)
from backline.engine.verification import CHECK_FACT, check_logits
from backline.layers.torch_io import load_plain
from backline.music.vocab import Vocabulary
from model import PooledTransformer

CHECKPOINT_FORMAT = "pooled-checkpoint"
VERSION = 1
LOCAL = ("dataset", "weights", "filename", "held_out_before")  # facts of a machine and a run alone


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
    rounded = copy.deepcopy(model).to("cpu", dtype).float().eval()
    facts = {**metadata, CHECK_FACT: check_logits(rounded)}
    header = {
        "format": RELEASE_FORMAT,
        "version": str(RELEASE_VERSION),
        "model_config": json.dumps(config_to_dict(model.config)),
        "vocabulary": json.dumps(vocabulary.to_dict()),
        "facts": json.dumps(facts),
    }
    with replacing(path) as file:
        file.write(in_order(safetensors.torch.save(weights, header)))


def release_facts(training: dict[str, Any]) -> dict[str, Any]:
    """What a release says of its training, from what `load_model` returns of a checkpoint or of a release."""
    if not {"facts", "progress"} & training.keys():
        return {name: fact for name, fact in training.items() if name != CHECK_FACT}
    facts = _without_local(training.get("facts", {}))
    facts["training_args"] = _without_local(training.get("settings", {}))
    facts["versions"] = training.get("versions", {})
    progress = training.get("progress", {})
    return facts | {name: progress[name] for name in ("step", "notes_seen", "seconds") if name in progress}


def _without_local(data: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in data.items() if name not in LOCAL}


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
    if path.suffix == RELEASE_SUFFIX:
        stored = read_model_file(path)
        weights = {name: torch.from_numpy(array) for name, array in stored.weights.items()}
        config, vocabulary, training = stored.config, stored.vocabulary, stored.facts
    else:
        data = load_checkpoint(path)
        weights = data["weights"]
        training = data["training"]
        config, vocabulary = read_config(data["model_config"], data["vocabulary"], path)
    model = PooledTransformer(config)
    try:
        model.load_state_dict({name: tensor.float() for name, tensor in weights.items()})
    except (RuntimeError, AttributeError):
        raise UserError(f"{path}: its weights do not fit its model config; the file is damaged") from None
    return model.to(device).eval(), vocabulary, training
