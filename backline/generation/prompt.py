"""Prompts: the song, MIDI or a token file, that a generated one is played to or continues."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np

from backline.common.errors import UserError
from backline.common.files import file_hash
from backline.music.bars import check_playable
from backline.music.midi_reader import read_song
from backline.music.note_velocities import UNKNOWN, file_velocities
from backline.music.song import DEFAULT_TEMPO, Song
from backline.music.vocab import FIELDS
from tokenizer import MidiTokenizerPooled, TokenFile, note_rows, open_token_file


@dataclasses.dataclass(frozen=True)
class Prompt:
    """A song to play to or to continue."""

    rows: np.ndarray  # (N, F) note ids in order; N = 0 for none
    tempo: float  # quarters per minute
    velocities: np.ndarray  # (N,) of the rows; 0 where unknown, as in token files
    path: str = ""
    hash: str = ""  # SHA-256 of the file
    n_rows: int = 0  # kept of the file; 0: all


def open_prompt(path: Path) -> Song | TokenFile:
    """Parse a prompt as far as that goes without a vocabulary. Raises UserError about the file."""
    if path.suffix.lower() == ".json":
        return open_token_file(path)
    song = read_song(path)
    check_playable(song, str(path))
    return song


def read_prompt(opened: Song | TokenFile | None,
                path: Path,
                n_rows: int,
                tokenizer: MidiTokenizerPooled) -> Prompt:
    """The prompt in ids, of what `open_prompt` made of the file; None for no prompt.

    `n_rows` keeps the first rows in the order of the file, BOS counted; 0 keeps all. Raises
    UserError about bad ids, or a prompt without notes.
    """
    if opened is None:
        nothing = np.zeros((0, len(FIELDS)), np.int64)
        return Prompt(nothing, DEFAULT_TEMPO, np.zeros(0, np.int64))
    if isinstance(opened, Song):
        tempo = opened.main_tempo()
        rows = tokenizer.song_rows(opened, str(path))
        ids = np.array(tokenizer.rows_to_ids(rows))
    else:
        ids, tempo = opened.checked_ids(tokenizer), opened.tempo
    rows = note_rows(ids[:n_rows] if n_rows else ids)
    if not len(rows) and n_rows != 1:
        raise UserError(f"{path}: has no notes to continue; give another prompt, "
                        "or more of its rows with -pi")
    velocities = np.full(len(rows), UNKNOWN)
    if isinstance(opened, Song):
        velocities = file_velocities(path, rows, tokenizer.vocabulary)
    return Prompt(rows, tempo, velocities, str(path), file_hash(path), n_rows)
