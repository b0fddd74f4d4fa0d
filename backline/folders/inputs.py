"""Which files a folder run reads, in which order, and where what it makes of each goes.

Memory grows with the largest single folder, not with the corpus: a million songs are listed as they are needed, in
the same order every time.
"""

from __future__ import annotations

import dataclasses
import hashlib
import os
import re
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from backline.common.errors import UserError

PIECE = re.compile(r"\.part\d+$", re.IGNORECASE)


class Task(NamedTuple):
    """One input of a run, and the file to make of it. `name` is the output relative to its folder, with `/`."""

    source: str
    output: str
    name: str


@dataclasses.dataclass(frozen=True)
class Shard:
    """One machine's part of a run: every `of`-th input or so, by its output's name, so that new ones move no other."""

    number: int = 1
    of: int = 1

    @classmethod
    def parse(cls, text: str) -> Shard:
        """Read "3/16". Raises UserError for anything else."""
        number, _, of = text.partition("/")
        if not (number.isdecimal() and of.isdecimal() and 1 <= int(number) <= int(of)):
            raise UserError(f"--shard {text}: must be NUMBER/OF with NUMBER from 1 to OF, such as 3/16")
        return cls(int(number), int(of))

    def has(self, task: Task) -> bool:
        return self.of == 1 or mark(task.name) % self.of == self.number - 1

    def of_tasks(self, tasks: Iterable[Task]) -> Iterator[Task]:
        return filter(self.has, tasks)


WHOLE = Shard()


class Listing:
    """Files named, and files with one of `suffixes` (any letter case) in folders named, searched recursively.

    Iterating gives a `Task` for each: a folder's files in the order of their names, then its sub-folders; folders
    given together are read as if they were one; each file comes once. A file that the user named himself counts
    whatever its suffix. Hidden files do not count, nor what an earlier run left in the folder `output`, where that
    lies below a folder named.

    Outputs keep the sub-folder and get the suffix `new_suffix`; see `distinct_stems`.
    """

    def __init__(self, inputs: Sequence[Path], suffixes: Sequence[str], output: Path, new_suffix: str,
                 keep_pieces_free: bool = False) -> None:
        """`keep_pieces_free`: no output ends in `.part2` or the like, see `distinct_stems`.

        Raises UserError for an input that does not exist, or a folder without any such file."""
        self.suffixes, self.output, self.new_suffix = tuple(suffixes), output, new_suffix
        self.keep_pieces_free = keep_pieces_free
        self._output = output.resolve()
        self.folders: list[Path] = []
        self.files: list[Path] = []
        for given in map(Path, inputs):
            if given.is_dir():
                self._add_folder(given)
            elif given.exists():
                self.files.append(given)
            else:
                raise UserError(f"{given}: no such file or folder; check the path")
        by_place = {path.resolve(): path for path in reversed(self.files)}
        self.files = [path for place, path in reversed(by_place.items()) if not self._in_folder(place)]
        for folder in self.folders:
            if next(_visit([str(folder)], [], self._counts, self._is_output), None) is None:
                raise UserError(f"{folder}: no {', '.join(suffixes)} file in this folder or below it; check the path")

    def __iter__(self) -> Iterator[Task]:
        for sub_folder, sources in _visit(list(map(str, self.folders)), list(map(str, self.files)), self._counts,
                                          self._is_output):
            for source, stem in zip(sources, distinct_stems(sources, self.keep_pieces_free), strict=True):
                name = f"{sub_folder}{stem}{self.new_suffix}"
                yield Task(source, os.path.join(self.output, name), name)

    def holds(self, path: Path) -> bool:
        """Whether `path` is one of the inputs."""
        place, target = path.parent.resolve() / path.name, path.resolve()  # a link is an input of its own
        return self._in_folder(place) or self._in_folder(target) or any(target == given.resolve()
                                                                        for given in self.files)

    def _add_folder(self, folder: Path) -> None:
        """Keep the outermost of folders that lie in one another, so that each file comes once."""
        if not any(folder.resolve().is_relative_to(other.resolve()) for other in self.folders):
            self.folders = [each for each in self.folders if not each.resolve().is_relative_to(folder.resolve())]
            self.folders.append(folder)

    def _in_folder(self, place: Path) -> bool:
        for folder in (each.resolve() for each in self.folders):
            if place.is_relative_to(folder):
                earlier_output = self._output != folder and place.is_relative_to(self._output)
                return self._counts(place.name) and not earlier_output
        return False

    def _counts(self, name: str) -> bool:
        return name.lower().endswith(self.suffixes) and not name.startswith(".")  # "._x.mid" of macOS archives

    def _is_output(self, folder: str) -> bool:
        return os.path.basename(folder) == self._output.name and Path(folder).resolve() == self._output


def _visit(folders: Sequence[str], files: list[str], counts: Callable[[str], bool], skipped: Callable[[str], bool],
           sub_folder: str = "") -> Iterator[tuple[str, list[str]]]:
    """(sub-folder with a `/` at its end, paths of its files), for each that has any."""
    below: dict[str, list[tuple[str, str]]] = defaultdict(list)
    paths = list(files)
    for folder in folders:
        with os.scandir(folder) as entries:
            for entry in entries:
                if entry.is_dir(follow_symlinks=False):  # a link may lead in a circle
                    if not skipped(entry.path):
                        below[entry.name.casefold()].append((entry.name, entry.path))
                elif counts(entry.name) and entry.is_file():
                    paths.append(entry.path)
    paths.sort(key=os.path.basename)  # stable: files of one name stay in the order of the folders given
    if paths:
        yield sub_folder, paths
    del paths
    for key in sorted(below):
        same = sorted(below[key])
        yield from _visit([path for _, path in same], [], counts, skipped, f"{sub_folder}{same[0][0]}/")


def distinct_stems(paths: Sequence[str], keep_pieces_free: bool = False) -> Iterator[str]:
    """The files' names without their suffixes, no two alike.

    Those that would fall together (`a.mid` beside `a.MID`) get `-2`, `-3`, … in their order; letter case does not
    tell files apart on every system, so it does not here. With `keep_pieces_free` so do names that end as the pieces
    of a song that is cut into several, `.part2` and so on.
    """
    marks = np.fromiter(map(mark, map(_stem, paths)), np.uint64, len(paths))
    values, counts = np.unique(marks, return_counts=True)
    repeated = set(values[counts > 1].tolist())
    taken: set[int] = set()

    def is_free(candidate: str, number: int) -> bool:
        return not (mark(candidate) in taken or (number > 1 and np.isin(np.uint64(mark(candidate)), values))
                    or (keep_pieces_free and PIECE.search(candidate)))

    for path, own in zip(paths, marks, strict=True):
        stem = candidate = _stem(path)
        if int(own) in repeated or (keep_pieces_free and PIECE.search(stem)):
            number = 1
            while not is_free(candidate, number):
                number += 1
                candidate = f"{stem}-{number}"
            taken.add(mark(candidate))
        yield candidate


def of_piece(path: str, k: int) -> str:
    """Path of the k-th piece, from 0, of what is made of one input."""
    stem, suffix = os.path.splitext(path)
    return f"{stem}.part{k + 1}{suffix}" if k else path


def whole_of_piece(name: str) -> str:
    """The name, without suffix, of the song that `name` is a piece of."""
    return PIECE.sub("", name)


def _stem(path: str) -> str:
    return os.path.splitext(os.path.basename(path))[0]


def mark(stem: str) -> int:
    """Eight bytes that stand for a name: a million names are compared in little memory."""
    name = stem.casefold().encode("utf-8", "surrogateescape")
    return int.from_bytes(hashlib.blake2b(name, digest_size=8).digest(), "big")
