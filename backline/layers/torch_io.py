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
    """`torch.load` of tensors and plain data. Code in the file never runs.

    Args:
        mmap: leave tensors in the file, mapped into memory, where its format lets one.
        content: the bytes that were compressed in the file; None: the file's own.
    Raises:
        UserError: the file holds anything else, is damaged or not there.
    """
    check_file(path)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torch warns of pickles that are refused below in any case
            source = path if content is None else io.BytesIO(content)
            return torch.load(source, map_location="cpu", weights_only=True, mmap=mmap and content is None)
    except pickle.UnpicklingError as err:
        first = _first_byte(path) if content is None else content[:1]
        is_pickle = "Unsupported operand" in str(err) and first == pickle.PROTO
        if "GLOBAL" in str(err) or is_pickle:
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
    """The device called `name`; "auto" is the first there is of cuda, mps and cpu.

    Raises UserError if it is not there.
    """
    kinds = ["cpu"]
    if torch.backends.mps.is_available():
        kinds.insert(0, "mps")
    if torch.cuda.is_available():
        kinds.insert(0, "cuda")
    if name == "auto":
        return torch.device(kinds[0])
    try:
        device = torch.device(name)
    except RuntimeError:
        raise UserError(f"unknown device {name!r}; give auto, cuda, mps or cpu") from None
    is_beyond = device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count()
    if is_beyond or device.type not in kinds:
        raise UserError(f"device {name!r} is not there; this machine has {', '.join(kinds)}")
    return device
