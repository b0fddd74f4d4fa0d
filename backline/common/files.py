"""Files and folders: reading, and writing so that a killed run leaves no half file."""

from __future__ import annotations

import contextlib
import functools
import hashlib
import json
import math
import os
import secrets
import tempfile
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, BinaryIO

from backline.common.errors import UserError

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]  # the hints know no system without it

CHECKPOINTS = ("best.pth", "last.pth")  # in a training run's folder; the one to take first


@contextlib.contextmanager
def replacing(path: Path,
              durable: bool = False,
              make_parents: bool = True) -> Iterator[BinaryIO]:
    """Open a temporary file beside `path`, and rename it into place when the block ends well.

    A run that is killed, or a disk that fills, leaves the old file as it was, and at most the
    temporary file. Of several processes that write `path`, each has a temporary file of its own.
    `durable` files survive a power cut too, at the cost of waiting for the disk.
    """
    path = Path(path)
    if make_parents:
        make_folder(path.parent)
    # A hash of the name, since a long name must not become too long.
    name = os.fsencode(path.name)
    mark = hashlib.blake2b(name, digest_size=8).hexdigest()
    start = path.with_name(f".{mark}")
    try:
        with _temporary_file(start) as file:
            yield file
            if durable:
                file.flush()
                os.fsync(file.fileno())
            file.close()
            Path(file.name).replace(path)
    except OSError as err:
        # A full disk's error has no name, or a temporary one.
        if err.filename is None or str(err.filename).startswith(str(start)):
            raise OSError(err.errno, err.strerror, str(path)) from err
        raise


@contextlib.contextmanager
def _temporary_file(start: Path) -> Iterator[BinaryIO]:
    """Open a file that no other process writes, with a name that begins like `start`.

    The name is mostly the same, so that the next try replaces what a killed run left. If the block
    fails, the file is deleted.
    """
    path = start.with_name(f"{start.name}.part")
    lock = _lock(path)
    opener = None
    if lock is None:
        path = start.with_name(f"{start.name}-{secrets.token_hex(4)}.part")
    else:
        # Network drives let nobody write past a lock: through the same descriptor, then.
        opener = functools.partial(_copy_of, lock)
    try:
        with open(path, "wb", opener=opener) as file:
            yield file
    except BaseException:
        with contextlib.suppress(OSError):
            path.unlink()
        raise
    finally:
        if lock is not None:
            os.close(lock)


def _copy_of(descriptor: int, *_: object) -> int:
    return os.dup(descriptor)


def _lock(path: Path) -> int | None:
    """Make an empty file and lock it until all descriptors like the returned one are closed.

    A kill closes them too. Returns None if another process has it locked, or without locks.
    """
    if fcntl is None:
        return None
    lock = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
    is_ours = False
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        # Whoever had it locked may have renamed it since it was opened.
        is_ours = _is_open_at(lock, path)
    except BlockingIOError:
        pass
    except OSError:  # a file system without locks: nobody writes under this name there
        path.unlink(missing_ok=True)
    if is_ours:
        if os.fstat(lock).st_size:
            os.ftruncate(lock, 0)  # what a killed run left
        return lock
    os.close(lock)
    return None


def _is_open_at(descriptor: int, path: Path) -> bool:
    try:
        return os.path.samestat(path.stat(), os.fstat(descriptor))
    except FileNotFoundError:
        return False


def write_bytes(path: Path, data: bytes, make_parents: bool = True) -> None:
    """Write `data` to `path`, all of it or nothing."""
    with replacing(path, make_parents=make_parents) as file:
        file.write(data)


def write_new_file(path: Path, data: bytes) -> bool:
    """Write `data` to `path`, all of it or nothing; False if a file stands there, which stays."""
    make_folder(path.parent)
    with _temporary_file(path.with_name(f".{path.name}")) as file:
        file.write(data)
        file.close()
        part = Path(file.name)
        try:
            put_new(part, path)
        except FileExistsError:
            return False
        finally:
            part.unlink(missing_ok=True)
    return True


def put_new(part: Path, place: Path) -> None:
    """Give a finished file the name `place`. Raises FileExistsError if that is taken."""
    try:
        os.link(part, place)
    except FileExistsError:
        raise
    except OSError:  # a file system without hard links
        os.close(os.open(place, os.O_WRONLY | os.O_CREAT | os.O_EXCL))
        try:
            part.replace(place)
        except BaseException:
            place.unlink()
            raise


def json_bytes(data: Any) -> bytes:
    """`data` as JSON.

    Characters that are not valid Unicode, as in an undecodable file name, become `?`.
    """
    import orjson  # not at the top: training needs none of it

    try:
        return orjson.dumps(data)
    except TypeError:  # orjson refuses such text
        return json.dumps(data, ensure_ascii=False).encode("utf-8", "replace")


def make_folder(folder: Path) -> None:
    """Create `folder` and its parents. Raises UserError where that cannot be."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except (FileExistsError, NotADirectoryError):
        raise UserError(f"{folder}: a file stands where a folder is needed; give another "
                        f"path") from None
    except OSError as err:
        raise UserError(f"{folder}: cannot make this folder ({err.strerror}); give one you can "
                        f"write to") from None


def check_writable(folder: Path) -> None:
    """Make sure, before slow work begins, that files can be written into `folder`.

    Raises UserError naming the folder.
    """
    make_folder(folder)
    try:
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as err:
        raise UserError(f"{folder}: cannot write here ({err.strerror}); give a folder you can "
                        f"write to") from None


def check_new(paths: Iterable[Path],
              force: bool,
              inputs: Iterable[Path] = ()) -> None:
    """Raise UserError if one of `paths` exists, unless `force` is set, or is one of `inputs`."""
    read = {path.resolve() for path in inputs}
    for path in paths:
        if path.resolve() in read:
            raise UserError(f"{path} would replace the file it is made of; give another place for "
                            f"the output")
        if path.is_dir():
            raise UserError(f"{path}: a folder, where a file is to be written; give a file's name")
        if path.exists() and not force:
            raise UserError(f"{path} exists already; give another place, or --force to overwrite")


def check_file(path: Path) -> None:
    """Raise UserError unless `path` is a file."""
    if path.is_dir():
        checkpoints = [path / name for name in CHECKPOINTS]
        inside = next(filter(Path.is_file, checkpoints), "a file in it")
        raise UserError(f"{path}: a folder, where a file is needed; give {inside}")
    if not path.is_file():
        raise UserError(f"{path}: no such file; check the path")


def size_and_mtime(path: str | Path) -> tuple[int, int]:
    """Bytes of a file, and when it was last changed, in nanoseconds.

    Raises UserError if it is not there.
    """
    try:
        stat = Path(path).stat()
    except OSError as err:
        raise UserError(f"{path}: cannot be read ({err.strerror}); check the disk and your "
                        f"permissions") from None
    return stat.st_size, stat.st_mtime_ns


def read_input(path: Path, largest: int | None = None) -> bytes:
    """The bytes of a file the user named.

    Raises UserError if it is missing, a folder, unreadable or, without reading it, larger than
    `largest` bytes.
    """
    try:
        with open(path, "rb", buffering=0) as file:
            size = os.fstat(file.fileno()).st_size
            if largest is not None and size > largest:
                raise UserError(f"{path}: {size >> 20} MB, larger than such a file can be "
                                f"({largest >> 20} MB); give another")
            return file.read()
    except FileNotFoundError:
        raise UserError(f"{path}: no such file; check the path") from None
    except IsADirectoryError:
        raise UserError(f"{path}: a folder, where a file is needed; give a file in it") from None
    except OSError as err:
        raise UserError(f"{path}: cannot be read ({err.strerror}); check the disk and your "
                        f"permissions") from None


def strict_json(data: bytes) -> Any:
    """Parse JSON text with the standard library, and refuse what it accepts beyond JSON.

    It accepts what orjson does, which serves for files of a million numbers. Raises ValueError.
    """
    value = json.loads(data.decode(),
                       parse_constant=_finite,
                       parse_float=_finite,
                       parse_int=_whole)
    json.dumps(value, ensure_ascii=False).encode()  # half of a surrogate pair is no text
    return value


def _finite(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):
        raise ValueError(f"{text[:20]} is not a finite number")
    return number


def _whole(text: str) -> int | float:
    number = int(text)
    return number if -2**63 <= number < 2**64 else _finite(text)


def read_json_object(path: Path, loads: Callable[[bytes], Any] = strict_json) -> dict[str, Any]:
    """Parse a JSON file that holds one object. Raises UserError naming the file and the place.

    `loads`: what parses it, and raises ValueError.
    """
    try:
        data = loads(read_input(path))
    except (ValueError, RecursionError) as err:  # the latter: brackets in thousands of brackets
        raise UserError(f"{path}: not valid JSON ({err}); correct the place, or make the file again") from None
    if not isinstance(data, dict):
        raise UserError(f"{path}: holds a JSON {type(data).__name__}, where an object {{...}} is "
                        f"needed; give another file")
    return data


def file_hash(path: Path) -> str:
    """SHA-256 of a file, as hexadecimal digits."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
