"""Checkpoints of the published program, read as data: whole pickled models, of which nothing is ever run.

A pickle is a program: it names functions and classes, and has them called. Here each name that a published checkpoint
holds stands for an inert placeholder, which keeps what it is given; any other name is refused. What comes out is
looked through only then, and every tensor is cut out of the archive under checks of our own: torch takes no part.
"""

from __future__ import annotations

import io
import math
import pickle
import pickletools
import struct
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from backline.common.errors import UserError

NAMES = {  # by module: all that a published checkpoint's pickle names
    "musictransformer": ("MusicTransformer3", "MusicTransformerWrapper3", "PositionalEncoding"),
    "x_transformers.x_transformers": ("Decoder", "Attention", "FeedForward", "Residual"),
    "x_transformers.attend": ("Attend", "EfficientAttentionConfig", "create_causal_mask"),
    "torch.nn.modules.sparse": ("Embedding",),
    "torch.nn.modules.linear": ("Linear", "Identity"),
    "torch.nn.modules.normalization": ("LayerNorm",),
    "torch.nn.modules.dropout": ("Dropout",),
    "torch.nn.modules.activation": ("GELU",),
    "torch.nn.modules.container": ("ModuleList", "Sequential"),
    "torch.nn.modules.loss": ("CrossEntropyLoss",),
    "torch.nn.functional": ("softmax",),
    "torch._utils": ("_rebuild_tensor_v2", "_rebuild_parameter"),
    "torch": ("FloatStorage", "float32"),
    "collections": ("OrderedDict",),
    "functools": ("partial",),
    "numpy": ("dtype",),
    "numpy.core.multiarray": ("scalar",),
    "numpy._core.multiarray": ("scalar",),  # its name since NumPy 2
    "_codecs": ("encode",),
    "builtins": ("set",),
    "__builtin__": ("set",),  # its name in the pickle protocol of torch.save
}
ROOT_CLASS = "musictransformer.MusicTransformer3"
# Beyond these a file is made to exhaust memory or the stack; the reference model's needs at most half of each.
LARGEST_PICKLE = 1 << 22  # bytes, tensors not counted
MOST_TUPLES = 20_000  # one within another: they are hashed recursively, in C
DEEPEST = 16  # modules within modules
LONGEST_NAME = 100
FORGED = "no published checkpoint is like that; give the file as it was published"


class Placeholder:
    """Stands for what the pickle would have made: the name of its maker, the maker's arguments, and its state."""

    __slots__ = ("arguments", "state")
    made_by = ""

    def __new__(cls, *arguments: Any, **_: Any) -> Placeholder:
        self = super().__new__(cls)
        self.arguments, self.state = arguments, None
        return self

    def __setstate__(self, state: Any) -> None:
        self.state = state

    def attributes(self) -> dict[Any, Any]:
        """The state where it is a dictionary, as a module's is; else nothing."""
        return self.state if isinstance(self.state, dict) else {}


class Storage(Placeholder):
    """A tensor's numbers, elsewhere in the archive; where, its arguments say, unchecked."""

    __slots__ = ()


class Dictionary(dict):
    """An OrderedDict to which a pickle cannot give attributes."""

    __slots__ = ()

    def __setstate__(self, state: Any) -> None:
        pass


class InertUnpickler(pickle.Unpickler):
    """Makes placeholders, plain containers and plain values; nothing else."""

    def __init__(self, data: bytes) -> None:
        super().__init__(io.BytesIO(data))
        self.stand_ins: dict[tuple[str, str], type] = {
            (module, name): type("Placeholder", (Placeholder,), {"__slots__": (), "made_by": f"{module}.{name}"})
            for module, names in NAMES.items() for name in names}
        self.stand_ins["collections", "OrderedDict"] = Dictionary

    def find_class(self, module: str, name: str) -> type:
        if (module, name) not in self.stand_ins:
            raise UserError(f"names {shown(f'{module}.{name}')}, which no published checkpoint does, so it is not "
                            f"imported (it could run code); give the file as it was published")
        return self.stand_ins[module, name]

    def persistent_load(self, pid: Any) -> Storage:
        return Storage(*pid) if isinstance(pid, tuple) else Storage()


def read_published(path: Path) -> tuple[dict[str, Placeholder], dict[str, np.ndarray]]:
    """The modules and the float32 tensors of a published checkpoint, by their names in PyTorch's `state_dict`.

    Raises:
        UserError: another kind of file, a damaged or a forged one; the message leaves it to the caller to name it.
    """
    contents = unpack(path)
    if contents.get("byteorder", b"little") != b"little":
        raise UserError("written on a big-endian machine, which is not supported; save it again on another")
    root = unpickle(contents["data.pkl"])
    if not isinstance(root, Placeholder) or root.made_by != ROOT_CLASS:
        raise UserError(f"holds no pickled {ROOT_CLASS}; give a .pth of the published program "
                        f"(this project's own need no import)")
    modules: dict[Placeholder, str] = {}
    records = dict(collect(root, "", modules))
    return ({name: module for module, name in modules.items()},
            {name: read_tensor(contents, name, record) for name, record in records.items()})


def unpack(path: Path) -> dict[str, bytes]:
    """What the archive `path` holds, by name within its folder: `data.pkl`, and the storages as `data/0`, …"""
    try:
        with zipfile.ZipFile(path) as archive:
            entries = archive.infolist()
            # torch.save compresses nothing; what claims to be more than the whole file is a bomb.
            if (any(entry.compress_type != zipfile.ZIP_STORED or entry.compress_size != entry.file_size
                    for entry in entries) or sum(entry.file_size for entry in entries) > path.stat().st_size):
                raise UserError(f"its archive is compressed, or its parts overlap; {FORGED}")
            folders = [entry.filename.removesuffix("data.pkl") for entry in entries
                       if entry.filename.endswith("/data.pkl")]
            if len(folders) != 1:
                raise UserError("an archive, but not of one pickled model; give a .pth of the published program")
            return {entry.filename.removeprefix(folders[0]): archive.read(entry) for entry in entries
                    if entry.filename.startswith(folders[0])}
    except (zipfile.BadZipFile, EOFError, RuntimeError, ValueError, OverflowError, struct.error):
        raise UserError("damaged, or not the archive that torch.save makes since PyTorch 1.6; copy or download it "
                        "again") from None
    except OSError as err:
        raise UserError(f"cannot be read ({err.strerror}); check the disk and your permissions") from None


def unpickle(data: bytes) -> Any:
    try:
        check_operations(data)
        return InertUnpickler(data).load()
    except (pickle.UnpicklingError, EOFError, AttributeError, TypeError, LookupError, ValueError, OverflowError,
            RecursionError, MemoryError):
        raise UserError(f"its pickle is damaged; {FORGED}") from None


def check_operations(data: bytes) -> None:
    """Raise UserError for operations that take memory or stack out of proportion, or names from a registry."""
    if len(data) > LARGEST_PICKLE:
        raise UserError(f"its pickle has {len(data) >> 20} MB without the tensors; {FORGED}")
    tuples = 0
    for operation, argument, _ in pickletools.genops(data):
        tuples += "TUPLE" in operation.name
        beyond = "PUT" in operation.name and argument > len(data)  # the memo is an array with as many places
        if beyond or tuples > MOST_TUPLES or operation.name.startswith("EXT"):
            raise UserError(f"its pickle misuses the operation {operation.name}; {FORGED}")


def collect(module: Any, path: str, modules: dict[Placeholder, str]) -> Iterator[tuple[str, Any]]:
    """Names and records of the tensors in `module`, which is at `path`, and below; adds all modules to `modules`."""
    if not isinstance(module, Placeholder) or module in modules or path.count(".") > DEEPEST:
        raise UserError(f"{shown(path)} is no module, or one met before; {FORGED}")
    modules[module] = path.removesuffix(".")
    for kind in ("_parameters", "_buffers", "_modules"):
        found = module.attributes().get(kind)
        for name, value in found.items() if isinstance(found, dict) else ():
            if not isinstance(name, str) or len(name) > LONGEST_NAME:
                raise UserError(f"{shown(path)} has a part without a proper name; {FORGED}")
            if value is not None and kind == "_modules":
                yield from collect(value, f"{path}{name}.", modules)
            elif value is not None:  # a bias that a layer does without is None
                yield path + name, value


def read_tensor(contents: dict[str, bytes], name: str, record: Any) -> np.ndarray:
    """The array that the functions named in `record` would have rebuilt.

    It must be as plain as in published checkpoints: float32, contiguous, in a storage of its own. That storage is
    taken out of `contents`, so that all tensors together are no larger than the file.
    """
    try:
        if record.made_by == "torch._utils._rebuild_parameter":
            record = record.arguments[0]
        storage, offset, size, stride = record.arguments[:4]
        kind, element, key, _, length = storage.arguments
        plain = (record.made_by == "torch._utils._rebuild_tensor_v2" and isinstance(storage, Storage)
                 and kind == "storage" and element.made_by == "torch.FloatStorage" and isinstance(key, str)
                 and isinstance(size, tuple) and isinstance(stride, tuple) and len(size) == len(stride) <= 4
                 and all(type(number) is int and number >= 0 for number in (offset, *size, *stride, length))
                 and all(size[i] == 1 or step == math.prod(size[i + 1:]) for i, step in enumerate(stride))
                 and math.prod(size) > 0)
    except (AttributeError, IndexError, TypeError, ValueError):
        plain = False
    if not plain:
        raise UserError(f"{shown(name)} is no contiguous float32 tensor; {FORGED}")
    data = contents.pop(f"data/{key}", b"")
    if len(data) != 4 * length or offset + math.prod(size) > length:
        raise UserError(f"the numbers of {shown(name)} are missing, too few, or another tensor's; {FORGED}")
    array = np.frombuffer(data, "<f4", math.prod(size), 4 * offset).reshape(size).astype(np.float32)
    if not np.isfinite(array).all():
        raise UserError(f"{shown(name)} holds numbers that are not finite; copy or download the file again")
    return array


def shown(name: str) -> str:
    """A name out of a file, short and on one line."""
    return name[:LONGEST_NAME] if name.isascii() and name.isprintable() else ascii(name[:LONGEST_NAME])
