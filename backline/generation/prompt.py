"""Prompts: a song, MIDI or a token file, that new notes continue or are played to."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np

from backline.common.errors import UserError
from backline.common.files import file_hash
from backline.generation.clip import Clip, clip_of_rows
from backline.generation.given_song import GivenSong
from backline.generation.reading import Asked, hear
from backline.music.bars import check_playable
from backline.music.midi_reader import read_song
from backline.music.midi_tracks import MidiTracks, read_tracks
from backline.music.note_velocities import UNKNOWN_VELOCITY
from backline.music.song import DEFAULT_TEMPO
from backline.music.vocab import FIELDS
from tokenizer import MidiTokenizerPooled, TokenFile, note_rows, open_token_file


@dataclasses.dataclass(frozen=True)
class Prompt:
    """A song to play to or to continue.

    rows: (N, F) note ids in order; N = 0 for none.
    tempo: quarters per minute.
    hash: SHA-256 of the file.
    n_rows: how many of its rows are kept; 0: all.
    clip: what it is besides its rows; None without a prompt, and for recipes of earlier versions.
    given: the song that is kept, as its file has it; None for token files, too.
    velocities: (N,) of the rows; 0 where unknown, as in token files.
    notices: what people may not expect of it, a line each.
    """

    rows: np.ndarray
    tempo: float
    velocities: np.ndarray
    path: str = ""
    hash: str = ""
    n_rows: int = 0
    clip: Clip | None = None
    given: GivenSong | None = None
    notices: tuple[str, ...] = ()

    @property
    def unheard(self) -> int:
        """Bars of the song before the first that the model hears."""
        return self.clip.first_bar if self.clip else 0


def unknown(rows: np.ndarray) -> np.ndarray:
    """(N,) velocities of rows whose file says none."""
    return np.full(len(rows), UNKNOWN_VELOCITY)


def open_prompt(path: Path) -> MidiTracks | TokenFile:
    """Parse a prompt as far as possible without a vocabulary. Raises UserError about the file."""
    if path.suffix.lower() == ".json":
        return open_token_file(path)
    return read_tracks(path)


def read_prompt(opened: MidiTracks | TokenFile | None,
                path: Path,
                asked: Asked,
                tokenizer: MidiTokenizerPooled) -> Prompt:
    """The prompt of what `open_prompt` made of the file; None for no prompt.

    Raises UserError about bad ids, a song that cannot be played to, or one without notes.
    """
    if opened is None:
        nothing = np.zeros((0, len(FIELDS)), np.int64)
        return Prompt(nothing, asked.reading.tempo or DEFAULT_TEMPO, unknown(nothing))
    if isinstance(opened, TokenFile):
        ids = opened.checked_ids(tokenizer)
        rows = note_rows(ids[:asked.n_rows] if asked.n_rows else ids)
        _check_has_notes(rows, path, asked.n_rows)
        if asked.reading.n_bars:
            raise UserError(f"{path}: --prompt-bars is for MIDI; give -pi with a token file")
        clip = clip_of_rows(rows, tokenizer.vocabulary, goes_on=asked.n_rows > 0)
        tempo = asked.reading.tempo or opened.tempo
        return Prompt(rows, tempo, unknown(rows), str(path), file_hash(path), asked.n_rows, clip)
    heard = hear(opened, path, asked, tokenizer.vocabulary)
    _check_has_notes(heard.rows, path, asked.n_rows)
    return Prompt(
        heard.rows,
        heard.tempo,
        heard.velocities,
        str(path),
        file_hash(path),
        asked.n_rows,
        heard.clip,
        heard.given,
        heard.notices,
    )


def read_rows_alone(path: Path, n_rows: int, tokenizer: MidiTokenizerPooled) -> Prompt:
    """A prompt as earlier versions read it: its rows alone, from which the song is then written.

    `n_rows` keeps the first rows in the order of the file, BOS counted; 0 keeps all.
    """
    if path.suffix.lower() == ".json":
        opened = open_token_file(path)
        ids = opened.checked_ids(tokenizer)
        tempo = opened.tempo
    else:
        song = read_song(path)
        check_playable(song, str(path))
        tempo = song.main_tempo()
        ids = np.array(tokenizer.rows_to_ids(tokenizer.song_rows(song, str(path))))
    rows = note_rows(ids[:n_rows] if n_rows else ids)
    _check_has_notes(rows, path, n_rows)
    return Prompt(rows, tempo, unknown(rows), str(path), file_hash(path), n_rows)


def _check_has_notes(rows: np.ndarray, path: Path, n_rows: int) -> None:
    """Raise UserError about a prompt without notes, unless the row of BOS alone is asked for."""
    if not len(rows) and n_rows != 1:
        raise UserError(f"{path}: has no notes to continue; give another prompt, "
                        "or more of its rows with -pi")
