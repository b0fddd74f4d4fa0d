"""Songs read from token files, kept on disk until the dataset is written.

Any number of them needs little memory. A run that is killed finds here what it has read already.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, NamedTuple

import numpy as np

from backline.common.files import make_folder, size_and_mtime
from backline.folders.inputs import Input, Listing
from backline.folders.store import Store
from backline.folders.workers import KILLED, TOO_LONG
from backline.music.vocab import FIELDS, Vocabulary

# `place`: the file's number in the listing. `n_notes` is 0 for a file left out, for a `reason`.
TABLES = """
CREATE TABLE about (settings TEXT NOT NULL);
CREATE TABLE songs (place INTEGER PRIMARY KEY, source BLOB NOT NULL, size INTEGER NOT NULL,
                    mtime_ns INTEGER NOT NULL, name BLOB NOT NULL, n_notes INTEGER NOT NULL,
                    key BLOB NOT NULL, reason TEXT NOT NULL);
"""


class Entry(NamedTuple):
    """What is stored of a song."""

    notes: bytes  # of its (N, F) note ids
    key: bytes  # equal for songs of the same notes
    signature: np.ndarray  # (P, K), alike for near-duplicates


class SongStore:
    """Songs numbered from 0 in the order of the listing.

    Use it in a `with` block, which holds its lock. Beside the index lie two plain files: the note
    ids of all songs, and their signatures.
    """

    def __init__(self,
                 folder: Path,
                 vocabulary: Vocabulary,
                 signature_shape: tuple[int, int]) -> None:
        self.folder = folder
        self.vocabulary = vocabulary
        self.signature_shape = signature_shape
        self._row_bytes = len(FIELDS) * vocabulary.id_type.itemsize
        self._signature_bytes = 4 * signature_shape[0] * signature_shape[1]
        self._is_finished = False

    def __enter__(self) -> SongStore:
        make_folder(self.folder)
        self._index = Store(self.folder / "index.sqlite", self.folder, TABLES)
        settings = f"{self.vocabulary.digest} {self.signature_shape}"
        known = self._index.first("SELECT settings FROM about")
        if known not in (None, (settings,)):
            self._index.execute("DELETE FROM songs")
            self._index.execute("DELETE FROM about")
        if known != (settings,):
            self._index.execute("INSERT INTO about VALUES (?)", (settings,))
        for name in ("notes", "signatures"):
            (self.folder / name).touch()
        self._notes = open(self.folder / "notes", "r+b")
        self._signatures = open(self.folder / "signatures", "r+b")
        return self

    def __exit__(self, kind: type | None, *exc: object) -> None:
        self._notes.close()
        self._signatures.close()
        self._index.close(keep_changes=True, remove=self._is_finished, quiet=kind is not None)
        if self._is_finished:
            shutil.rmtree(self.folder)

    def done_before(self, listing: Listing) -> int:
        """How many of the files an earlier run has read, none changed since; forgets the others."""
        known = self._index.all("SELECT source, size, mtime_ns, reason FROM songs ORDER BY place")
        place = 0
        for item, (source, size, mtime_ns, reason) in zip(listing, known, strict=False):
            if os.fsencode(item.source) != source:
                break
            if size_and_mtime(item.source) != (size, mtime_ns):
                break
            if reason.startswith((TOO_LONG, KILLED)):  # once more, perhaps with more time
                break
            place += 1
        known.close()
        self._index.execute("DELETE FROM songs WHERE place >= ?", (place,))
        n_songs, n_notes = self._index.one(
            "SELECT count(*), coalesce(sum(n_notes), 0) FROM songs WHERE n_notes > 0")
        _truncate(self._notes, n_notes * self._row_bytes)
        _truncate(self._signatures, n_songs * self._signature_bytes)
        self._place = place
        return place

    def add(self, item: Input, entry: Entry | None, reason: str) -> None:
        """Store the next song, or the reason why there is none."""
        n_notes = 0
        key = b""
        if entry is not None:
            self._notes.write(entry.notes)
            self._signatures.write(entry.signature.tobytes())
            n_notes = len(entry.notes) // self._row_bytes
            key = entry.key
        size, mtime_ns = size_and_mtime(item.source)
        source = os.fsencode(item.source)
        name = os.fsencode(item.name)
        row = (self._place, source, size, mtime_ns, name, n_notes, key, reason)
        self._index.execute("INSERT INTO songs VALUES (?, ?, ?, ?, ?, ?, ?, ?)", row)
        self._place += 1
        if self._index.is_due():
            self.commit()

    def commit(self) -> None:
        """Make what was added survive a kill: first the notes, then the index that counts them."""
        self._notes.flush()
        self._signatures.flush()
        self._index.commit()

    def finish(self) -> None:
        """The store is not needed any more: leaving the `with` block removes it."""
        self._is_finished = True

    # ------------------------------------------------ what is there

    def lengths(self) -> np.ndarray:
        """(n,) int64 notes of each song."""
        rows = self._index.all("SELECT n_notes FROM songs WHERE n_notes > 0 ORDER BY place")
        return np.fromiter((n for n, in rows), np.int64)

    def keys(self) -> np.ndarray:
        """(n,) keys, 16 bytes each, equal for songs of the same notes."""
        rows = self._index.all("SELECT key FROM songs WHERE n_notes > 0 ORDER BY place")
        return np.fromiter((key for key, in rows), "V16")

    def names(self) -> Iterator[str]:
        """The name of each song's token file."""
        rows = self._index.all("SELECT name FROM songs WHERE n_notes > 0 ORDER BY place")
        return (os.fsdecode(name) for name, in rows)

    def left_out(self) -> Iterator[str]:
        """The reason for each file that was not read."""
        rows = self._index.all("SELECT reason FROM songs WHERE n_notes = 0 ORDER BY place")
        return (reason for reason, in rows)

    def signatures(self) -> np.ndarray:
        """(n, P, K) uint32, mapped from the disk."""
        n, = self._index.one("SELECT count(*) FROM songs WHERE n_notes > 0")
        shape = (n, *self.signature_shape)
        if not n * self._signature_bytes:  # no song, or no melodic part: nothing to map
            return np.zeros(shape, np.uint32)
        return np.memmap(self.folder / "signatures", np.uint32, "r", shape=shape)

    def notes(self, order: np.ndarray) -> Iterator[bytes]:
        """The note ids of the songs in `order`, one after another."""
        lengths = self.lengths()
        starts = np.cumsum(lengths) - lengths
        for song in order.tolist():
            self._notes.seek(int(starts[song]) * self._row_bytes)
            yield self._notes.read(int(lengths[song]) * self._row_bytes)


def _truncate(file: BinaryIO, size: int) -> None:
    """Drop what comes after the first `size` bytes, and go on writing there."""
    file.truncate(size)
    file.seek(size)
