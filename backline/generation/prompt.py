"""Prompts: the song, MIDI or a token file, that a generated one plays to or goes on from."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np

from backline.common.errors import UserError
from backline.common.files import file_hash
from backline.music.bars import check_playable
from backline.music.midi_reader import read_song
from backline.music.song import DEFAULT_TEMPO, Song
from tokenizer import MidiTokenizerPooled, TokenFile, note_rows, open_token_file


@dataclasses.dataclass(frozen=True)
class Prompt:
    """A song to play to. `rows`: (N, F) note ids in order; N = 0 for none."""

    rows: np.ndarray
    tempo: float
    path: str = ""
    hash: str = ""
    n_rows: int = 0  # kept of the file; 0: all


def open_prompt(path: Path) -> Song | TokenFile:
    """Parse a prompt as far as that goes without a vocabulary. Raises UserError about the file."""
    if path.suffix.lower() == ".json":
        return open_token_file(path)
    song = read_song(path)
    check_playable(song, str(path))
    return song


def read_prompt(opened: Song | TokenFile | None, path: Path, n_rows: int, tokenizer: MidiTokenizerPooled,
                ) -> Prompt:
    """The prompt in ids; `n_rows` keeps the first so many rows, BOS counted, in the order of the file; 0 keeps all."""
    if opened is None:
        return Prompt(np.zeros((0, len(tokenizer.vocabulary.sizes)), np.int64), DEFAULT_TEMPO)
    if isinstance(opened, Song):
        ids, tempo = np.array(tokenizer.rows_to_ids(tokenizer.song_rows(opened, str(path)))), opened.main_tempo()
    else:
        ids, tempo = opened.checked_ids(tokenizer), opened.tempo
    rows = note_rows(ids[:n_rows] if n_rows else ids)
    if not len(rows) and n_rows != 1:
        raise UserError(f"{path}: has no notes to continue; give another prompt, or more of its rows with -pi")
    return Prompt(rows, tempo, str(path), file_hash(path), n_rows)
