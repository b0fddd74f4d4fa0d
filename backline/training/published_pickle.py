"""Read checkpoints of the published program: whole pickled models, of which nothing is ever run.

A pickle is a program: it names functions and classes and has them called. Here each name that a
published checkpoint uses stands for an inert placeholder, which keeps its arguments; any other name
is refused. Only then is the result searched for tensors, each cut out of the archive under our own
checks. torch takes no part.

import_published.py alone imports this. It is a file of its own because it can be audited alone:
whether a file can run code is decided here and nowhere else.
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
from typing import Any, NamedTuple

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
# A file beyond these is made to exhaust memory or the stack; the reference model needs at most half.
LARGEST_PICKLE = 1 << 22  # bytes, tensors not counted
MOST_TUPLES = 20_000  # nested ones are hashed recursively, in C
DEEPEST = 16  # levels of modules
LONGEST_NAME = 100
FORGED = "no published checkpoint is like that; give the file as it was published"


class Placeholder:
    """Stands for an object that the pickle would have made.

    made_by: the name of the class or function that would have made it.
    arguments: what that would have been called with.
    state: what the object would have been filled with.
    """

    __slots__ = ("arguments", "state")
    made_by = ""
    arguments: tuple[Any, ...]
    state: Any

    def __new__(cls, *arguments: Any, **_: Any) -> Placeholder:
        self = super().__new__(cls)
        self.arguments = arguments
        self.state = None
        return self

    def __setstate__(self, state: Any) -> None:
        self.state = state

    def attributes(self) -> dict[Any, Any]:
        """The state if it is a dictionary, as a module's is; else nothing."""
        return self.state if isinstance(self.state, dict) else {}


class Storage(Placeholder):
    """A tensor's numbers, elsewhere in the archive; its arguments, not yet checked, say where."""

    __slots__ = ()


class Dictionary(dict):
    """Stands for an OrderedDict; a pickle cannot give it attributes."""

    __slots__ = ()

    def __setstate__(self, state: Any) -> None:
        pass


class InertUnpickler(pickle.Unpickler):
    """Makes placeholders, plain containers and plain values; nothing else."""

    def __init__(self, data: bytes) -> None:
        super().__init__(io.BytesIO(data))
        self.stand_ins: dict[tuple[str, str], type] = {}
        for module, names in NAMES.items():
            for name in names:
                attributes = {"__slots__": (), "made_by": f"{module}.{name}"}
                self.stand_ins[module, name] = type("Placeholder", (Placeholder,), attributes)
        self.stand_ins["collections", "OrderedDict"] = Dictionary

    def find_class(self, module: str, name: str) -> type:
        """The placeholder for a name. Raises UserError for one that is not in NAMES."""
        if (module, name) not in self.stand_ins:
            raise UserError(f"names {shown(f'{module}.{name}')}, which no published checkpoint does, "
                            f"so it is not imported (it could run code); give the file as it was "
                            f"published")
        return self.stand_ins[module, name]

    def persistent_load(self, pid: Any) -> Placeholder:
        """A tensor's numbers, which torch keeps outside of the pickle."""
        return Storage(*pid) if isinstance(pid, tuple) else Storage()


def read_published(path: Path) -> tuple[dict[str, Placeholder], dict[str, np.ndarray]]:
    """The modules and the float32 tensors of a published checkpoint, by `state_dict` name.

    Raises:
        UserError: a file of another kind, a damaged or a forged one. The message does not name the
            file; the caller does.
    """
    contents = unpack(path)
    if contents.get("byteorder", b"little") != b"little":
        raise UserError("written on a big-endian machine, which is not supported; save it again on "
                        "another")
    root = unpickle(contents["data.pkl"])
    if not isinstance(root, Placeholder) or root.made_by != ROOT_CLASS:
        raise UserError(f"holds no pickled {ROOT_CLASS}; give a .pth of the published program "
                        f"(this project's own need no import)")
    names: dict[Placeholder, str] = {}
    records = dict(collect(root, "", names))
    modules = {name: module for module, name in names.items()}
    tensors = {name: read_tensor(contents, name, record) for name, record in records.items()}
    return modules, tensors


def unpack(path: Path) -> dict[str, bytes]:
    """The contents of the archive `path`, by name within its folder.

    These are the pickle, `data.pkl`, and the storages, `data/0`, `data/1`, …
    """
    try:
        with zipfile.ZipFile(path) as archive:
            entries = archive.infolist()
            _check_sizes(entries, path.stat().st_size)
            pickles = [entry.filename for entry in entries if entry.filename.endswith("/data.pkl")]
            if len(pickles) != 1:
                raise UserError("an archive, but not of one pickled model; give a .pth of the "
                                "published program")
            folder = pickles[0].removesuffix("data.pkl")
            return {entry.filename.removeprefix(folder): archive.read(entry)
                    for entry in entries if entry.filename.startswith(folder)}
    except (zipfile.BadZipFile, EOFError, RuntimeError, ValueError, OverflowError, struct.error):
        raise UserError("damaged, or not the archive that torch.save makes since PyTorch 1.6; copy "
                        "or download it again") from None
    except OSError as err:
        raise UserError(f"cannot be read ({err.strerror}); check the disk and your "
                        f"permissions") from None


def _check_sizes(entries: list[zipfile.ZipInfo], file_size: int) -> None:
    """Raise UserError for entries that together claim to be more than the whole file.

    torch.save compresses nothing, so a compressed file is forged too.
    """
    is_stored = all(entry.compress_type == zipfile.ZIP_STORED
                    and entry.compress_size == entry.file_size for entry in entries)
    if not is_stored or sum(entry.file_size for entry in entries) > file_size:
        raise UserError(f"its archive is compressed, or its parts overlap; {FORGED}")


def unpickle(data: bytes) -> Any:
    """The root of a pickle, made of placeholders. Raises UserError if it is damaged or forged."""
    try:
        check_operations(data)
        return InertUnpickler(data).load()
    except (pickle.UnpicklingError, EOFError, AttributeError, TypeError, LookupError, ValueError,
            OverflowError, RecursionError, MemoryError):
        raise UserError(f"its pickle is damaged; {FORGED}") from None


def check_operations(data: bytes) -> None:
    """Raise UserError for operations that take much memory or stack, or names from a registry."""
    if len(data) > LARGEST_PICKLE:
        raise UserError(f"its pickle has {len(data) >> 20} MB without the tensors; {FORGED}")
    n_tuples = 0
    for operation, argument, _ in pickletools.genops(data):
        n_tuples += "TUPLE" in operation.name
        # The memo is an array with as many places as its largest index says. PUT has an index,
        # which pickletools' hints do not know.
        is_large_memo = "PUT" in operation.name and argument > len(data)  # type: ignore[operator]
        is_registry = operation.name.startswith("EXT")
        if is_large_memo or is_registry or n_tuples > MOST_TUPLES:
            raise UserError(f"its pickle misuses the operation {operation.name}; {FORGED}")


def collect(module: Any, path: str, names: dict[Placeholder, str]) -> Iterator[tuple[str, Any]]:
    """Names and records of the tensors in a module and below it.

    Args:
        path: the module's name and a dot; "" for the root.
        names: of all modules met so far, to which those met now are added.
    """
    if not isinstance(module, Placeholder) or module in names or path.count(".") > DEEPEST:
        raise UserError(f"{shown(path)} is no module, or one met before; {FORGED}")
    names[module] = path.removesuffix(".")
    for kind in ("_parameters", "_buffers", "_modules"):
        children = module.attributes().get(kind)
        if not isinstance(children, dict):
            continue
        for name, value in children.items():
            if not isinstance(name, str) or len(name) > LONGEST_NAME:
                raise UserError(f"{shown(path)} has a part without a proper name; {FORGED}")
            if value is None:  # such as the bias of a layer that has none
                continue
            if kind == "_modules":
                yield from collect(value, f"{path}{name}.", names)
            else:
                yield path + name, value


def read_tensor(contents: dict[str, bytes], name: str, record: Any) -> np.ndarray:
    """The array that the functions named in `record` would have rebuilt.

    It must be as plain as in published checkpoints: float32, contiguous, in a storage of its own.
    That storage is taken out of `contents`, so that all tensors together are no larger than the
    file.
    """
    place = _place(record)
    if place is None:
        raise UserError(f"{shown(name)} is no contiguous float32 tensor; {FORGED}")
    data = contents.pop(f"data/{place.key}", b"")
    n_numbers = math.prod(place.size)
    if len(data) != 4 * place.length or place.offset + n_numbers > place.length:
        raise UserError(f"the numbers of {shown(name)} are missing, too few, or another tensor's; "
                        f"{FORGED}")
    numbers = np.frombuffer(data, "<f4", n_numbers, offset=4 * place.offset)
    array = numbers.reshape(place.size).astype(np.float32)
    if not np.isfinite(array).all():
        raise UserError(f"{shown(name)} holds numbers that are not finite; copy or download the "
                        f"file again")
    return array


class Place(NamedTuple):
    """Where a tensor's numbers are, checked."""

    key: str  # of the storage in the archive
    length: int  # of the storage, in numbers
    offset: int  # of the tensor in its storage, in numbers
    size: tuple[int, ...]  # of the tensor


def _place(record: Any) -> Place | None:
    """Where the numbers of a plain tensor are; None unless `record` is that of one."""
    try:
        if record.made_by == "torch._utils._rebuild_parameter":
            record = record.arguments[0]
        storage, offset, size, stride = record.arguments[:4]
        kind, element, key, _, length = storage.arguments
        is_float_tensor = (record.made_by == "torch._utils._rebuild_tensor_v2"
                           and isinstance(storage, Storage)
                           and kind == "storage"
                           and element.made_by == "torch.FloatStorage"
                           and isinstance(key, str))
        has_shape = (isinstance(size, tuple)
                     and isinstance(stride, tuple)
                     and len(size) == len(stride) <= 4
                     and all(type(number) is int and number >= 0
                             for number in (offset, *size, *stride, length)))
        if is_float_tensor and has_shape and math.prod(size) > 0 and _is_contiguous(size, stride):
            return Place(key, length, offset, size)
    except (AttributeError, IndexError, TypeError, ValueError):
        pass  # a record of another form
    return None


def _is_contiguous(size: tuple[int, ...], stride: tuple[int, ...]) -> bool:
    """Whether numbers lie as densely as they can; the stride of a dimension of 1 says nothing."""
    dense = [math.prod(size[i + 1:]) for i in range(len(size))]
    return all(n == 1 or step == wanted
               for n, step, wanted in zip(size, stride, dense, strict=True))


def shown(name: str) -> str:
    """A name out of a file, short and on one line."""
    short = name[:LONGEST_NAME]
    return short if name.isascii() and name.isprintable() else ascii(short)
