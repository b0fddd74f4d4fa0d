"""Claim the number of a song while its files are written, so that no file is ever lost.

A song is first written into a hidden folder, `.5.unfinished`. Making that folder claims number 5:
of several processes one succeeds, on every file system. Then the files go to their places beside
it, where nothing may stand yet. The song itself, `5.mid`, goes last, so that whoever sees it finds
the rest. A killed run leaves the folder and perhaps stems; later runs skip its number.
"""

from __future__ import annotations

import contextlib
import os
import re
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path

from backline.common.files import make_folder, put_new

SONG_FILE = re.compile(r"(\d+)(-\w+\.mid|\.mid|\.png|\.wav)|\.(\d+)\.unfinished", re.IGNORECASE)
STEM = re.compile(r"(\d+)-\w+\.mid")
NUMBER_IN_FRONT = re.compile(r"\.?(\d+)(?![^\W_])")  # of "5 my idea.mid", not of "5th.mid"
BESIDE_SONGS = ("-prompt.mid", ".png", ".wav")  # endings of what goes with a song, but for stems
PART_SUFFIX = ".part"  # of files in a claim
SECONDS_UNCHANGED = 5.0  # after which a claim is one that a killed run left


# ---------------------------------------------------------------- which number


def next_number(folder: Path) -> int:
    """The first number above all songs in `folder` that begins no file's name."""
    names = [path.name for path in folder.iterdir()]
    songs = filter(None, map(SONG_FILE.fullmatch, names))
    numbers = (int(song[1] or song[3]) for song in songs)
    number = max(numbers, default=-1) + 1
    in_front = _numbers_in_front(names)
    while number in in_front:
        number += 1
    return number


def _numbers_in_front(names: Iterable[str]) -> set[int]:
    matches = filter(None, map(NUMBER_IN_FRONT.match, names))
    return {int(match[1]) for match in matches}


def endings_of(part_names: Iterable[str]) -> list[str]:
    """The name endings of the files that may go with a song, its own last."""
    return [*(f"-{name}.mid" for name in part_names), *BESIDE_SONGS, ".mid"]


def song_of(path: Path) -> Path:
    """The song that a stem belongs to; for any other file, the file itself."""
    stem = STEM.fullmatch(path.name)
    return path.with_name(f"{stem[1]}.mid") if stem else path


# ---------------------------------------------------------------- writing a song


def write_new(folder: Path, files: Mapping[str, bytes]) -> int:
    """Write a song under the next free number; returns that.

    Args:
        files: contents by name ending (".mid", "-drums.mid", ".png"), in the order in which they
            are to appear: the song itself last.
    """
    make_folder(folder)
    number = 0
    while True:
        number = max(number, next_number(folder))
        claim = claim_of(folder, number)
        try:
            claim.mkdir()
            with _removed_at_the_end(claim):
                # Since the number was chosen, a song may have got it.
                others = {path.name for path in folder.iterdir()} - {claim.name}
                if number not in _numbers_in_front(others):
                    _write(claim, number, files)
                    _put(claim, number, files, put_new)
                    return number
        except FileExistsError:  # another run has the number, or somebody puts such a file there
            pass
        number += 1


def write_over(folder: Path, number: int, files: Mapping[str, bytes]) -> None:
    """Replace the song of this number, with all its files.

    Files of other names stay, whatever their number. `files`: as in `write_new`.
    """
    make_folder(folder)
    claim = claim_of(folder, number)
    _wait_for(claim)
    with _removed_at_the_end(claim):
        _write(claim, number, files)
        # The old song goes first: it is never seen with stems of the new one.
        for ending in (".mid", *BESIDE_SONGS):
            (folder / f"{number}{ending}").unlink(missing_ok=True)
        _put(claim, number, files, os.replace)


def claim_of(folder: Path, number: int) -> Path:
    """The hidden folder that claims a number."""
    return folder / f".{number}.unfinished"


@contextlib.contextmanager
def _removed_at_the_end(claim: Path) -> Iterator[None]:
    try:
        yield
    finally:
        with contextlib.suppress(OSError):
            _remove(claim)


def _remove(claim: Path) -> None:
    """Remove a claim. Raises OSError if somebody else put a file there."""
    for path in claim.iterdir():
        if path.suffix == PART_SUFFIX:
            path.unlink()
    claim.rmdir()


def _wait_for(claim: Path) -> None:
    """Claim a number, waiting for another process that has it. Removes what a killed one left."""
    last, since = None, 0.0
    while True:
        try:
            claim.mkdir()
            return
        except FileExistsError:
            pass
        with contextlib.suppress(FileNotFoundError):
            changed = claim.stat().st_mtime_ns
            if changed != last:
                last, since = changed, time.monotonic()
            elif time.monotonic() - since > SECONDS_UNCHANGED:
                _remove(claim)
        time.sleep(0.01)


def _write(claim: Path, number: int, files: Mapping[str, bytes]) -> None:
    """Write the files of a song into its claim, under names that no song has."""
    for ending, data in files.items():
        try:
            _part(claim, ending).write_bytes(data)
        except OSError as err:
            path = claim.with_name(f"{number}{ending}")
            raise OSError(err.errno, err.strerror, str(path)) from err


def _part(claim: Path, ending: str) -> Path:
    return claim / f"{ending}{PART_SUFFIX}"


def _put(claim: Path,
         number: int,
         files: Iterable[str],
         put: Callable[[Path, Path], None]) -> None:
    """Move the files of a claim to their places: all of them, or none if that fails."""
    moves = {_part(claim, ending): claim.with_name(f"{number}{ending}") for ending in files}
    ours = {place: part.stat() for part, place in moves.items()}
    try:
        for part, place in moves.items():
            put(part, place)
    except BaseException:  # Ctrl-C too
        for place, stat in reversed(ours.items()):
            with contextlib.suppress(OSError):
                if os.path.samestat(place.stat(), stat):
                    place.unlink()
        raise
