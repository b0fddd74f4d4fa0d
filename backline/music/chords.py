"""Chords: read from text, worked out from notes, and told as small ids.

A chord is a row of three ids: its root, its quality and its bass, the pitch class that sounds
lowest. There is one chord for each half bar, since pop songs seldom change them more often.

The estimate compares what sounds with a template of each chord, as Fujishima (1999) does with
audio. What sounds is counted in note durations, as Pardo and Birmingham (2002) do with scores. The
Viterbi algorithm finds the best path of chords, on which a change costs something, as Sheh and
Ellis (2003) do.
"""

from __future__ import annotations

import dataclasses
import itertools
import re
from typing import NamedTuple

import numpy as np

from backline.common.errors import UserError, suggestion
from backline.music.theory import OCTAVE, PITCH_CLASSES
from backline.music.vocab import BAR, FIRST_ID, NOTE_DUR, PITCH_INSTRUMENT, START_POS, Vocabulary

# Ids of every control: nothing is said; there is none; the first value.
UNKNOWN, NONE, FIRST_VALUE = range(3)

CHORD_FIELDS = ("chord_root", "chord_quality", "chord_bass")
CHORD_ROOT, CHORD_QUALITY, CHORD_BASS = range(len(CHORD_FIELDS))

QUALITIES = ("maj", "min", "7", "maj7", "m7", "dim", "aug", "sus")
SUFFIXES = ("", "m", "7", "maj7", "m7", "dim", "aug", "sus")  # of a chord's name
INTERVALS = (  # semitones above the root
    (0, 4, 7),
    (0, 3, 7),
    (0, 4, 7, 10),
    (0, 4, 7, 11),
    (0, 3, 7, 10),
    (0, 3, 6),
    (0, 4, 8),
    (0, 5, 7),
)
SUS2 = frozenset((0, 2, 7))  # read as sus: it, too, has no third
CHORD_SIZES = (OCTAVE, len(QUALITIES), OCTAVE)  # values of each field
N_CHORDS = OCTAVE * len(QUALITIES)

SPELLINGS = {"♭": "b", "♯": "#", "min": "m", "6/9": "69"}  # of people, and of pychord

HALVES_PER_BAR = 2
MOST_BARS = 1024  # of one chord
CHORD_NAMES = ("a root in capitals (C, F#, Bb), perhaps followed by m, 7, maj7, m7, dim, aug, sus "
               "or another of jazz's qualities (m7b5, 6, 9), and perhaps by a bass (Am/C); or - for "
               "no chord, ? to leave it open")

# Weights of the estimate. They were tuned on 300 songs: by reading the chords beside the notes, and
# by the share of notes on strong beats that are in the chord.
LOWEST_WEIGHT = 1.0  # of a step of the lowest note, on top of its own
ROOT_WEIGHT = 0.2  # of a bass that is the root
CONTEXT_WEIGHT = 0.1  # of the half bars around, which tell if a bare root or fifth is minor
CONTEXT_REACH = 8  # half bars to each side
RARITY = np.array([0, 0, 0.02, 0.02, 0.02, 0.05, 0.1, 0.1])  # how much better each quality must fit
CHANGE_COSTS = (0.08, 0.16)  # at a bar line and within a bar; a perfect fit is worth 1
LEAST_SOUND = 1 / 8  # half bars of melodic notes, durations added; with less there is no chord


# ---------------------------------------------------------------- from notes


def estimate_chords(rows: np.ndarray,
                    vocabulary: Vocabulary,
                    first_bar: int,
                    n_bars: int) -> np.ndarray:
    """The chord of each half bar, from what all parts but drums play.

    Args:
        rows: (N, F) ids of one song, in any order; special rows do not count.
        first_bar: the first bar wanted, from 0.
        n_bars: how many bars are wanted.
    Returns:
        (2 * n_bars, 3) uint8. If a song moves by some semitones, its chords move, and nothing else.
    """
    n_halves = HALVES_PER_BAR * n_bars
    chords = np.full((n_halves, len(CHORD_FIELDS)), NONE, np.uint8)
    half_bar, step, pitch = _sounding(rows, vocabulary, first_bar, n_halves)  # each (S,)
    if not len(pitch):
        return chords
    # Pitch classes count from the lowest note, so that ties are resolved alike in every key.
    origin = pitch.min()
    sound = _histogram(half_bar, pitch - origin, n_halves)   # (H, 12)

    n_steps = step.max() + 1
    lowest = np.full(n_steps, pitch.max())                   # of each step
    np.minimum.at(lowest, step, pitch)
    sounding_step = np.unique(step)
    half_bar = sounding_step // _half_bar_steps(vocabulary)
    lowest_pitch = lowest[sounding_step]
    lowest_sound = _histogram(half_bar, lowest_pitch - origin, n_halves)  # (H, 12)

    costs = np.resize(CHANGE_COSTS, n_halves)
    found = best_path(_scores(sound, lowest_sound), costs)   # (H,)
    least_steps = LEAST_SOUND * _half_bar_steps(vocabulary)
    is_heard = sound.sum(axis=1) >= least_steps
    is_chord = is_heard & (found < N_CHORDS)
    root, quality = np.divmod(found, len(QUALITIES))
    root = (root + origin) % OCTAVE
    bass = (lowest_sound.argmax(axis=1) + origin) % OCTAVE
    columns = np.stack([root, quality, bass], axis=1)        # (H, 3)
    chords[is_chord] = FIRST_VALUE + columns[is_chord]
    return chords


def _half_bar_steps(vocabulary: Vocabulary) -> int:
    return vocabulary.steps_per_bar // HALVES_PER_BAR


def _sounding(rows: np.ndarray,
              vocabulary: Vocabulary,
              first_bar: int,
              n_halves: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Half bar, step and pitch, (S,) each, of every step that a melodic note sounds.

    Half bars and steps count from `first_bar`.
    """
    is_melodic = np.append(~vocabulary.is_drum, False)       # the last: special rows, of part −1
    part = vocabulary.part_of_id[rows[:, PITCH_INSTRUMENT]]  # (N,)
    notes = rows[is_melodic[part]].astype(np.int64)
    bar = notes[:, BAR] - FIRST_ID - first_bar
    start_pos = notes[:, START_POS] - FIRST_ID
    start = bar * vocabulary.steps_per_bar + start_pos       # (M,) of the melodic notes
    duration = notes[:, NOTE_DUR] - FIRST_ID + 1
    pitch = vocabulary.pitch_of_id[notes[:, PITCH_INSTRUMENT]]

    note = np.repeat(np.arange(len(notes)), duration)        # (S,) the note of each sounding step
    before = np.cumsum(duration) - duration
    since_onset = np.arange(len(note)) - before[note]
    step = start[note] + since_onset
    half_bar = step // _half_bar_steps(vocabulary)
    inside = (step >= 0) & (half_bar < n_halves)
    return half_bar[inside], step[inside], pitch[note][inside]


def _histogram(half_bar: np.ndarray,
               pitch: np.ndarray,
               n_halves: int) -> np.ndarray:
    """(n_halves, 12): how often each pitch class comes in each half bar."""
    cells = half_bar * OCTAVE + pitch % OCTAVE
    counts = np.bincount(cells, minlength=n_halves * OCTAVE)
    return counts.reshape(n_halves, OCTAVE)


def _templates() -> np.ndarray:
    """(97, 12) unit vectors: the chords, root by root, and a flat one that stands for no chord."""
    chords = np.zeros((OCTAVE, len(QUALITIES), OCTAVE))
    for root in range(OCTAVE):
        for quality, intervals in enumerate(INTERVALS):
            pitch_classes = (root + np.array(intervals)) % OCTAVE
            chords[root, quality, pitch_classes] = 1
    flat = np.ones((1, OCTAVE))
    of_chords = chords.reshape(N_CHORDS, OCTAVE)
    templates = np.concatenate([of_chords, flat])
    return unit(templates)


def unit(vectors: np.ndarray) -> np.ndarray:
    """The vectors (..., D) made one long; zeros stay."""
    squares = (vectors * vectors).sum(axis=-1, keepdims=True)
    lengths = np.sqrt(squares)
    return vectors / np.where(lengths > 0, lengths, 1)


TEMPLATES = _templates()


def _scores(sound: np.ndarray, lowest_sound: np.ndarray) -> np.ndarray:
    """(H, 97): how well each chord, or none, fits each half bar.

    `sound` (H, 12) counts the steps that each pitch class sounds, `lowest_sound` those that it
    sounds lowest. Square roots keep a note that is long, or doubled, from drowning the others.
    """
    n_halves = len(sound)
    profile = unit(np.sqrt(sound + LOWEST_WEIGHT * lowest_sound))
    nothing = np.zeros((1, OCTAVE))
    sums = np.concatenate([nothing, profile.cumsum(axis=0)])  # (H + 1, 12), before each half bar
    half_bar = np.arange(n_halves)
    begin = np.maximum(half_bar - CONTEXT_REACH, 0)
    end = np.minimum(half_bar + CONTEXT_REACH + 1, n_halves)
    n_around = (end - begin)[:, None]
    context = (sums[end] - sums[begin]) / n_around

    scores = unit(profile + CONTEXT_WEIGHT * context) @ TEMPLATES.T  # (H, 97)
    n_steps = lowest_sound.sum(axis=1, keepdims=True)
    root_in_bass = lowest_sound / np.maximum(n_steps, 1)
    of_chords = root_in_bass.repeat(len(QUALITIES), axis=1)  # (H, 96)
    scores[:, :N_CHORDS] += ROOT_WEIGHT * of_chords
    scores[:, :N_CHORDS] -= np.tile(RARITY, OCTAVE)
    scores[~sound.any(axis=1)] = 0  # silence speaks for no chord, and against none
    return scores


def best_path(scores: np.ndarray, costs: np.ndarray) -> np.ndarray:
    """The path through states with the highest sum of scores, less the costs of its changes.

    This is Viterbi's algorithm.

    Args:
        scores: (T, S) of each state at each time.
        costs: (T,) of coming from another state, whichever it is; so only the best state is ever
            worth leaving.
    Returns:
        (T,) states.
    """
    stays = np.empty(scores.shape, bool)
    best = np.empty(len(scores), np.int64)
    total = np.zeros(scores.shape[1])
    for time, score in enumerate(scores):
        best[time] = total.argmax()
        after_change = total[best[time]] - costs[time]
        stays[time] = total >= after_change
        total = np.maximum(total, after_change) + score
    path = np.empty(len(scores), np.int64)
    state = total.argmax()
    for time in reversed(range(len(scores))):
        path[time] = state
        if not stays[time, state]:
            state = best[time]
    return path


# ---------------------------------------------------------------- names and notes


class Chord(NamedTuple):
    """A chord in numbers: pitch classes from 0, and an index into QUALITIES."""

    root: int
    quality: int
    bass: int

    def __str__(self) -> str:
        bass = ""
        if self.bass != self.root:
            bass = f"/{PITCH_CLASSES[self.bass]}"
        return PITCH_CLASSES[self.root] + SUFFIXES[self.quality] + bass


def chord_name(row: np.ndarray) -> str:
    """What musicians write for a chord's three ids: Am/C; - for none; ? if one is unknown."""
    if UNKNOWN in row:
        return "?"
    if NONE in row:
        return "-"
    return str(_chord(row))


def chord_pitch_classes(row: np.ndarray) -> frozenset[int]:
    """Pitch classes of a chord with its bass, from its three ids; none if it is unknown or none."""
    if UNKNOWN in row or NONE in row:
        return frozenset()
    chord = _chord(row)
    above_root = ((chord.root + interval) % OCTAVE
                  for interval in INTERVALS[chord.quality])
    return frozenset(above_root) | {chord.bass}


def _chord(row: np.ndarray) -> Chord:
    values = (int(value) - FIRST_VALUE for value in row)
    return Chord(*values)


def transposed_chords(columns: np.ndarray, semitones: int) -> np.ndarray:
    """A copy of (..., 3) chords whose roots and basses are moved; NONE and UNKNOWN stay."""
    moved = columns.copy()
    for field in (CHORD_ROOT, CHORD_BASS):
        ids = columns[..., field].astype(np.int64)
        shifted = FIRST_VALUE + (ids - FIRST_VALUE + semitones) % OCTAVE
        moved[..., field] = np.where(ids >= FIRST_VALUE, shifted, ids)
    return moved


def progression_text(chords: np.ndarray) -> str:
    """What `parse_chords` reads as these (n_half_bars, 3) chords: "Am F:.5 ?:1.5".

    Where no chord is, the text leaves it open.
    """
    names = ["?" if name == "-" else name for name in map(chord_name, chords)]
    runs = [(name, len(list(run)) / HALVES_PER_BAR) for name, run in itertools.groupby(names)]
    items = [name if bars == 1 else f"{name}:{bars:g}".replace(":0.", ":.") for name, bars in runs]
    return " ".join(items)


# ---------------------------------------------------------------- from text


@dataclasses.dataclass(frozen=True, eq=False)
class Progression:
    """Chords in a row, to be played over and over."""

    names: tuple[str, ...]  # of each chord, as it is played
    chords: np.ndarray  # (n_half_bars, 3) uint8
    notices: tuple[str, ...] = ()  # a line for each chord that is played as another one

    def half_bars(self, n: int) -> np.ndarray:
        """(n, 3) uint8: repeated, and cut, to `n` half bars."""
        return np.resize(self.chords, (n, len(CHORD_FIELDS)))


def parse_chords(text: str) -> Progression:
    """Read chords such as "Am F:2 C/E:.5 -".

    A chord lasts one bar, or as many as follow its colon; - is no chord, ? any or none.
    Blanks, commas and | separate chords. The library pychord reads their qualities.
    A quality that is not in QUALITIES becomes the nearest, with a notice.
    Raises UserError.
    """
    items = [item for item in re.split(r"[\s,|]+", text) if item]
    if not items:
        raise UserError(f"chords {text!r}: names none; give some, such as 'Am F C G'")
    names = []
    rows = []
    notices = []
    for number, item in enumerate(items, start=1):
        name, colon, length = item.partition(":")
        where = f"chord {number}, {item!r:.40}"
        n_halves = _half_bars(length, where) if colon else HALVES_PER_BAR
        if name in ("-", "?"):
            played = name
            row = [NONE if name == "-" else UNKNOWN] * len(CHORD_FIELDS)
        else:
            chord, as_written = _read_chord(name, where)
            played = str(chord)
            row = [FIRST_VALUE + value for value in chord]
            if not as_written:
                notices.append(f"{name} is played as {played}")
        names.append(played)
        rows += [row] * n_halves
    different = dict.fromkeys(notices)
    return Progression(tuple(names), np.array(rows, np.uint8), tuple(different))


def _half_bars(length: str, where: str) -> int:
    """Half bars in a length in bars. Raises UserError."""
    bars = float(length) if re.fullmatch(r"[0-9]+\.?[0-9]*|\.[0-9]+", length) else 0.0
    if not 0 < bars <= MOST_BARS or bars * HALVES_PER_BAR % 1:
        raise UserError(f"{where}: lasts no whole number of half bars; give .5, 1, 1.5, 2 and so "
                        f"on, up to {MOST_BARS} bars")
    return int(bars * HALVES_PER_BAR)


def _read_chord(name: str, where: str) -> tuple[Chord, bool]:
    """The chord of a name, and whether it has exactly the notes that are meant.

    Raises UserError.
    """
    import pychord  # not at the top: --help must not wait for it
    from pychord.utils import note_to_val

    plain = name
    for written, read in SPELLINGS.items():
        plain = plain.replace(written, read)
    try:
        if re.search(r"/[0-9]", plain):  # pychord's way to name an inversion
            raise ValueError
        meant = pychord.Chord(plain)
    except ValueError:
        known = [root + suffix for root in PITCH_CLASSES for suffix in SUFFIXES]
        raise UserError(f"{where}: no chord; give {CHORD_NAMES}{suggestion(name, known)}") from None
    root = note_to_val(meant.root)
    bass = note_to_val(meant.on) if meant.on else root
    intervals = frozenset(interval % OCTAVE for interval in meant.quality.components)
    quality, as_written = _nearest_quality(intervals)
    return Chord(root, quality, bass), as_written


def _nearest_quality(intervals: frozenset[int]) -> tuple[int, bool]:
    """The quality that differs in the fewest notes, and whether it differs in none.

    `intervals` are pitch classes above the root. Of several that are as near, the first counts.
    """
    if intervals == SUS2:
        return QUALITIES.index("sus"), False
    distances = [len(intervals.symmetric_difference(known)) for known in INTERVALS]
    nearest = int(np.argmin(distances))
    return nearest, distances[nearest] == 0
