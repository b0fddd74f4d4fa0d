"""The tensor dataset `.pt`: how it is written, read and split by song.

A dict of plain data and tensors: `blocks` (N, T, F), the songs joined end to end (each begun by its BOS row and
ended by its EOS row) and cut into rows of T notes, the last unfilled row dropped; `song_starts`, the row of notes
at which each song begins; `songs`, their names in the same order. The predecessor's bare (N, T, F) tensor is read too.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from checkpoints import load_plain
from errors import UserError
from files import replacing
from vocab import BOS, EOS, FIELDS, SHORTEST_BLOCK, Vocabulary, load_vocabulary

FORMAT, VERSION = "pooled-dataset", 1
REMEDY = "make one with prepare.py"


@dataclasses.dataclass(frozen=True)
class Dataset:
    """Songs in a row. `notes` is (M, F), M = N·T notes; song i is notes[song_starts[i]:song_starts[i + 1]]."""

    notes: Tensor
    block_size: int
    songs: tuple[str, ...]
    song_starts: np.ndarray  # (n_songs,) int64
    vocabulary: Vocabulary

    @property
    def n_songs(self) -> int:
        return len(self.songs)


@dataclasses.dataclass(frozen=True)
class Split:
    """Rows (N, T, F) of the songs trained on and of the songs held out; no song is in both."""

    train: Tensor
    held_out: Tensor
    held_out_songs: tuple[str, ...]
    notice: str = ""


def write_dataset(path: Path, songs: Iterable[tuple[str, np.ndarray]], block_size: int, vocabulary: Vocabulary,
                  facts: dict[str, Any]) -> dict[str, int]:
    """Join `songs`, (name, (N, F) note ids) pairs, and write them as a dataset.

    Notes go straight to a scratch file beside `path`, so memory holds one song at a time.

    Returns counts: songs, notes, blocks, and notes dropped at the end.
    Raises UserError if there are fewer notes than one block.
    """
    names, starts, total = [], [], 0
    edge = {special: np.full((1, len(FIELDS)), special, vocabulary.id_type) for special in (BOS, EOS)}
    scratch = path.with_name(f".{path.name}.notes")
    try:
        with open(scratch, "wb") as file:
            for name, rows in songs:
                whole = np.concatenate([edge[BOS], rows.astype(vocabulary.id_type), edge[EOS]])
                names.append(name)
                starts.append(total)
                total += len(whole)
                whole.tofile(file)
        n_blocks = total // block_size
        if not n_blocks:
            raise UserError(f"{path}: {len(names)} songs have {total} notes, fewer than one block of {block_size}; "
                            f"add songs, or give a smaller -b")
        blocks = np.memmap(scratch, vocabulary.id_type, "r+", shape=(n_blocks, block_size, len(FIELDS)))
        with replacing(path) as file:
            torch.save({"format": FORMAT, "version": VERSION, "vocabulary": vocabulary.to_dict(),
                        "blocks": torch.from_numpy(blocks), "songs": names, "song_starts": torch.tensor(starts),
                        **facts}, file)
    finally:
        scratch.unlink(missing_ok=True)
    return {"songs": len(names), "notes": total, "blocks": n_blocks, "dropped": total - n_blocks * block_size}


def load_dataset(path: Path, vocabulary: Vocabulary | None = None) -> Dataset:
    """Memory-map a dataset.

    Args:
        vocabulary: the one it must have been made with; also that of a bare tensor (default: the default one).
    Raises:
        UserError: not a dataset, damaged, or made with another vocabulary.
    """
    data = load_plain(path, mmap=True)
    if isinstance(data, Tensor):
        return _from_bare_tensor(path, data, vocabulary or load_vocabulary())
    if not isinstance(data, dict) or data.get("format") != FORMAT:
        raise UserError(f"{path}: not a dataset; {REMEDY}")
    if data.get("version") != VERSION:
        raise UserError(f"{path}: dataset version {data.get('version')}, this program reads {VERSION}; {REMEDY}")
    for key, kind in (("vocabulary", dict), ("blocks", Tensor), ("songs", list), ("song_starts", Tensor)):
        if not isinstance(data.get(key), kind):
            raise UserError(f"{path}: its {key!r} is damaged or missing; {REMEDY}")
    own = load_vocabulary(data["vocabulary"])
    if vocabulary is not None:
        vocabulary.check_digest(own.digest, str(path), "prepare the songs again with the model's")
    blocks, starts = data["blocks"], data["song_starts"].numpy()
    _check_blocks(path, blocks, own)
    if starts.shape != (len(data["songs"]),) or not len(starts) or starts[0] or (np.diff(starts) <= 0).any():
        raise UserError(f"{path}: its index of songs is damaged; {REMEDY}")
    return Dataset(blocks.view(-1, len(FIELDS)), blocks.shape[1], tuple(data["songs"]), starts, own)


def _from_bare_tensor(path: Path, blocks: Tensor, vocabulary: Vocabulary) -> Dataset:
    _check_blocks(path, blocks, vocabulary)
    notes = blocks.reshape(-1, len(FIELDS))
    starts = np.flatnonzero((notes == BOS).all(dim=1).numpy())
    if not len(starts) or starts[0]:  # what stands before the first BOS row is a song cut at its beginning
        starts = np.concatenate([[0], starts])
    return Dataset(notes, blocks.shape[1], tuple(f"song {i}" for i in range(len(starts))), starts, vocabulary)


def _check_blocks(path: Path, blocks: Tensor, vocabulary: Vocabulary) -> None:
    whole = not blocks.is_floating_point() and not blocks.is_complex() and blocks.dtype != torch.bool
    if blocks.ndim != 3 or blocks.shape[2] != len(FIELDS) or not len(blocks) or not whole:
        raise UserError(f"{path}: holds a {blocks.dtype} tensor of shape {list(blocks.shape)}, where whole numbers "
                        f"of shape [N, T, {len(FIELDS)}] are needed; {REMEDY}")
    highest = blocks.amax(dim=(0, 1)).tolist()
    if any(top >= size for top, size in zip(highest, vocabulary.sizes, strict=True)) or blocks.min() < 0:
        raise UserError(f"{path}: ids up to {highest}, but the vocabulary's sizes are {list(vocabulary.sizes)}; "
                        f"{REMEDY}")


def split_by_song(dataset: Dataset, train_split: float) -> Split:
    """The first `train_split` share of songs for training, the rest held out; the row across the cut is dropped.

    Few songs are no error: the cut moves to the song that leaves rows on both sides, and if none does, rows
    are halved until one does. The notice says so. Songs without a whole row are in no row, but keep their side.

    Raises UserError for a share outside 0 to 1, or if there is only one song.
    """
    if not 0 < train_split < 1:
        raise UserError(f"--train_split {train_split} must lie between 0 and 1")
    if dataset.n_songs < 2:
        raise UserError("the dataset holds one song, and none is left to hold out; prepare at least two")
    wanted = min(max(round(dataset.n_songs * train_split), 1), dataset.n_songs - 1)
    by_distance = sorted(range(1, dataset.n_songs), key=lambda n: (abs(n - wanted), n))
    size = dataset.block_size
    while size >= SHORTEST_BLOCK:
        for n_train in by_distance:
            split = _cut(dataset, n_train, size)
            if len(split.train) and len(split.held_out):
                notices = [f"{n_train} of {dataset.n_songs} songs are for training"] * (n_train != wanted)
                notices += [f"rows are {size} notes long, not {dataset.block_size}"] * (size != dataset.block_size)
                return dataclasses.replace(split, notice="few notes: " + ", ".join(notices) if notices else "")
        size //= 2
    raise UserError("too few notes to train on some songs and hold out others; prepare more songs")


def _cut(dataset: Dataset, n_train: int, size: int) -> Split:
    rows = dataset.notes[:len(dataset.notes) // size * size].view(-1, size, len(FIELDS))
    cut = int(dataset.song_starts[n_train])
    return Split(rows[:cut // size], rows[-(-cut // size):], dataset.songs[n_train:])
