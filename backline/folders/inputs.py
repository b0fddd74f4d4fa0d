"""Which files a folder run reads, in which order, and where it writes what it makes of each.

Memory grows with the largest single folder, not with the corpus: a million songs are listed as they
are needed, in the same order every time.
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


class Input(NamedTuple):
    """One input file of a run, and the file to make of it."""

    source: str
    output: str
    name: str  # of the output, relative to the folder of outputs, with `/`


@dataclasses.dataclass(frozen=True)
class Shard:
    """One machine's part of a run: every `of`-th input or so.

    The name of its output decides, so that an input keeps its shard when others are added.
    """

    number: int = 1
    of: int = 1

    @classmethod
    def parse(cls, text: str) -> Shard:
        """Read "3/16". Raises UserError for anything else."""
        number, _, of = text.partition("/")
        are_numbers = number.isdecimal() and of.isdecimal()
        if not are_numbers or not 1 <= int(number) <= int(of):
            raise UserError(f"--shard {text}: must be NUMBER/OF with NUMBER from 1 to OF, such as "
                            f"3/16")
        return cls(int(number), int(of))

    def has(self, item: Input) -> bool:
        """Whether an input belongs to this shard."""
        if self.of == 1:
            return True
        return mark(item.name) % self.of == self.number - 1

    def of_inputs(self, inputs: Iterable[Input]) -> Iterator[Input]:
        """Those of `inputs` that belong to this shard."""
        return filter(self.has, inputs)


WHOLE = Shard()


class Listing:
    """Files the user named, and files with one of `suffixes` in folders named or below them.

    Iterating gives an `Input` for each, once: a folder's files in the order of their names, then
    its sub-folders. Folders given together are read as if they were one. A file that the user named
    counts whatever its suffix. Hidden files do not count, nor what an earlier run left in the
    folder `output` where that lies below a named one.

    Outputs keep the sub-folder and get the suffix `new_suffix`; see `distinct_stems`.
    """

    def __init__(self,
                 inputs: Sequence[Path],
                 suffixes: Sequence[str],
                 output: Path,
                 new_suffix: str,
                 keep_pieces_free: bool = False) -> None:
        """`keep_pieces_free`: no output ends in `.part2` or the like, see `distinct_stems`.

        Raises UserError for an input that does not exist, or a folder without any such file.
        """
        self.suffixes = tuple(suffixes)
        self.output = output
        self.new_suffix = new_suffix
        self.keep_pieces_free = keep_pieces_free
        self._output_place = output.resolve()
        self.folders: list[Path] = []
        self.files: list[Path] = []
        for given in map(Path, inputs):
            if given.is_dir():
                self._add_folder(given)
            elif given.exists():
                self.files.append(given)
            else:
                raise UserError(f"{given}: no such file or folder; check the path")
        # Of a file that was named twice the first stays.
        by_place = {path.resolve(): path for path in reversed(self.files)}
        self.files = [path
                      for place, path in reversed(by_place.items())
                      if not self._in_folder(place)]
        for folder in self.folders:
            found = _visit([str(folder)], [], self._counts, self._is_output)
            if next(found, None) is None:
                raise UserError(f"{folder}: no {', '.join(suffixes)} file in this folder or below "
                                f"it; check the path")

    def __iter__(self) -> Iterator[Input]:
        folders = [str(folder) for folder in self.folders]
        files = [str(path) for path in self.files]
        for sub_folder, sources in _visit(folders, files, self._counts, self._is_output):
            stems = distinct_stems(sources, self.keep_pieces_free)
            for source, stem in zip(sources, stems, strict=True):
                name = f"{sub_folder}{stem}{self.new_suffix}"
                yield Input(source, os.path.join(self.output, name), name)

    def holds(self, path: Path) -> bool:
        """Whether `path` is one of the inputs."""
        place = path.parent.resolve() / path.name  # a link is an input of its own
        target = path.resolve()
        if self._in_folder(place) or self._in_folder(target):
            return True
        return any(target == given.resolve() for given in self.files)

    def _add_folder(self, folder: Path) -> None:
        """Keep the outermost of folders that lie in one another, so that each file comes once."""
        place = folder.resolve()
        if any(place.is_relative_to(other.resolve()) for other in self.folders):
            return
        apart = [other
                 for other in self.folders
                 if not other.resolve().is_relative_to(place)]
        self.folders = [*apart, folder]

    def _in_folder(self, place: Path) -> bool:
        """Whether `place` is a file that a folder named gives as an input."""
        for given in self.folders:
            folder = given.resolve()
            if place.is_relative_to(folder):
                output = self._output_place
                is_output = output != folder and place.is_relative_to(output)
                return self._counts(place.name) and not is_output
        return False

    def _counts(self, name: str) -> bool:
        is_hidden = name.startswith(".")  # such as "._x.mid" of macOS archives
        return name.lower().endswith(self.suffixes) and not is_hidden

    def _is_output(self, folder: str) -> bool:
        if os.path.basename(folder) != self._output_place.name:  # resolving each would be slow
            return False
        return Path(folder).resolve() == self._output_place


def _visit(folders: Sequence[str],
           files: list[str],
           counts: Callable[[str], bool],
           skipped: Callable[[str], bool],
           sub_folder: str = "") -> Iterator[tuple[str, list[str]]]:
    """(sub-folder with a `/` at its end, paths of its files), for each sub-folder that has any."""
    below: dict[str, list[tuple[str, str]]] = defaultdict(list)
    paths = list(files)
    for folder in folders:
        with os.scandir(folder) as entries:
            for entry in entries:
                if entry.is_dir(follow_symlinks=False):  # links may form a loop
                    if not skipped(entry.path):
                        below[entry.name.casefold()].append((entry.name, entry.path))
                elif counts(entry.name) and entry.is_file():
                    paths.append(entry.path)
    paths.sort(key=os.path.basename)  # stable: files of one name stay in the order of the folders
    if paths:
        yield sub_folder, paths
    del paths  # a large folder's list would live on while those below it are visited
    for key in sorted(below):
        same_name = sorted(below[key])
        first_name = same_name[0][0]
        places = [path for _, path in same_name]
        yield from _visit(places, [], counts, skipped, f"{sub_folder}{first_name}/")


def distinct_stems(paths: Sequence[str], keep_pieces_free: bool = False) -> Iterator[str]:
    """The files' names without their suffixes, no two alike.

    Names that would collide (`a.mid` beside `a.MID`) get `-2`, `-3`, … in their order. Some systems
    ignore letter case, so it tells no files apart here. With `keep_pieces_free`, names that end as
    the pieces of a song cut into several do (`.part2` and so on) get a number, too.
    """
    marks_in_order = (mark(_stem(path)) for path in paths)
    marks = np.fromiter(marks_in_order, np.uint64, len(paths))
    values, counts = np.unique(marks, return_counts=True)
    repeated = set(values[counts > 1].tolist())
    taken: set[int] = set()

    def is_reserved(candidate: str) -> bool:
        """Whether the name may be that of a piece of another song."""
        return keep_pieces_free and bool(PIECE.search(candidate))

    def is_free(candidate: str, number: int) -> bool:
        """Whether no other file has or gets the name, which ends in `number`."""
        own = mark(candidate)
        is_others = number > 1 and np.isin(np.uint64(own), values)
        return not (own in taken or is_others or is_reserved(candidate))

    for path, own in zip(paths, marks, strict=True):
        stem = _stem(path)
        candidate = stem
        if int(own) in repeated or is_reserved(stem):
            number = 1
            while not is_free(candidate, number):
                number += 1
                candidate = f"{stem}-{number}"
            taken.add(mark(candidate))
        yield candidate


def piece_path(path: str, k: int) -> str:
    """Path of the k-th piece, from 0, of the song whose first piece is at `path`."""
    stem, suffix = os.path.splitext(path)
    return f"{stem}.part{k + 1}{suffix}" if k else path


def song_of_piece(name: str) -> str:
    """The name, without suffix, of the song that `name` is a piece of."""
    return PIECE.sub("", name)


def _stem(path: str) -> str:
    return os.path.splitext(os.path.basename(path))[0]


def mark(stem: str) -> int:
    """A 64-bit hash of a name: compares a million names in little memory."""
    name = stem.casefold().encode("utf-8", "surrogateescape")
    return int.from_bytes(hashlib.blake2b(name, digest_size=8).digest(), "big")
