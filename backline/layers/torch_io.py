"""What a command asks of torch first: the device to compute on, and files that hold tensors and plain data."""

from __future__ import annotations

import io
import pickle
import struct
import warnings
from pathlib import Path
from typing import Any

import safetensors
import torch

from backline.common.errors import UserError
from backline.common.files import check_file


def load_plain(path: Path, mmap: bool = False, content: bytes | None = None) -> Any:
    """`torch.load` of tensors and plain data. Raises UserError for anything else; code in the file never runs.

    `content`: the bytes that were compressed in the file; None: the file's own.
    """
    check_file(path)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of torch's about pickles that are refused below in any case
            source = path if content is None else io.BytesIO(content)
            return torch.load(source, map_location="cpu", weights_only=True, mmap=mmap and content is None)
    except pickle.UnpicklingError as err:
        first = _first_byte(path) if content is None else content[:1]
        if "GLOBAL" in str(err) or ("Unsupported operand" in str(err) and first == pickle.PROTO):
            raise UserError(f"{path}: holds more than tensors and plain data, so it is not loaded "
                            f"(it could run code); use a file this project wrote, or make one of a published "
                            f"checkpoint with import_published.py") from None
        raise UserError(f"{path}: damaged or not a PyTorch file; copy or make it again") from None
    except (RuntimeError, EOFError, ValueError, KeyError, IndexError, TypeError, AttributeError, ImportError,
            UnicodeDecodeError, OSError, AssertionError, struct.error, safetensors.SafetensorError) as err:
        if mmap and "mmap" in str(err):
            return load_plain(path)  # a file in PyTorch's older format
        raise UserError(f"{path}: damaged or not a PyTorch file; copy or make it again") from None


def _first_byte(path: Path) -> bytes:
    with open(path, "rb") as file:
        return file.read(1)


def pick_device(name: str) -> torch.device:
    """The device called `name`; "auto" is the first there is of cuda, mps and cpu. Raises UserError if it is absent."""
    available = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available(), "cpu": True}
    if name == "auto":
        return torch.device(next(kind for kind, there in available.items() if there))
    try:
        device = torch.device(name)
    except RuntimeError:
        raise UserError(f"unknown device {name!r}; give auto, cuda, mps or cpu") from None
    beyond = device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count()
    if beyond or not available.get(device.type, False):
        raise UserError(f"device {name!r} is not there; this machine has "
                        f"{', '.join(kind for kind, there in available.items() if there)}")
    return device
