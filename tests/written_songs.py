"""Songs written note by note or chord by chord, as token rows, and songs that have room to move."""

from __future__ import annotations

import numpy as np
from random_songs import VOCABULARY, random_song

from backline.music.chords import CHORD_ROOT, FIRST_VALUE, INTERVALS, NONE
from backline.music.sheet import Levels, sheets_of_bars, song_bars
from backline.music.theory import OCTAVE
from backline.music.vocab import BAR, FIELDS, FIRST_ID, PITCH_INSTRUMENT, START_POS, Vocabulary

NOTHING = np.zeros((0, len(FIELDS)), np.int64)


def pitch_id(vocabulary: Vocabulary, part: str, pitch: int) -> int:
    p = vocabulary.part_names.index(part)
    return vocabulary.first_pitch_ids[p] + pitch - vocabulary.parts[p].lowest_pitch


def notes(*struck: tuple[int, int, str, int]) -> np.ndarray:
    """(N, F) ids of (bar, step, part, pitch)."""
    rows = [(FIRST_ID + bar, FIRST_ID + step, FIRST_ID + 3, pitch_id(VOCABULARY, name, pitch))
            for bar, step, name, pitch in struck]
    return np.array(rows, np.int64).reshape(-1, len(FIELDS))


def song(*held: tuple[int, int, int, str, int]) -> np.ndarray:
    """(N, F) ids in order of (bar, step, steps, part, pitch)."""
    rows = [(FIRST_ID + bar, FIRST_ID + step, FIRST_ID + steps - 1, pitch_id(VOCABULARY, name, pitch))
            for bar, step, steps, name, pitch in held]
    return np.array(sorted(rows, key=lambda row: (row[BAR], row[START_POS], row[PITCH_INSTRUMENT])))


def note(step: int, duration: int, pitch: int, part: str = "piano",
         vocabulary: Vocabulary = VOCABULARY) -> tuple[int, ...]:
    """A row of ids; `step` counts from bar 0."""
    bar, start = divmod(step, vocabulary.steps_per_bar)
    return FIRST_ID + bar, FIRST_ID + start, FIRST_ID + duration - 1, pitch_id(vocabulary, part, pitch)


def block_chords(rows: np.ndarray, vocabulary: Vocabulary = VOCABULARY) -> np.ndarray:
    """A song that plays (H, 3) chords, one each half bar: the bass its bass, the piano its notes."""
    half, notes = vocabulary.steps_per_bar // 2, []
    for number, row in enumerate(rows):
        if row[CHORD_ROOT] == NONE:
            continue
        root, quality, bass = (row.astype(int) - FIRST_VALUE).tolist()
        notes.append(note(number * half, half, 36 + bass, "bass", vocabulary))
        notes += [note(number * half, half, 48 + (root + interval) % OCTAVE, "piano", vocabulary)
                  for interval in INTERVALS[quality]]
    return np.array(notes)


def moved_song(rows: np.ndarray, semitones: int, vocabulary: Vocabulary = VOCABULARY) -> np.ndarray:
    """All but drums; their notes must have room."""
    part = vocabulary.part_of_id[rows[:, PITCH_INSTRUMENT]]
    melodic = (part >= 0) & ~vocabulary.is_drum[part]
    moved = rows.copy()
    moved[melodic, PITCH_INSTRUMENT] += semitones
    assert (vocabulary.part_of_id[moved[:, PITCH_INSTRUMENT]] == part).all()
    return moved


def middle_song(seed: int, n_notes: int = 60, n_bars: int = 6) -> np.ndarray:
    """A random song that has room to move by six semitones."""
    rows = random_song(seed, n_notes, n_bars)
    pitch = VOCABULARY.pitch_of_id[rows[:, PITCH_INSTRUMENT]]
    drums = VOCABULARY.part_of_id[rows[:, PITCH_INSTRUMENT]] == 0
    return rows[drums | ((pitch >= 27) & (pitch <= 102))]


def song_sheets(rows: np.ndarray, vocabulary: Vocabulary, levels: Levels) -> np.ndarray:
    """(n_bars, K_sheet) the sheet of each bar of a song."""
    return sheets_of_bars(song_bars(rows, vocabulary), vocabulary, levels)
