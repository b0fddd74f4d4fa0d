"""A critic: how real a song sounds, by what its histograms share with those of real songs.

It is a logistic regression on what `describe` counts: where notes begin in the bar, how long they
are, their pitches and intervals, how full bars are, and what changes from one to the next. It knows
none of the measures by which `evaluate.py` judges songs. `evaluation/critic_learning.py` fits it to
real training songs and to songs that the model wrote itself; a model's file carries it as lists of
numbers (`FACT`).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from backline.common.errors import UserError
from backline.music.theory import OCTAVE
from backline.music.vocab import (
    BAR,
    FIRST_ID,
    NOTE_DUR,
    PITCH_INSTRUMENT,
    START_POS,
    Part,
    Vocabulary,
)

FACT = "critic"  # its name in what a model's file says of its training
FORMAT = "backline-critic"
VERSION = 1
MOST_ODDS = 50.0  # no song is farther from the others than that
ARRAYS = ("mean", "scale", "weights")

# The least value of each bin of a histogram; what is below the first counts for the first.
LENGTHS = (1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 64)  # steps
COUNTS = (0, 1, 2, 3, 5, 7, 9, 13, 17, 25)  # notes in a bar
CHANGES = (0, 1, 2, 3, 5, 9)  # of that, from a bar to the next
SHARES = (0.0, 0.01, 0.34, 0.67, 0.99)  # of onsets or pitches that two bars have in common
WIDEST = OCTAVE  # semitones; wider intervals count as it


@dataclasses.dataclass(frozen=True)
class Critic:
    """A fitted critic. The three have a number for each column of `describe`, in its order.

    mean, scale: of real and made songs alike, by which a column is brought to one size.
    weights: the more of a column, the more real where the weight is above 0.
    bias: added to the sum.
    """

    mean: np.ndarray
    scale: np.ndarray
    weights: np.ndarray
    bias: float

    def realness(self, rows: np.ndarray, vocabulary: Vocabulary) -> float:
        """The log-odds that a song, (N, F) rows with N > 0, is real and not made."""
        columns = (describe(rows, vocabulary) - self.mean) / self.scale
        return float(np.clip(columns @ self.weights + self.bias, -MOST_ODDS, MOST_ODDS))

    def to_dict(self) -> dict[str, Any]:
        """As JSON data; rounded, which changes no choice that is not a tie."""
        arrays = {name: [float(f"{value:.5g}") for value in getattr(self, name).tolist()]
                  for name in ARRAYS}
        return {"format": FORMAT, "version": VERSION, **arrays, "bias": round(self.bias, 5)}

    @classmethod
    def from_dict(cls, data: Any, vocabulary: Vocabulary, where: Path) -> Critic:
        """The critic in JSON data. Raises UserError if it is damaged or of another vocabulary."""
        try:
            if (data["format"], data["version"]) != (FORMAT, VERSION):
                raise ValueError
            arrays = {name: np.array(data[name], np.float64) for name in ARRAYS}
            bias = float(data["bias"])
        except (KeyError, TypeError, ValueError):
            raise UserError(f"{where}: damaged critic; get the file again") from None
        n_columns = len(column_names(vocabulary))
        are_good = [array.shape == (n_columns,) and np.isfinite(array).all() for array in arrays.values()]
        if not all(are_good) or not (arrays["scale"] > 0).all():
            raise UserError(f"{where}: its critic has other columns than its parts; get the file again")
        return cls(**arrays, bias=bias)


def critic_of(facts: dict[str, Any], vocabulary: Vocabulary, where: Path) -> Critic | None:
    """The critic in what a model's file says of itself; None if it has none. Raises UserError."""
    data = facts.get(FACT)
    return None if data is None else Critic.from_dict(data, vocabulary, where)


# ---------------------------------------------------------------- what it hears


def describe(rows: np.ndarray, vocabulary: Vocabulary) -> np.ndarray:
    """The columns of a song, (N, F) rows in order with N > 0: square roots of shares.

    Square roots bring rare and frequent values to one size, as Hellinger's distance does.
    """
    return np.sqrt(np.concatenate(list(_histograms(rows, vocabulary))))


def column_names(vocabulary: Vocabulary) -> list[str]:
    """What each column of `describe` counts."""
    names = []
    for part in vocabulary.parts:
        for kind, size in _kinds(part, vocabulary):
            names += [f"{part.name}: {kind} {i}" for i in range(size)]
    melodic = [part.name for part in vocabulary.parts if not part.is_drum]
    for upper in melodic[1:]:
        names += [f"{upper} above {melodic[0]} {i}" for i in range(OCTAVE + 1)]
    return names


def _kinds(part: Part, vocabulary: Vocabulary) -> Iterator[tuple[str, int]]:
    """The histograms of a part, and how many bins each has."""
    yield "position", vocabulary.steps_per_bar
    yield "length", len(LENGTHS)
    yield "notes in a bar", len(COUNTS)
    yield "change", len(CHANGES)
    yield "same onsets", len(SHARES)
    yield "same pitches", len(SHARES)
    if part.is_drum:
        yield "pitch", part.n_pitches
    else:
        yield "octave", part.n_pitches // OCTAVE + 1
        yield "interval", 2 * WIDEST + 1
        yield "in a chord", OCTAVE


def _histograms(rows: np.ndarray, vocabulary: Vocabulary) -> Iterator[np.ndarray]:
    """The shares of all bins, histogram by histogram."""
    bar = rows[:, BAR].astype(np.int64) - FIRST_ID
    bar -= bar.min()
    n_bars = int(bar.max()) + 1
    notes = NoteColumns(
        bar * vocabulary.steps_per_bar + rows[:, START_POS] - FIRST_ID,
        rows[:, NOTE_DUR].astype(np.int64) - FIRST_ID + 1,
        vocabulary.pitch_of_id[rows[:, PITCH_INSTRUMENT]].astype(np.int64),
    )
    part_of_note = vocabulary.part_of_id[rows[:, PITCH_INSTRUMENT]]
    of_parts = [notes.only(part_of_note == p) for p in range(len(vocabulary.parts))]
    for part, own in zip(vocabulary.parts, of_parts, strict=True):
        yield from _of_part(part, own, n_bars, vocabulary.steps_per_bar)
    melodic = [own for part, own in zip(vocabulary.parts, of_parts, strict=True) if not part.is_drum]
    for upper in melodic[1:]:
        yield _above(upper, melodic[0])


class NoteColumns(NamedTuple):
    """Notes as columns (N,), times in steps from the first bar on."""

    onset: np.ndarray
    length: np.ndarray
    pitch: np.ndarray

    def only(self, which: np.ndarray) -> NoteColumns:
        """The notes that `which`, (N,) bool, picks."""
        return NoteColumns(*(column[which] for column in self))


def _of_part(part: Part,
             notes: NoteColumns,
             n_bars: int,
             steps: int) -> Iterator[np.ndarray]:
    """The histograms of one part in bars of `steps`, in the order of `_kinds`."""
    onset, length, pitch = notes
    bar, position = np.divmod(onset, steps)
    yield _shares(position, steps)
    yield _binned(length, LENGTHS)
    in_bar = np.bincount(bar, minlength=n_bars)
    yield _binned(in_bar, COUNTS)
    yield _binned(np.abs(np.diff(in_bar)), CHANGES)
    begins = np.zeros((n_bars, steps), bool)
    begins[bar, position] = True
    yield _binned(_in_common(begins), SHARES)
    sounds = np.zeros((n_bars, part.n_pitches), bool)
    sounds[bar, pitch - part.lowest_pitch] = True
    yield _binned(_in_common(sounds), SHARES)
    if part.is_drum:
        yield _shares(pitch - part.lowest_pitch, part.n_pitches)
        return
    yield _shares((pitch - part.lowest_pitch) // OCTAVE, part.n_pitches // OCTAVE + 1)
    same_time = np.diff(onset) == 0
    interval = np.diff(pitch)
    melody = np.clip(interval[~same_time], -WIDEST, WIDEST) + WIDEST
    yield _shares(melody, 2 * WIDEST + 1)
    yield _shares(interval[same_time] % OCTAVE, OCTAVE)


def _above(notes: NoteColumns, bass: NoteColumns) -> np.ndarray:
    """(OCTAVE + 1,) shares of notes by the pitch class above the bass note before; last: none yet."""
    place = np.searchsorted(bass.onset, notes.onset, side="right") - 1
    there = place >= 0
    above = np.full(len(notes.onset), OCTAVE)
    if len(bass.onset):
        above[there] = (notes.pitch[there] - bass.pitch[place[there]]) % OCTAVE
    return _shares(above, OCTAVE + 1)


def _in_common(bars: np.ndarray) -> np.ndarray:
    """Shares of what two neighbours of (n_bars, n) bool bars have that both have; none of empty ones."""
    both = (bars[1:] & bars[:-1]).sum(1)
    either = (bars[1:] | bars[:-1]).sum(1)
    return both[either > 0] / either[either > 0]


def _binned(values: np.ndarray, edges: Sequence[float]) -> np.ndarray:
    """(len(edges),) shares of the values from each edge to before the next."""
    place = np.searchsorted(np.array(edges), values, side="right") - 1
    return _shares(np.maximum(place, 0), len(edges))


def _shares(bins: np.ndarray, n: int) -> np.ndarray:
    """(n,) shares of the bins; zeros without any."""
    return np.bincount(bins, minlength=n) / max(len(bins), 1)
