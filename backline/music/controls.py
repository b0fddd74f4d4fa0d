"""Controls: what is to be played, as small ids, one column a control and one row a note.

The sheet comes first (`sheet.py`): how each part plays in the sixteen bars around a bar, and in
which key. Behind it come how many bars are left, and the chord of the half bar (`chords.py`). In
every column 0 says nothing, 1 says that there is none, and the values begin at 2.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Collection

import numpy as np

from backline.music.chords import (
    CHORD_FIELDS,
    CHORD_SIZES,
    FIRST_VALUE,
    HALVES_PER_BAR,
    NONE,
    UNKNOWN,
    estimate_chords,
    transposed_chords,
)
from backline.music.sheet import (
    MODES,
    N_KEYS,
    PART_SIZES,
    Levels,
    key_column,
    sheets_of_bars,
    song_bars,
)
from backline.music.vocab import BAR, BOS, FIRST_ID, START_POS, Vocabulary

CHORD_COLUMNS = slice(-len(CHORD_FIELDS), None)
BARS_LEFT_EDGES = (0, 1, 2, 3, 4, 8, 16, 32)  # each the most of its bucket


@dataclasses.dataclass(frozen=True)
class Field:
    """One column of the controls."""

    name: str
    part: int | None  # index of the part that it is about; None: it is about the song
    n_values: int

    @property
    def size(self) -> int:
        """How many ids it has."""
        return FIRST_VALUE + self.n_values


def fields(vocabulary: Vocabulary) -> tuple[Field, ...]:
    """All columns in their order: those of each part, the key, the bars left, and the chord's."""
    columns = []
    for index, part in enumerate(vocabulary.parts):
        columns += [Field(f"{part.name} {name}", index, n_values)
                    for name, n_values in PART_SIZES.items()]
    columns.append(Field("key", None, N_KEYS))
    n_levels = len(BARS_LEFT_EDGES) + 1
    columns.append(Field("bars_left", None, n_levels))
    columns += [Field(name, None, n_values)
                for name, n_values in zip(CHORD_FIELDS, CHORD_SIZES, strict=True)]
    return tuple(columns)


def song_controls(rows: np.ndarray,
                  vocabulary: Vocabulary,
                  levels: Levels) -> np.ndarray:
    """(N, K) uint8: the controls of each of (N, 4) rows of one song, in any order.

    BOS takes those of the song's beginning. EOS, and what fills rows up, take those of its end.
    """
    song = song_bars(rows, vocabulary)
    sheets = sheets_of_bars(song, vocabulary, levels)
    chords = estimate_chords(rows, vocabulary, song.first_bar, song.n_bars)

    ids = rows.astype(np.int64)
    is_note = ids[:, BAR] >= FIRST_ID
    bar = ids[:, BAR] - FIRST_ID - song.first_bar
    half_bar_steps = vocabulary.steps_per_bar // HALVES_PER_BAR
    in_second_half = ids[:, START_POS] - FIRST_ID >= half_bar_steps
    half_bar = HALVES_PER_BAR * bar + in_second_half
    last_half_bar = HALVES_PER_BAR * song.n_bars - 1
    begins = ids[:, BAR] == BOS
    at_edge = np.where(begins, 0, last_half_bar)
    half_bar = np.where(is_note, half_bar, at_edge)          # (N,)
    bar = half_bar // HALVES_PER_BAR
    left = bars_left(song.n_bars - 1 - bar)
    return np.concatenate([sheets[bar], left[:, None], chords[half_bar]], axis=1)


def bars_left(n_bars: np.ndarray) -> np.ndarray:
    """uint8 ids of how many bars of a song come after a bar: 0 in its last."""
    bucket = np.searchsorted(BARS_LEFT_EDGES, n_bars)
    return (FIRST_VALUE + bucket).astype(np.uint8)


def transposed(controls: np.ndarray,
               semitones: int,
               vocabulary: Vocabulary) -> np.ndarray:
    """A copy of (..., K) controls with the key and the chords moved; NONE and UNKNOWN stay."""
    moved = controls.copy()
    column = key_column(vocabulary)
    key = controls[..., column].astype(np.int64)
    shift = semitones * len(MODES)
    shifted = FIRST_VALUE + (key - FIRST_VALUE + shift) % N_KEYS
    moved[..., column] = np.where(key >= FIRST_VALUE, shifted, key)
    chords = controls[..., CHORD_COLUMNS]
    moved[..., CHORD_COLUMNS] = transposed_chords(chords, semitones)
    return moved


def silenced(controls: np.ndarray,
             parts: Collection[int],
             vocabulary: Vocabulary) -> np.ndarray:
    """A copy of (..., K) controls in which some parts, by number, do not play."""
    silent = [column
              for column, field in enumerate(fields(vocabulary))
              if field.part in parts]
    changed = controls.copy()
    changed[..., silent] = NONE
    return changed


def forgotten(controls: np.ndarray,
              random: np.random.Generator,
              share: float = 0.15,
              share_all: float = 0.1) -> np.ndarray:
    """A copy of (B, T, K) controls of which some are unknown: a model learns to play without them.

    In each of the B songs, each column is forgotten with the chance `share`, a chord's three
    together. With the chance `share_all` all columns are.
    """
    n_songs, _, n_fields = controls.shape
    is_unknown = random.random((n_songs, n_fields)) < share
    is_unknown[:, CHORD_COLUMNS] = is_unknown[:, -1:]
    is_unknown |= random.random((n_songs, 1)) < share_all
    unknown = controls.dtype.type(UNKNOWN)
    return np.where(is_unknown[:, None], unknown, controls)
