"""The tensor dataset `.pt`, or `.pt.xz`: how it is written, read and split by song.

A dict of plain data and tensors:

    blocks       (N, T, F): the songs joined end to end, each between its BOS and its EOS row, and
                 cut into rows of T notes; the last unfilled row is dropped
    song_starts  the row of notes at which each song begins
    songs        their names in the same order, as UTF-8 with a zero byte between
    clusters     for each song the index of the first of its near-duplicates, which stand next to
                 each other

Version 1 (names as a list, no clusters) and the predecessor's bare (N, T, F) tensor are read too.

A `.pt.xz` is the same file compressed, to be carried to another machine. It is the same dataset:
its hash is that of the bytes within. A `.pt` is mapped into memory, a `.pt.xz` decompressed there.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import os
import re
import shutil
import struct
import zipfile
from collections.abc import Collection, Iterable, Iterator, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any, BinaryIO, NamedTuple

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from backline.common.errors import UserError
from backline.common.files import check_file, replacing
from backline.layers.torch_io import load_plain
from backline.music.vocab import BAR, BOS, EOS, FIELDS, FIRST_ID, Vocabulary, load_vocabulary

FORMAT, VERSION = "pooled-dataset", 2
KINDS = {"vocabulary": dict,
         "blocks": Tensor,
         "songs": Tensor,
         "song_starts": Tensor,
         "clusters": Tensor}  # of what a dataset holds
REMEDY = "make one with prepare.py"
SEPARATOR = "\0"  # of the songs' names: no file name holds it
ALIGNMENT = 64  # bytes, of a tensor in the file
CHECKED_ROWS = 1 << 16
PACKED = ".xz"  # ends the name of a compressed dataset
CHUNK_BYTES = 1 << 20  # compressed at a time
SHORTEST_BLOCK = 16  # rows; shorter blocks hold no music to learn from


@dataclasses.dataclass(frozen=True)
class Dataset:
    """Songs in a row. `notes` is (M, F), M = N·T notes; song i is notes[song_starts[i]:song_starts[i + 1]]."""

    notes: Tensor
    block_size: int
    songs: tuple[str, ...]
    song_starts: np.ndarray  # (n_songs,) int64
    clusters: np.ndarray  # (n_songs,) int64, equal for near-duplicates, which stand next to each other
    vocabulary: Vocabulary

    @property
    def n_songs(self) -> int:
        """How many songs it holds."""
        return len(self.songs)


@dataclasses.dataclass(frozen=True)
class Split:
    """Rows (N, T, F) of the songs trained on and of the songs held out; no song is in both."""

    train: Tensor
    held_out: Tensor
    held_out_songs: tuple[str, ...]
    notice: str = ""


class Counts(NamedTuple):
    """What a dataset holds; `dropped` notes come after the last full block."""

    notes: int
    blocks: int
    dropped: int


class Songs(NamedTuple):
    """Songs on their way into a dataset, those of a cluster next to each other."""

    names: Sequence[str]
    lengths: np.ndarray  # (n,) notes of each
    clusters: np.ndarray  # (n,) labels, equal for near-duplicates
    notes: Iterable[bytes]  # (N, F) ids of each in the vocabulary's `id_type`, one song after another


def write_dataset(path: Path,
                  songs: Songs,
                  block_size: int,
                  vocabulary: Vocabulary,
                  facts: dict[str, Any]) -> Counts:
    """Join songs and write them as a dataset, compressed if the name ends in .xz.

    Notes go straight to the file: memory holds one song at a time.

    Raises UserError if there are fewer notes than one block.
    """
    sizes = songs.lengths + 2  # BOS and EOS
    total = int(sizes.sum())
    n_blocks = total // block_size
    if not n_blocks:
        raise UserError(f"{path}: {len(sizes)} songs have {total} notes, fewer than one block of "
                        f"{block_size}; add songs, or give a smaller -b")
    shape = (n_blocks, block_size, len(FIELDS))
    n_name_bytes = sum(len(name) for name in _name_bytes(songs.names))
    with _scratch_folder(path) as scratch:
        # Sparse placeholder files, never read: they only give the two tensors their sizes.
        blocks = np.memmap(scratch / "blocks", vocabulary.id_type, "w+", shape=shape)
        names = np.memmap(scratch / "songs", np.uint8, "w+", shape=(n_name_bytes,))
        data = {
            "format": FORMAT,
            "version": VERSION,
            "vocabulary": vocabulary.to_dict(),
            "blocks": torch.from_numpy(blocks),
            "songs": torch.from_numpy(names),
            "song_starts": torch.from_numpy(np.cumsum(sizes) - sizes),
            "clusters": torch.from_numpy(_first_of_cluster(songs.clusters)),
            **facts,
        }
        streams = {
            "blocks": _between_edges(songs.notes, blocks.nbytes, vocabulary),
            "songs": _name_bytes(songs.names),
        }
        with replacing(path) as file:
            if path.suffix != PACKED:
                _save(data, streams, scratch / "archive", file)
            else:  # in two steps: writing an archive seeks back, which a compressed file cannot
                with open(scratch / "plain", "w+b") as plain:
                    _save(data, streams, scratch / "archive", plain)
                    _pack(plain, file)
    return Counts(total, n_blocks, total - n_blocks * block_size)


def _first_of_cluster(labels: np.ndarray) -> np.ndarray:
    """(n,) int64: for each song the index of the first one with its label, which stand in a row."""
    is_new = labels[1:] != labels[:-1]
    is_first = np.concatenate([[True], is_new])
    places = np.where(is_first, np.arange(len(labels)), 0)
    return np.maximum.accumulate(places)


def _name_bytes(names: Iterable[str]) -> Iterator[bytes]:
    """The names as the file system spells them, each but the first after a separator."""
    for number, name in enumerate(names):
        yield os.fsencode(SEPARATOR + name if number else name)


@contextlib.contextmanager
def _scratch_folder(path: Path) -> Iterator[Path]:
    """A folder beside `path`, always of the same name: the next run removes what a killed one left."""
    scratch = path.with_name(f".{path.name}.scratch")
    shutil.rmtree(scratch, ignore_errors=True)
    scratch.mkdir()
    try:
        yield scratch
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def _between_edges(notes: Iterable[bytes], n_bytes: int, vocabulary: Vocabulary) -> Iterator[bytes]:
    """The notes of each song between a BOS and an EOS row; `n_bytes` of them in all."""
    bos = np.full(len(FIELDS), BOS, vocabulary.id_type).tobytes()
    eos = np.full(len(FIELDS), EOS, vocabulary.id_type).tobytes()
    for song in notes:
        piece = (bos + song + eos)[:n_bytes]
        n_bytes -= len(piece)
        yield piece


def _save(data: dict[str, Any],
          streams: dict[str, Iterator[bytes]],
          scratch: Path,
          file: BinaryIO) -> None:
    """Write what `torch.save(data, file)` would, with the tensors in `streams` from there.

    torch writes the archive without the tensors' data, which are then put in: a .pt file is a zip
    file with one stored record per tensor, numbered in their order.
    """
    with torch.serialization.skip_data():
        torch.save(data, scratch)
    tensors = [key for key, value in data.items() if isinstance(value, Tensor)]
    with zipfile.ZipFile(scratch) as skeleton, zipfile.ZipFile(file, "w") as archive:
        for entry in skeleton.infolist():
            record = re.fullmatch(r"[^/]+/data/(\d+)", entry.filename)
            key = tensors[int(record[1])] if record else None
            chunks: Iterable[bytes]
            if key is None:
                chunks = [skeleton.read(entry)]
            elif key in streams:
                chunks = streams[key]
            else:
                chunks = [data[key].numpy().tobytes()]
            info = zipfile.ZipInfo(entry.filename)
            info.extra = _padding(file.tell() + len(entry.filename))
            with archive.open(info, "w", force_zip64=True) as target:
                for chunk in chunks:
                    target.write(chunk)


def _padding(place: int) -> bytes:
    """An extra field that lets a record's data begin at a multiple of ALIGNMENT, as torch wants them."""
    header = 30 + 20 + 4  # of the record, of its 64-bit sizes, of the field itself
    length = -(place + header) % ALIGNMENT
    return struct.pack("<HH", 0x4246, length) + bytes(length)  # "FB": as torch marks its own


def _pack(plain: BinaryIO, packed: BinaryIO) -> None:
    """Compress all of `plain`."""
    n_bytes = plain.seek(0, os.SEEK_END)
    plain.seek(0)
    progress = tqdm(desc="compressing",
                    total=n_bytes,
                    unit="B",
                    unit_scale=True,
                    leave=False,
                    disable=None)
    with _lzma().open(packed, "wb") as file, progress as bar:
        while chunk := plain.read(CHUNK_BYTES):
            file.write(chunk)
            bar.update(len(chunk))


@contextlib.contextmanager
def _plain(path: Path) -> Iterator[BinaryIO]:
    """Open a dataset for reading, decompressed if need be. Raises UserError if that is impossible."""
    check_file(path)
    if path.suffix != PACKED:
        with open(path, "rb") as file:
            yield file
        return
    lzma = _lzma()
    try:
        with lzma.open(path) as file:
            yield file
    except (lzma.LZMAError, EOFError):  # EOFError: it ends too soon
        raise UserError(f"{path}: damaged or not an {PACKED} file; copy or make it again") from None


def _lzma() -> ModuleType:
    try:
        import lzma
    except ImportError:  # a Python that was compiled where the library's headers were not
        raise UserError(f"this Python was built without lzma, which {PACKED} needs; decompress the dataset with "
                        f"`xz -d`, or take another Python") from None
    return lzma


def dataset_hash(path: Path) -> str:
    """SHA-256 of a dataset's content in hexadecimal digits, the same compressed or not.

    Raises UserError if it cannot be decompressed.
    """
    with _plain(path) as file:
        # Both kinds of file have the `readinto` that it wants; BinaryIO's hints do not know it.
        digest = hashlib.file_digest(file, "sha256")  # type: ignore[arg-type]
    return digest.hexdigest()


def load_dataset(path: Path, vocabulary: Vocabulary | None = None) -> Dataset:
    """Memory-map a dataset, or decompress it in memory.

    Args:
        vocabulary: the one it must have been made with; of a bare tensor, the one it is in (default:
            the default vocabulary).
    Raises:
        UserError: not a dataset, damaged, or made with another vocabulary.
    """
    content = None
    if path.suffix == PACKED:
        with _plain(path) as file:
            content = file.read()
    data = load_plain(path, mmap=True, content=content)
    if isinstance(data, Tensor):
        return _from_bare_tensor(path, data, vocabulary or load_vocabulary())
    data = _whole(path, data)
    own = load_vocabulary(data["vocabulary"])
    if vocabulary is not None and own.digest != vocabulary.digest:
        raise UserError(f"{path}: made with another vocabulary than the model "
                        f"({vocabulary.difference(own)}); tokenize and prepare the songs again, both "
                        f"with --vocab and the model's vocabulary, or take a model of this one (a new "
                        f"one: train without -fp, or let train_pool.py take the weights over with -fp and "
                        f"--new_vocab)")
    _check_blocks(path, data["blocks"], own)
    songs = _decoded_names(data["songs"])
    if not _is_index(data["song_starts"], data["clusters"], len(songs)):
        raise UserError(f"{path}: its index of songs is damaged; {REMEDY}")
    block_size = data["blocks"].shape[1]
    notes = data["blocks"].view(-1, len(FIELDS))                   # (M, F)
    starts = data["song_starts"].numpy()
    clusters = data["clusters"].numpy()
    return Dataset(notes, block_size, songs, starts, clusters, own)


def _whole(path: Path, data: Any) -> dict[str, Any]:
    """The data of a dataset in today's version. Raises UserError if it is none, or lacks something."""
    if not isinstance(data, dict) or data.get("format") != FORMAT:
        raise UserError(f"{path}: not a dataset; {REMEDY}")
    version = data.get("version")
    if version not in (1, VERSION):
        raise UserError(f"{path}: dataset version {version}, this program reads {VERSION}; {REMEDY}")
    if version == 1:
        data = _as_version_2(data)
    for key, kind in KINDS.items():
        if not isinstance(data.get(key), kind):
            raise UserError(f"{path}: its {key!r} is damaged or missing; {REMEDY}")
    return data


def _as_version_2(data: dict[str, Any]) -> dict[str, Any]:
    """A dataset of version 1, which has its names as a list, and no clusters: each song is its own.

    `songs` becomes None where it is no list of names.
    """
    names = data.get("songs")
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        return data | {"songs": None, "clusters": None}
    encoded = b"".join(_name_bytes(names))
    songs = torch.tensor(list(encoded), dtype=torch.uint8)
    return data | {"songs": songs, "clusters": torch.arange(len(names))}


def _decoded_names(songs: Tensor) -> tuple[str, ...]:
    """The names of songs, from their bytes (uint8)."""
    text = os.fsdecode(songs.numpy().tobytes())
    return tuple(text.split(SEPARATOR))


def _is_index(starts: Tensor, clusters: Tensor, n_songs: int) -> bool:
    """Whether `starts` rises from 0 and both are whole numbers, one for each song."""
    if not (starts.dtype == clusters.dtype == torch.int64):
        return False
    if not (starts.shape == clusters.shape == (n_songs,)):
        return False
    return bool(starts[0] == 0) and bool((starts.diff() > 0).all())


def _from_bare_tensor(path: Path, blocks: Tensor, vocabulary: Vocabulary) -> Dataset:
    _check_blocks(path, blocks, vocabulary)
    notes = blocks.reshape(-1, len(FIELDS))
    starts = np.flatnonzero((notes == BOS).all(dim=1).numpy())
    if not len(starts) or starts[0]:  # before the first BOS row is a song cut at its beginning
        starts = np.concatenate([[0], starts])
    names = tuple(f"song {i}" for i in range(len(starts)))
    clusters = np.arange(len(starts))
    return Dataset(notes, blocks.shape[1], names, starts, clusters, vocabulary)


def _check_blocks(path: Path, blocks: Tensor, vocabulary: Vocabulary) -> None:
    whole = not blocks.is_floating_point() and not blocks.is_complex() and blocks.dtype != torch.bool
    if blocks.ndim != 3 or blocks.shape[2] != len(FIELDS) or not len(blocks) or not whole:
        raise UserError(f"{path}: holds a {blocks.dtype} tensor of shape {list(blocks.shape)}, where "
                        f"whole numbers of shape [N, T, {len(FIELDS)}] are needed; {REMEDY}")
    step = -(-len(blocks) // CHECKED_ROWS)  # 1 for a small dataset; all of a large one takes minutes
    sample = blocks[::step]
    highest = sample.amax(dim=(0, 1)).tolist()                     # of each field
    is_beyond = [top >= size for top, size in zip(highest, vocabulary.sizes, strict=True)]
    if any(is_beyond) or sample.min() < 0:
        raise UserError(f"{path}: ids up to {highest}, but the vocabulary's sizes are "
                        f"{list(vocabulary.sizes)}; {REMEDY}")


def song_rows(dataset: Dataset, song: int) -> Tensor:
    """(N, F) rows of one song, with BOS and EOS; the last may be cut off with the last full block."""
    start = dataset.song_starts[song]
    is_last = song + 1 == dataset.n_songs
    end = len(dataset.notes) if is_last else dataset.song_starts[song + 1]
    return dataset.notes[start:end].long()


def song_notes(dataset: Dataset, song: int) -> np.ndarray:
    """(N, F) int64 ids of the notes of one song, without BOS and EOS."""
    rows = song_rows(dataset, song).numpy()
    return rows[rows[:, BAR] >= FIRST_ID]


def with_songs_last(dataset: Dataset, names: Collection[str]) -> tuple[Dataset, int]:
    """The dataset with some songs and their near-duplicates behind all others; how many others there are.

    Both keep their order.
    """
    wanted = set(names)
    is_named = np.array([song in wanted for song in dataset.songs])
    is_last = np.isin(dataset.clusters, dataset.clusters[is_named])
    order = np.argsort(is_last, kind="stable")
    n_others = int((~is_last).sum())
    if (np.diff(order) == 1).all():
        return dataset, n_others
    ends = np.append(dataset.song_starts[1:], len(dataset.notes))
    starts = np.minimum(dataset.song_starts, len(dataset.notes))  # songs after the last full row hold nothing
    ends = np.minimum(ends, len(dataset.notes))
    lengths = (ends - starts)[order]
    notes = torch.cat([dataset.notes[starts[i]:ends[i]] for i in order.tolist()])
    ordered = dataclasses.replace(
        dataset,
        notes=notes,
        songs=tuple(dataset.songs[i] for i in order.tolist()),
        song_starts=np.cumsum(lengths) - lengths,
        clusters=dataset.clusters[order],
    )
    return ordered, n_others


def split_by_song(dataset: Dataset, train_split: float, most_train: int | None = None) -> Split:
    """The first `train_split` share of songs for training, `most_train` at most; the rest held out.

    The row across the cut is dropped. Near-duplicates stay on one side: the cut lies between two
    clusters. Few songs are no error: the cut moves to where it leaves rows on both sides, and if no
    cut does, rows are halved until one does. The notice says so. Songs without a whole row are in
    no row, but keep their side.

    Raises UserError for a share outside 0 to 1, or if there is only one song.
    """
    if not 0 < train_split < 1:
        raise UserError(f"--train_split {train_split} must lie between 0 and 1")
    if dataset.n_songs < 2:
        raise UserError("the dataset holds one song, and none is left to hold out; prepare at least "
                        "two")
    wanted = round(dataset.n_songs * train_split)
    wanted = min(max(wanted, 1), dataset.n_songs - 1)
    if most_train is not None:
        wanted = min(wanted, most_train)
    cuts = np.flatnonzero(np.diff(dataset.clusters)) + 1
    notices = []
    if not len(cuts):
        cuts = np.arange(1, dataset.n_songs)
        notices = ["all songs are near-duplicates of each other: held-out losses will look too good"]
    if most_train is not None and (cuts <= most_train).any():
        cuts = cuts[cuts <= most_train]
    distance = np.abs(cuts - wanted)
    by_distance = cuts[np.argsort(distance, kind="stable")].tolist()
    size = dataset.block_size
    while size >= SHORTEST_BLOCK:
        for n_train in by_distance:
            split = _cut(dataset, n_train, size)
            if len(split.train) and len(split.held_out):
                if n_train != by_distance[0]:
                    notices.append(f"few notes: {n_train} of {dataset.n_songs} songs are for training")
                if size != dataset.block_size:
                    notices.append(f"few notes: rows are {size} notes long, not {dataset.block_size}")
                return dataclasses.replace(split, notice="; ".join(notices))
        size //= 2
    raise UserError("too few notes to train on some songs and hold out others; prepare more songs")


def _cut(dataset: Dataset, n_train: int, size: int) -> Split:
    n_rows = len(dataset.notes) // size
    rows = dataset.notes[:n_rows * size].view(n_rows, size, len(FIELDS))
    cut = int(dataset.song_starts[n_train])  # in notes
    last_before = cut // size
    first_after = -(-cut // size)
    return Split(rows[:last_before], rows[first_after:], dataset.songs[n_train:])
