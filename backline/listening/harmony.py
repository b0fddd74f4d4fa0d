"""Key and chords of a song as pages show them, worked out from its notes."""

from __future__ import annotations

import itertools
from typing import NamedTuple

import numpy as np

from backline.listening.song_view import SongView
from backline.music.bars import quantize_onsets
from backline.music.chords import HALVES_PER_BAR, chord_name, estimate_chords
from backline.music.sheet import key_of
from backline.music.vocab import Vocabulary
from tokenizer import parts_to_rows

NO_CHORD = "-"  # as `chord_name` writes it


class Harmony(NamedTuple):
    """What is heard in a song.

    key: such as "A minor"; "" where none is heard.
    chords: (tick, name) of each change; the name is "" where no chord is heard.
    """

    key: str
    chords: tuple[tuple[int, str], ...]


def heard_harmony(view: SongView, vocabulary: Vocabulary) -> Harmony:
    """Key and chords of a song; of one longer than the vocabulary's, those of its first bars."""
    rows = _rows(view, vocabulary)
    n_bars = min(view.n_bars, vocabulary.bars)
    if not len(rows):
        return Harmony("", ())
    tonic, mode = key_of(rows, vocabulary, 0, n_bars - 1)
    names = [chord_name(row) for row in estimate_chords(rows, vocabulary, 0, n_bars)]
    if set(names) == {NO_CHORD}:
        return Harmony("", ())
    chords = []
    half_bar = 0
    for name, run in itertools.groupby(names):
        tick = half_bar * view.bar_ticks // HALVES_PER_BAR
        chords.append((tick, "" if name == NO_CHORD else name))
        half_bar += len(list(run))
    return Harmony(f"{tonic} {mode}" if tonic else "", tuple(chords))


def _rows(view: SongView, vocabulary: Vocabulary) -> np.ndarray:
    """(N, F) rows of the notes of the parts that the vocabulary holds."""
    end = vocabulary.bars * vocabulary.steps_per_bar
    parts = []
    for part, lane in zip(vocabulary.parts, view.lanes, strict=False):  # others follow the parts
        pitch = lane.notes[:, 2]
        step = quantize_onsets(lane.notes[:, 0], view.ticks_per_quarter, vocabulary.steps_per_quarter)
        in_range = (pitch >= part.lowest_pitch) & (pitch <= part.highest_pitch)
        parts.append(lane.notes[in_range & (step >= 0) & (step < end)])
    return parts_to_rows(parts, view.ticks_per_quarter, vocabulary, "the song")
