"""Sets of songs to compare: those of a folder, of MIDI or token files, and the ones held out of a dataset."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from tqdm import tqdm

from backline.common.errors import UserError
from backline.common.files import MIDI_SUFFIXES
from backline.music.midi_reader import read_song
from tokenizer import MidiTokenizerPooled, read_tokens

if TYPE_CHECKING:
    from backline.preparation.dataset import Dataset

TOKENS = ".json"  # suffix of token files
PROMPT = "prompt"  # beside the stems


class SongSet(NamedTuple):
    """Songs that have notes: a name and the (N, F) note ids of each; and why others of the place were left out."""

    names: list[str]
    rows: list[np.ndarray]
    left_out: list[str]


def read_folder(folder: Path, tokenizer: MidiTokenizerPooled) -> SongSet:
    """All MIDI songs in a folder and below it, or, where there are none, all token files.

    Stems and prompts that stand beside their whole song (`0-drums.mid` beside `0.mid`) are no songs.

    Raises UserError if no song can be read.
    """
    if not folder.is_dir():
        raise UserError(f"{folder}: no such folder; give one with songs, .mid or token .json")
    paths = sorted(path for path in folder.rglob("*") if path.is_file() and not path.name.startswith("."))
    found = [path for path in paths if path.suffix.lower() in MIDI_SUFFIXES]
    found = found or [path for path in paths if path.suffix.lower() == TOKENS]
    whole = list(_without_stems(found, tokenizer.vocabulary.part_names))
    if not whole:
        raise UserError(f"{folder}: no songs in this folder or below it ({', '.join(MIDI_SUFFIXES)} or token "
                        f"{TOKENS}); give another")
    songs = SongSet([], [], [])
    for path in tqdm(whole, unit="song", leave=False, disable=None):
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
        raise UserError(f"{folder}: none of its {len(whole)} files is a song of "
                        f"{', '.join(tokenizer.vocabulary.part_names)}; the first: {songs.left_out[0]}")
    return songs


def read_rows(path: Path, tokenizer: MidiTokenizerPooled) -> np.ndarray:
    """(N, F) note ids of a song, MIDI or a token file. Raises UserError."""
    if path.suffix.lower() == TOKENS:
        return read_tokens(path, tokenizer)[0]
    return tokenizer.song_rows(read_song(path), str(path))


def _without_stems(paths: list[Path], part_names: tuple[str, ...]) -> Iterator[Path]:
    there, stem = set(paths), re.compile(rf"(.+)-(?:{'|'.join(map(re.escape, (*part_names, PROMPT)))})")
    for path in paths:
        match = stem.fullmatch(path.stem)
        if not match or path.with_stem(match[1]) not in there:
            yield path


def held_out(path: Path, model_path: Path) -> SongSet:
    """The songs of a dataset that a model was not trained on, counted from bar 0 as in their files."""
    from backline.evaluation.held_out_losses import song_notes
    from backline.preparation.dataset import load_dataset
    from backline.training.checkpoints import load_model  # brings torch

    _, vocabulary, facts = load_model(model_path)
    dataset, songs = load_dataset(path, vocabulary), SongSet([], [], [])
    for song in held_out_songs(facts, dataset, model_path):
        rows = song_notes(dataset, song)
        if len(rows):
            songs.names.append(dataset.songs[song])
            songs.rows.append(rows)
    return songs


def held_out_songs(facts: dict[str, Any], dataset: Dataset, where: Path) -> list[int]:
    """Indices of the dataset's songs that the model was not trained on, by the list its file carries."""
    from backline.training.checkpoints import held_out_names  # brings torch

    names = held_out_names(facts)
    if not names:
        raise UserError(f"{where}: carries no list of held-out songs; --all evaluates on every song of the dataset")
    wanted = set(names)
    found = [i for i, name in enumerate(dataset.songs) if name in wanted]
    if not found:
        raise UserError(f"{where}: none of its {len(wanted)} held-out songs are in this dataset; give the dataset it "
                        f"was trained with, or --all")
    if all(dataset.song_starts[i] + 1 >= len(dataset.notes) for i in found):  # nothing follows the BOS row
        raise UserError(f"{where}: its {len(found)} held-out songs lie behind the last full block of this dataset; "
                        f"prepare it with a smaller -b")
    return found
