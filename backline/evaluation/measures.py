"""What a song is like, in numbers: tonality, groove, density, structure, and how its parts agree. numpy alone.

Songs are (N, F) note ids in order, so generated and real ones are measured on the same grid. A measure that a song
has nothing for, such as the polyphony of a part that is silent, is nan.

Sources: pitch-class entropy, scale consistency, groove consistency, polyphony and empty bars are MusPy's (Dong et al.
2020), with two differences. A song whose last note ends on a bar line has no bar after it, where MusPy counts an
empty one. And since groove consistency comes out near 1 for whatever has few notes, groove similarity stands beside
it: what two neighbouring bars have in common, as a share of what they have.
"""

from __future__ import annotations

import itertools
from typing import NamedTuple

import numpy as np

from backline.music.theory import OCTAVE, PITCH_CLASSES, scale_pitch_classes
from backline.music.vocab import BAR, FIRST_ID, NOTE_DUR, PITCH_INSTRUMENT, QUARTERS_PER_BAR, START_POS, Vocabulary

DISTANCES = (1, 2, 4, 8, 16)  # bars, between those that are compared: phrases come back after four and after eight
SCALE_MASKS = np.array([np.isin(np.arange(OCTAVE), list(scale_pitch_classes(tonic, scale)))
                        for tonic, scale in itertools.product(PITCH_CLASSES, ("major", "minor"))])  # (24, 12)


class NoteColumns(NamedTuple):
    """Notes in steps of the grid: (N,) onset, end and MIDI pitch of each; `ids` are of pitch and instrument."""

    onset: np.ndarray
    end: np.ndarray
    pitch: np.ndarray
    ids: np.ndarray

    def only(self, which: np.ndarray) -> NoteColumns:
        return NoteColumns(*(column[which] for column in self))


def measure_song(rows: np.ndarray, vocabulary: Vocabulary) -> dict[str, float]:
    """All measures of a song, (N, F) note ids in order with N > 0, by name: of all parts, then "bass: …" and so on."""
    v, ids = vocabulary, rows[:, PITCH_INSTRUMENT]
    onset = (rows[:, BAR].astype(np.int64) - FIRST_ID) * v.steps_per_bar + rows[:, START_POS] - FIRST_ID
    notes = NoteColumns(onset, onset + rows[:, NOTE_DUR] - FIRST_ID + 1, v.pitch_of_id[ids], ids)
    n_bars = -(-int(notes.end.max()) // v.steps_per_bar)
    parts, drums = v.part_of_id[ids], np.array([part.is_drum for part in v.parts])
    melodic = notes.only(~drums[parts])

    found = {"bars": float(n_bars), **_rhythm(notes, n_bars, v), **_tonality(melodic, v)}
    struck = struck_in_bars(notes, n_bars, v.steps_per_bar)
    found |= {f"self-similarity {d}": alike(struck[:-d], struck[d:]) for d in DISTANCES}
    for p, part in enumerate(v.parts):
        own = notes.only(parts == p)
        of_part = {**_rhythm(own, n_bars, v), **(_kit(own, n_bars, v) if part.is_drum else _tonality(own, v))}
        found |= {f"{part.name}: {name}": value for name, value in of_part.items()}
    names = [(p, part.name) for p, part in enumerate(v.parts) if not part.is_drum]
    for (a, name), (b, other) in itertools.combinations(names, 2):
        found[f"{name} in the chord of {other}"] = in_chord(notes.only(parts == a), notes.only(parts == b), v)
    return found


def _rhythm(notes: NoteColumns, n_bars: int, v: Vocabulary) -> dict[str, float]:
    struck = np.zeros((n_bars, v.steps_per_bar), bool)
    struck[notes.onset // v.steps_per_bar, notes.onset % v.steps_per_bar] = True
    return {"notes per bar": len(notes.onset) / n_bars,
            "empty bars": empty_bars(notes, n_bars, v.steps_per_bar),
            "groove consistency": groove_consistency(struck),
            "groove similarity": alike(struck[:-1], struck[1:])}


def _tonality(notes: NoteColumns, v: Vocabulary) -> dict[str, float]:
    """Of notes that are no drums."""
    names = ("pitch-class entropy", "scale consistency", "polyphony", "note length", "pitch range")
    if not len(notes.onset):
        return dict.fromkeys(names, np.nan)
    counts = np.bincount(notes.pitch % OCTAVE, minlength=OCTAVE)
    length = (notes.end - notes.onset).mean() / v.steps_per_quarter  # quarter notes
    values = (pitch_class_entropy(counts), scale_consistency(counts), polyphony(notes), float(length),
              float(np.ptp(notes.pitch)))
    return dict(zip(names, values, strict=True))


def _kit(notes: NoteColumns, n_bars: int, v: Vocabulary) -> dict[str, float]:
    """Of drums."""
    if not len(notes.onset):
        return {"pattern regularity": np.nan, "pieces": np.nan}
    return {"pattern regularity": pattern_regularity(struck_in_bars(notes, n_bars, v.steps_per_bar)),
            "pieces": float(len(np.unique(notes.pitch)))}


# ---------------------------------------------------------------- tonality


def pitch_class_entropy(counts: np.ndarray) -> float:
    """Bits, from the (12,) counts of pitch classes: 0 for one alone, 3.58 where all are as frequent."""
    shares = counts[counts > 0] / counts.sum()
    return float(-(shares * np.log2(shares)).sum() + 0.0)


def scale_consistency(counts: np.ndarray) -> float:
    """Share of the notes, counted by pitch class (12,), that lie in the major or minor scale that holds most."""
    return float((SCALE_MASKS @ counts).max() / counts.sum())


def polyphony(notes: NoteColumns) -> float:
    """Pitches that sound at once, on average over the steps in which any does."""
    roll = np.zeros((int(notes.end.max()), int(notes.pitch.max()) + 1), bool)
    for onset, end, pitch in zip(notes.onset, notes.end, notes.pitch, strict=True):
        roll[onset:end, pitch] = True
    sounding = roll.sum(1)
    return float(sounding.sum() / (sounding > 0).sum())


def in_chord(notes: NoteColumns, chords: NoteColumns, v: Vocabulary) -> float:
    """Of the first and third quarters of bars on which both sound: how often the lowest of `notes` is a chord tone.

    A chord's tones are the pitch classes that sound in `chords` at that moment.
    """
    every = v.steps_per_bar // QUARTERS_PER_BAR * 2
    times = np.arange(0, max(notes.end.max(initial=0), chords.end.max(initial=0)), every)[:, None]
    ours, theirs = ((other.onset <= times) & (times < other.end) for other in (notes, chords))  # (times, N)
    both = np.flatnonzero(ours.any(1) & theirs.any(1))
    if not len(both):
        return np.nan
    return float(np.mean([notes.pitch[ours[i]].min() % OCTAVE in chords.pitch[theirs[i]] % OCTAVE for i in both]))


# ---------------------------------------------------------------- bars


def struck_in_bars(notes: NoteColumns, n_bars: int, steps_per_bar: int) -> np.ndarray:
    """(n_bars, K) which of the song's K distinct strokes, a place in the bar and a sound, each bar has."""
    strokes, column = np.unique(np.stack([notes.onset % steps_per_bar, notes.ids]), axis=1, return_inverse=True)
    struck = np.zeros((n_bars, strokes.shape[1]), bool)
    struck[notes.onset // steps_per_bar, column.ravel()] = True
    return struck


def alike(bars: np.ndarray, others: np.ndarray) -> float:
    """What pairs of bars, rows (n, K), have in common, as a share of what they have together (Jaccard), on average.

    Pairs of empty bars do not count.
    """
    either = (bars | others).sum(1)
    counted = either > 0
    return float(((bars & others).sum(1)[counted] / either[counted]).mean()) if counted.any() else np.nan


def groove_consistency(struck: np.ndarray) -> float:
    """1 less the share of the places (n_bars, steps) at which one of two neighbouring bars has an onset, not both."""
    return float(1 - (struck[:-1] != struck[1:]).mean()) if len(struck) > 1 else np.nan


def empty_bars(notes: NoteColumns, n_bars: int, steps_per_bar: int) -> float:
    """Share of the bars in which nothing sounds."""
    first, last = notes.onset // steps_per_bar, (notes.end - 1) // steps_per_bar
    change = np.bincount(first, minlength=n_bars + 1) - np.bincount(last + 1, minlength=n_bars + 1)
    return float((np.cumsum(change)[:n_bars] == 0).mean())


def pattern_regularity(struck: np.ndarray) -> float:
    """How often the most frequent bar comes, of the bars (n_bars, K) in which anything is struck."""
    playing = struck[struck.any(1)]
    return float(np.unique(playing, axis=0, return_counts=True)[1].max() / len(playing))
