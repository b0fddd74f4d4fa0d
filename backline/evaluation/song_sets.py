"""Sets of songs to compare: a folder of MIDI or token files, or the songs held out of a dataset."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from tqdm import tqdm

from backline.common.errors import UserError
from backline.engine.model_file import held_out_names
from backline.music.midi_chunks import MIDI_SUFFIXES
from backline.music.midi_reader import read_song
from tokenizer import MidiTokenizerPooled, read_tokens

if TYPE_CHECKING:
    from backline.preparation.dataset import Dataset

TOKENS = ".json"  # suffix of token files
PROMPT = "prompt"  # beside the stems


class SongSet(NamedTuple):
    """Songs that have notes, and why others of the same place were left out."""

    names: list[str]
    rows: list[np.ndarray]  # (N, F) note ids of each song
    left_out: list[str]


# ---------------------------------------------------------------- a folder


def read_folder(folder: Path, tokenizer: MidiTokenizerPooled) -> SongSet:
    """All MIDI songs in a folder and below it or, if there are none, all token files.

    Stems and prompts beside their whole song (`0-drums.mid` beside `0.mid`) are no songs.

    Raises UserError if no song can be read.
    """
    if not folder.is_dir():
        raise UserError(f"{folder}: no such folder; give one with songs, .mid or token .json")
    part_names = tokenizer.vocabulary.part_names
    paths = list(_without_stems(_song_paths(folder), part_names))
    if not paths:
        raise UserError(f"{folder}: no songs in this folder or below it "
                        f"({', '.join(MIDI_SUFFIXES)} or token {TOKENS}); give another")
    songs = SongSet([], [], [])
    for path in tqdm(paths, unit="song", leave=False, disable=None):
        try:
            rows = read_rows(path, tokenizer)
            if not len(rows):
                raise UserError(f"{path}: has no notes")
        except UserError as err:
            songs.left_out.append(str(err))
            continue
        songs.names.append(str(path))
        songs.rows.append(rows)
    if not songs.rows:
        raise UserError(f"{folder}: none of its {len(paths)} files is a song of "
                        f"{', '.join(part_names)}; the first: {songs.left_out[0]}")
    return songs


def _song_paths(folder: Path) -> list[Path]:
    """MIDI files in `folder` and below, sorted; token files if there are none; no hidden ones."""
    paths = sorted(path
                   for path in folder.rglob("*")
                   if path.is_file() and not path.name.startswith("."))
    midi = [path for path in paths if path.suffix.lower() in MIDI_SUFFIXES]
    return midi or [path for path in paths if path.suffix.lower() == TOKENS]


def _without_stems(paths: list[Path], part_names: tuple[str, ...]) -> Iterator[Path]:
    there = set(paths)
    escaped = map(re.escape, (*part_names, PROMPT))
    endings = "|".join(escaped)
    stem = re.compile(rf"(.+)-(?:{endings})")
    for path in paths:
        match = stem.fullmatch(path.stem)
        if not match or path.with_stem(match[1]) not in there:
            yield path


def read_rows(path: Path, tokenizer: MidiTokenizerPooled) -> np.ndarray:
    """(N, F) note ids of a song, MIDI or a token file. Raises UserError."""
    if path.suffix.lower() == TOKENS:
        return read_tokens(path, tokenizer)[0]
    return tokenizer.song_rows(read_song(path), str(path))


# ---------------------------------------------------------------- a dataset


def held_out(dataset_path: Path, model_path: Path) -> SongSet:
    """The songs of a dataset that a model was not trained on. Raises UserError if it has none."""
    from backline.preparation.dataset import load_dataset
    from backline.training.checkpoints import load_model  # brings torch

    _, vocabulary, metadata = load_model(model_path)
    return held_out_set(load_dataset(dataset_path, vocabulary), metadata, model_path)


def held_out_set(dataset: Dataset,
                 metadata: dict[str, Any],
                 model_path: Path) -> SongSet:
    """The dataset's songs that a model was not trained on, from bar 0 as in their files.

    Args and errors as of `held_out_songs`.
    """
    from backline.preparation.dataset import song_notes  # brings torch

    songs = SongSet([], [], [])
    for song in held_out_songs(metadata, dataset, model_path):
        rows = song_notes(dataset, song)
        if len(rows):
            songs.names.append(dataset.songs[song])
            songs.rows.append(rows)
    return songs


def held_out_songs(metadata: dict[str, Any],
                   dataset: Dataset,
                   model_path: Path) -> list[int]:
    """Indices of the dataset's songs that a model was not trained on.

    Args:
        metadata: what the model's file says of its training, with the list of these songs.
    Raises:
        UserError: there is no list, or none of its songs is in the dataset.
    """
    names = set(held_out_names(metadata))
    if not names:
        raise UserError(f"{model_path}: carries no list of held-out songs; --all evaluates on every "
                        f"song of the dataset")
    found = [i for i, name in enumerate(dataset.songs) if name in names]
    if not found:
        raise UserError(f"{model_path}: none of its {len(names)} held-out songs are in this dataset; "
                        f"give the dataset it was trained with, or --all")
    n_rows = len(dataset.notes)
    if all(dataset.song_starts[i] + 1 >= n_rows for i in found):  # nothing follows the BOS row
        raise UserError(f"{model_path}: its {len(found)} held-out songs lie behind the last full "
                        f"block of this dataset; prepare it with a smaller -b")
    return found
