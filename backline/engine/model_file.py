"""Released weights, `.safetensors`, read without torch.

One file holds the weights, the model's config, its vocabulary, and what is known of its training.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import safetensors

from backline.common.errors import UserError
from backline.common.files import check_file, write_bytes
from backline.layers.config import ModelConfig
from backline.layers.shapes import weight_shapes
from backline.music.vocab import Vocabulary, load_vocabulary

RELEASE_FORMAT = "pooled-model"
RELEASE_VERSION = 1
RELEASE_SUFFIX = ".safetensors"
ADAPTED = "adapted"  # the fact of a model that learned from a few songs of its user's
SIZE_BYTES = 8  # of the number that a .safetensors begins with, the size of its header
HALF_OF_FLOAT32 = 16  # bits: bfloat16 is the upper half of a float32


class ModelFile(NamedTuple):
    """A model as it is stored."""

    config: ModelConfig
    vocabulary: Vocabulary
    weights: dict[str, np.ndarray]  # float32
    facts: dict[str, Any]  # what is known of its training


def read_model_file(path: Path) -> ModelFile:
    """A released model.

    Raises UserError: missing, truncated, another kind of file, or weights that do not fit its config.
    """
    check_file(path)
    try:
        content = path.read_bytes()
        tensors = safetensors.deserialize(content)
    except (safetensors.SafetensorError, OSError) as err:
        raise UserError(f"{path}: damaged or not a safetensors file ({err}); copy or make it "
                        "again") from None
    header = _metadata(content)
    if header.get("format") != RELEASE_FORMAT:
        raise UserError(f"{path}: not a model released by this project; make one with release.py")
    version = header.get("version")
    if version != str(RELEASE_VERSION):
        raise UserError(f"{path}: not a model released by this project in a format that this version "
                        f"reads ({version}, not {RELEASE_VERSION}); update Backline, or make one with "
                        "release.py")
    settings, vocabulary_data, facts = (_json_object(header, key, path)
                                        for key in ("model_config", "vocabulary", "facts"))
    config, vocabulary = read_config(settings, vocabulary_data, path)
    weights = {name: _as_float32(tensor, path) for name, tensor in tensors}
    shapes = {name: array.shape for name, array in weights.items()}
    if shapes != weight_shapes(config):
        raise UserError(f"{path}: its weights do not fit its model config; the file is damaged")
    return ModelFile(config, vocabulary, weights, facts)


def read_config(
    settings: dict[str, Any],
    vocabulary_data: dict[str, Any],
    path: Path,
) -> tuple[ModelConfig, Vocabulary]:
    """The config and the vocabulary that a model's file holds as JSON data.

    Raises UserError if they do not fit each other.
    """
    vocabulary = load_vocabulary(vocabulary_data)
    config = ModelConfig.from_dict(settings, vocabulary, f"{path}: model_config")
    if config.n_tokens != vocabulary.sizes:
        raise UserError(f"{path}: its model has {list(config.n_tokens)} ids per family, its "
                        f"vocabulary {list(vocabulary.sizes)}; the file is damaged")
    return config, vocabulary


def split_header(content: bytes) -> tuple[dict[str, Any], bytes]:
    """The header of a `.safetensors`, and the bytes of its tensors."""
    size = int.from_bytes(content[:SIZE_BYTES], "little")
    end = SIZE_BYTES + size
    return json.loads(content[SIZE_BYTES:end]), content[end:]


def _metadata(content: bytes) -> dict[str, str]:
    header, _ = split_header(content)
    return header.get("__metadata__") or {}


def _json_object(header: dict[str, str], key: str, path: Path) -> dict[str, Any]:
    """Data that the header holds as JSON. Raises UserError if it is no object."""
    try:
        data = json.loads(header[key])
    except (KeyError, json.JSONDecodeError):
        data = None
    if not isinstance(data, dict):
        raise UserError(f"{path}: its header is damaged; copy or make it again")
    return data


def _as_float32(tensor: dict[str, Any], path: Path) -> np.ndarray:
    """An array of one tensor. Raises UserError about a type that no release has."""
    data = tensor["data"]
    shape = tensor["shape"]
    if tensor["dtype"] == "BF16":
        upper = np.frombuffer(data, np.uint16).astype(np.uint32)
        return (upper << HALF_OF_FLOAT32).view(np.float32).reshape(shape)
    if tensor["dtype"] in ("F32", "F16"):
        dtype = np.float32 if tensor["dtype"] == "F32" else np.float16
        return np.frombuffer(data, dtype).astype(np.float32).reshape(shape)
    raise UserError(f"{path}: its weights are of the type {tensor['dtype']}; make the file again "
                    "with release.py")


def write_fact(path: Path, name: str, value: Any) -> None:
    """Add a fact to what a released model says of its training, in place of an older one.

    Its tensors keep their bytes. The file is one that `read_model_file` reads.
    """
    header, tensors = split_header(path.read_bytes())
    metadata = header["__metadata__"]
    facts = json.loads(metadata["facts"])
    metadata["facts"] = json.dumps({**facts, name: value})
    write_bytes(path, _joined(header, tensors))


def in_order(content: bytes) -> bytes:
    """The content of a `.safetensors` with its metadata in order: the library writes them in a random one."""
    header, tensors = split_header(content)
    metadata = header["__metadata__"]
    return _joined({**header, "__metadata__": dict(sorted(metadata.items()))}, tensors)


def _joined(header: dict[str, Any], tensors: bytes) -> bytes:
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)  # tensors begin at a multiple of eight
    return len(text).to_bytes(SIZE_BYTES, "little") + text + tensors


def held_out_names(metadata: dict[str, Any]) -> list[str]:
    """Names of the songs a model was not trained on; empty where its file does not say.

    `metadata`: what the file says of the training; a checkpoint says it under "facts".
    """
    of_checkpoint = metadata.get("facts", {})
    return metadata.get("held_out_songs") or of_checkpoint.get("held_out_songs") or []
