"""What a song is like, in numbers: tonality, groove, density, structure, and how its parts agree.

Songs are (N, F) note ids in order, so generated and real ones are measured on the same grid.
A measure is nan where the song has nothing to measure, such as the polyphony of a silent part.

Sources: pitch-class entropy, scale consistency, groove consistency, polyphony and empty bars are
MusPy's (Dong et al. 2020), with one difference: a song whose last note ends on a bar line has no
bar after it, where MusPy counts an empty one. Groove consistency is near 1 for any song of few
notes. Groove similarity therefore stands beside it: what two neighbouring bars share.
"""

from __future__ import annotations

import itertools
from typing import NamedTuple

import numpy as np

from backline.music.theory import OCTAVE, PITCH_CLASSES, scale_pitch_classes
from backline.music.vocab import (
    BAR,
    FIRST_ID,
    NOTE_DUR,
    PITCH_INSTRUMENT,
    QUARTERS_PER_BAR,
    START_POS,
    Vocabulary,
)

DISTANCES = (1, 2, 4, 8, 16)  # bars between those compared: phrases return after four and eight

SCALES = itertools.product(PITCH_CLASSES, ("major", "minor"))
SCALE_MASKS = np.array([
    np.isin(np.arange(OCTAVE), list(scale_pitch_classes(tonic, scale)))
    for tonic, scale in SCALES
])  # (24, 12)


class NoteColumns(NamedTuple):
    """Notes as columns (N,), times in steps of the grid."""

    onset: np.ndarray
    end: np.ndarray
    pitch: np.ndarray  # of MIDI
    ids: np.ndarray  # of pitch and instrument

    def only(self, which: np.ndarray) -> NoteColumns:
        """The notes that `which`, (N,) bool or indices, picks."""
        columns = (column[which] for column in self)
        return NoteColumns(*columns)


def measure_song(rows: np.ndarray, vocabulary: Vocabulary) -> dict[str, float]:
    """All measures of a song by name: of all its parts together, then "bass: …" and so on.

    Args:
        rows: (N, F) note ids in order, N > 0.
    """
    notes = note_columns(rows, vocabulary)
    n_steps = int(notes.end.max())
    n_bars = -(-n_steps // vocabulary.steps_per_bar)  # rounded up
    part_of_note = vocabulary.part_of_id[notes.ids]
    is_drum = vocabulary.is_drum
    notes_of_part = [notes.only(part_of_note == p)
                     for p in range(len(vocabulary.parts))]

    found = {"bars": float(n_bars)}
    found |= _rhythm(notes, n_bars, vocabulary)
    melodic = notes.only(~is_drum[part_of_note])
    found |= _tonality(melodic, vocabulary)
    found |= _self_similarity(notes, n_bars, vocabulary)
    for part, own in zip(vocabulary.parts, notes_of_part, strict=True):
        of_part = _rhythm(own, n_bars, vocabulary)
        if part.is_drum:
            of_part |= _kit(own, n_bars, vocabulary)
        else:
            of_part |= _tonality(own, vocabulary)
        for name, value in of_part.items():
            found[f"{part.name}: {name}"] = value
    melodic_parts = np.flatnonzero(~is_drum)
    names = vocabulary.part_names
    for a, b in itertools.combinations(melodic_parts, 2):
        name = f"{names[a]} in the chord of {names[b]}"
        found[name] = in_chord(notes_of_part[a], notes_of_part[b], vocabulary)
    return found


def note_columns(rows: np.ndarray, vocabulary: Vocabulary) -> NoteColumns:
    """The notes of (N, F) ids, with times in steps from the first bar on."""
    ids = rows[:, PITCH_INSTRUMENT]
    bar = rows[:, BAR].astype(np.int64) - FIRST_ID
    onset = bar * vocabulary.steps_per_bar + rows[:, START_POS] - FIRST_ID
    length = rows[:, NOTE_DUR] - FIRST_ID + 1
    pitch = vocabulary.pitch_of_id[ids]
    return NoteColumns(onset, onset + length, pitch, ids)


def _rhythm(notes: NoteColumns,
            n_bars: int,
            vocabulary: Vocabulary) -> dict[str, float]:
    steps_per_bar = vocabulary.steps_per_bar
    has_onset = np.zeros((n_bars, steps_per_bar), bool)
    bar, step = np.divmod(notes.onset, steps_per_bar)
    has_onset[bar, step] = True
    return {
        "notes per bar": len(notes.onset) / n_bars,
        "empty bars": empty_bars(notes, n_bars, steps_per_bar),
        "groove consistency": groove_consistency(has_onset),
        "groove similarity": jaccard(has_onset[:-1], has_onset[1:]),
    }


def _tonality(notes: NoteColumns, vocabulary: Vocabulary) -> dict[str, float]:
    """Measures of melodic notes; drums have no tonality."""
    names = ("pitch-class entropy", "scale consistency", "polyphony", "note length", "pitch range")
    if not len(notes.onset):
        return dict.fromkeys(names, np.nan)
    counts = np.bincount(notes.pitch % OCTAVE, minlength=OCTAVE)  # (12,)
    length_steps = (notes.end - notes.onset).mean()
    values = (
        pitch_class_entropy(counts),
        scale_consistency(counts),
        polyphony(notes),
        float(length_steps / vocabulary.steps_per_quarter),  # in quarter notes
        float(np.ptp(notes.pitch)),
    )
    return dict(zip(names, values, strict=True))


def _self_similarity(notes: NoteColumns,
                     n_bars: int,
                     vocabulary: Vocabulary) -> dict[str, float]:
    """What bars share with those that come some DISTANCES after them."""
    strokes = strokes_in_bars(notes, n_bars, vocabulary.steps_per_bar)
    found = {}
    for distance in DISTANCES:
        earlier = strokes[:-distance]
        later = strokes[distance:]
        found[f"self-similarity {distance}"] = jaccard(earlier, later)
    return found


def _kit(notes: NoteColumns,
         n_bars: int,
         vocabulary: Vocabulary) -> dict[str, float]:
    """Measures of drums alone."""
    if not len(notes.onset):
        return {"pattern regularity": np.nan, "pieces": np.nan}
    strokes = strokes_in_bars(notes, n_bars, vocabulary.steps_per_bar)
    return {
        "pattern regularity": pattern_regularity(strokes),
        "pieces": float(len(np.unique(notes.pitch))),
    }


# ---------------------------------------------------------------- tonality


def pitch_class_entropy(counts: np.ndarray) -> float:
    """Bits, from the (12,) counts of pitch classes: 0 for a single one, 3.58 if all are equal."""
    shares = counts[counts > 0] / counts.sum()
    return float(-(shares * np.log2(shares)).sum() + 0.0)  # + 0.0: no −0


def scale_consistency(counts: np.ndarray) -> float:
    """Share of the notes that lie in the major or minor scale that holds most of them.

    `counts`: (12,) notes of each pitch class.
    """
    return float((SCALE_MASKS @ counts).max() / counts.sum())


def polyphony(notes: NoteColumns) -> float:
    """Mean number of pitches that sound at once, over the steps in which any does."""
    n_steps = int(notes.end.max())
    n_pitches = int(notes.pitch.max()) + 1
    roll = np.zeros((n_steps, n_pitches), bool)
    for onset, end, pitch in zip(notes.onset, notes.end, notes.pitch, strict=True):
        roll[onset:end, pitch] = True
    n_sounding = roll.sum(1)
    return float(n_sounding.sum() / (n_sounding > 0).sum())


def in_chord(notes: NoteColumns,
             chords: NoteColumns,
             vocabulary: Vocabulary) -> float:
    """How often the lowest of `notes` is a chord tone, on the first and third quarter of a bar.

    The chord tones are the pitch classes that sound in `chords` at that moment. Moments at which
    either is silent do not count.
    """
    half_bar = vocabulary.steps_per_bar // QUARTERS_PER_BAR * 2
    last_end = notes.end.max(initial=0)
    end = max(last_end, chords.end.max(initial=0))
    times = np.arange(0, end, half_bar)
    ours = _sounding(notes, times)
    theirs = _sounding(chords, times)
    hits = []
    both_sound = ours.any(1) & theirs.any(1)
    for i in np.flatnonzero(both_sound):
        lowest = notes.pitch[ours[i]].min()
        chord = chords.pitch[theirs[i]] % OCTAVE
        hits.append(lowest % OCTAVE in chord)
    return float(np.mean(hits)) if hits else np.nan


def _sounding(notes: NoteColumns, times: np.ndarray) -> np.ndarray:
    """(times, N) bool: whether each note sounds at each time."""
    times = times[:, None]
    return (notes.onset <= times) & (times < notes.end)


# ---------------------------------------------------------------- bars


def strokes_in_bars(notes: NoteColumns,
                    n_bars: int,
                    steps_per_bar: int) -> np.ndarray:
    """(n_bars, K) bool: which of the song's K distinct strokes each bar has.

    A stroke is a place in the bar and a sound.
    """
    places = np.stack([notes.onset % steps_per_bar, notes.ids])
    strokes, stroke_of_note = np.unique(places, axis=1, return_inverse=True)
    has_stroke = np.zeros((n_bars, strokes.shape[1]), bool)
    has_stroke[notes.onset // steps_per_bar, stroke_of_note.ravel()] = True
    return has_stroke


def jaccard(bars: np.ndarray, others: np.ndarray) -> float:
    """What pairs of bars share, as a share of what either has (Jaccard), on average.

    Pairs of empty bars do not count.

    Args:
        bars, others: (n, K) bool, a pair in each row.
    """
    either = (bars | others).sum(1)
    both = (bars & others).sum(1)
    counts = either > 0
    if not counts.any():
        return np.nan
    return float((both[counts] / either[counts]).mean())


def groove_consistency(has_onset: np.ndarray) -> float:
    """1 minus the share of places at which just one of two neighbouring bars has an onset.

    `has_onset`: (n_bars, steps) bool.
    """
    if len(has_onset) < 2:
        return np.nan
    differs = has_onset[:-1] != has_onset[1:]
    return float(1 - differs.mean())


def empty_bars(notes: NoteColumns, n_bars: int, steps_per_bar: int) -> float:
    """Share of the bars in which nothing sounds."""
    first_bars = notes.onset // steps_per_bar
    last_bars = (notes.end - 1) // steps_per_bar
    begin = np.bincount(first_bars, minlength=n_bars + 1)
    stop = np.bincount(last_bars + 1, minlength=n_bars + 1)
    n_sounding = np.cumsum(begin - stop)[:n_bars]
    return float((n_sounding == 0).mean())


def pattern_regularity(strokes: np.ndarray) -> float:
    """Share of the most frequent pattern among the bars (n_bars, K) that have any stroke."""
    playing = strokes[strokes.any(1)]
    _, counts = np.unique(playing, axis=0, return_counts=True)
    return float(counts.max() / len(playing))
