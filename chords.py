"""Chords: read from text, worked out from notes, and told as small ids. Light: no torch.

A chord is a row of three ids: its root, its quality and its bass, the pitch class that sounds lowest.
Chords come by the half bar, since pop songs seldom change them more often.

The estimate compares what sounds with a template of each chord, as Fujishima (1999) does with the pitch class
profiles of audio. What sounds is counted in note durations, as Pardo and Birmingham (2002) do with scores.
The Viterbi algorithm then finds the best path, on which a change costs something (Sheh and Ellis 2003).
"""

from __future__ import annotations

import dataclasses
import re
from typing import NamedTuple

import numpy as np

from errors import UserError
from theory import OCTAVE, PITCH_CLASSES
from vocab import BAR, FIRST_ID, NOTE_DUR, PITCH_INSTRUMENT, START_POS, Vocabulary

# Ids of every field that tells what is to be played: nothing is said of it; it is not there; its first value.
UNKNOWN, NONE, FIRST_VALUE = range(3)

CHORD_FIELDS = ("chord_root", "chord_quality", "chord_bass")
ROOT, QUALITY, BASS = range(len(CHORD_FIELDS))

QUALITIES = ("maj", "min", "7", "maj7", "m7", "dim", "aug", "sus")
SUFFIXES = ("", "m", "7", "maj7", "m7", "dim", "aug", "sus")  # of a chord's name
INTERVALS = ((0, 4, 7), (0, 3, 7), (0, 4, 7, 10), (0, 4, 7, 11), (0, 3, 7, 10),  # semitones above the root
             (0, 3, 6), (0, 4, 8), (0, 5, 7))
SUS2 = frozenset((0, 2, 7))  # read as sus: it, too, has no third
CHORD_SIZES = (OCTAVE, len(QUALITIES), OCTAVE)  # values of each field
N_CHORDS = OCTAVE * len(QUALITIES)

HALVES = 2  # of a bar
MOST_BARS = 1024  # of one chord
NAMES = ("a root from A to G in capitals (C, F#, Bb), perhaps followed by m, 7, maj7, m7, dim, aug, sus or another of "
         "jazz's qualities (m7b5, 6, 9), and perhaps by a bass (Am/C); or - for no chord")

# Weights of the estimate, tuned on 300 songs: by ear and eye, and by how many notes on strong beats are in the chord.
LOWEST_WEIGHT = 1.0  # of a step of the lowest note, on top of its own
ROOT_WEIGHT = 0.2  # of a bass that is the root
CONTEXT_WEIGHT = 0.1  # of the half bars around, which tell of a bare root or fifth whether it is minor
CONTEXT_REACH = 8  # half bars to each side
RARITY = np.array([0, 0, 0.02, 0.02, 0.02, 0.05, 0.1, 0.1])  # what a chord of each quality must be better by
CHANGE_COSTS = (0.1, 0.2)  # of another chord at a bar line and within a bar; a perfect fit is worth 1
LEAST_SOUND = 1 / 8  # of a half bar, in durations of melodic notes; with less there is no chord


# ---------------------------------------------------------------- from notes


def estimate_chords(rows: np.ndarray, vocabulary: Vocabulary, first_bar: int, n_bars: int) -> np.ndarray:
    """The chord of each half bar, from what all parts but drums play.

    Args:
        rows: (N, F) ids of one song, in any order; special rows do not count.
        first_bar: the first bar wanted, from 0.
        n_bars: how many bars are wanted.
    Returns:
        (2 * n_bars, 3) uint8. Moving a song by some semitones moves its chords, and changes nothing else.
    """
    n_halves = HALVES * n_bars
    chords = np.full((n_halves, len(CHORD_FIELDS)), NONE, np.uint8)
    half_bar, step, pitch = _sounding(rows, vocabulary, first_bar, n_halves)  # each (S,)
    if not len(pitch):
        return chords
    tonic = pitch.min()  # pitch classes count from the lowest note: so equal fits are told apart alike in every key
    sound = _histogram(half_bar, pitch - tonic, n_halves)    # (H, 12) steps
    lowest = np.full(step.max() + 1, pitch.max())
    np.minimum.at(lowest, step, pitch)
    first = np.unique(step)                                  # every step at which something sounds
    lowest_sound = _histogram(first // (vocabulary.steps_per_bar // HALVES), lowest[first] - tonic, n_halves)

    found = _best_path(_scores(sound, lowest_sound))         # (H,)
    enough = sound.sum(axis=1) >= LEAST_SOUND * vocabulary.steps_per_bar / HALVES
    is_chord = enough & (found < N_CHORDS)
    root, quality = np.divmod(found, len(QUALITIES))
    columns = np.stack([(root + tonic) % OCTAVE, quality, (lowest_sound.argmax(axis=1) + tonic) % OCTAVE], axis=1)
    chords[is_chord] = FIRST_VALUE + columns[is_chord]
    return chords


def _sounding(rows: np.ndarray, vocabulary: Vocabulary, first_bar: int,
              n_halves: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Half bar, step and pitch (S,) of each step that a melodic note sounds; both are counted from `first_bar`."""
    is_drum = np.array([*(part.is_drum for part in vocabulary.parts), True])  # the last, index −1: special ids
    notes = rows[~is_drum[vocabulary.part_of_id[rows[:, PITCH_INSTRUMENT]]]].astype(np.int64)
    bar = notes[:, BAR] - FIRST_ID - first_bar
    start = bar * vocabulary.steps_per_bar + notes[:, START_POS] - FIRST_ID
    duration = notes[:, NOTE_DUR] - FIRST_ID + 1
    note = np.repeat(np.arange(len(notes)), duration)        # (S,)
    before = np.cumsum(duration) - duration
    step = np.arange(len(note)) - before[note] + start[note]
    half_bar = step // (vocabulary.steps_per_bar // HALVES)
    inside = (step >= 0) & (half_bar < n_halves)
    pitch = vocabulary.pitch_of_id[notes[:, PITCH_INSTRUMENT]][note]
    return half_bar[inside], step[inside], pitch[inside]


def _histogram(half_bar: np.ndarray, pitch: np.ndarray, n_halves: int) -> np.ndarray:
    """(n_halves, 12): how often each pitch class comes in each half bar."""
    counts = np.bincount(half_bar * OCTAVE + pitch % OCTAVE, minlength=n_halves * OCTAVE)
    return counts.reshape(n_halves, OCTAVE)


def _templates() -> np.ndarray:
    """(97, 12) unit vectors: the chords, root by root, and behind them a flat one that stands for no chord."""
    templates = np.zeros((OCTAVE, len(QUALITIES), OCTAVE))
    for root in range(OCTAVE):
        for quality, intervals in enumerate(INTERVALS):
            templates[root, quality, (root + np.array(intervals)) % OCTAVE] = 1
    return _unit(np.concatenate([templates.reshape(N_CHORDS, OCTAVE), np.ones((1, OCTAVE))]))


def _unit(vectors: np.ndarray) -> np.ndarray:
    """The vectors (..., D) made one long; zeros stay."""
    lengths = np.sqrt((vectors * vectors).sum(axis=-1, keepdims=True))
    return vectors / np.where(lengths > 0, lengths, 1)


TEMPLATES = _templates()


def _scores(sound: np.ndarray, lowest_sound: np.ndarray) -> np.ndarray:
    """(H, 97): how well each chord, or none, fits each half bar, from the steps that sound in it, (H, 12) each.

    Square roots keep a note that lasts long, or is doubled, from drowning the others.
    """
    n_halves = len(sound)
    profile = _unit(np.sqrt(sound + LOWEST_WEIGHT * lowest_sound))
    sums = np.concatenate([np.zeros((1, OCTAVE)), profile.cumsum(axis=0)])
    begin = np.maximum(np.arange(n_halves) - CONTEXT_REACH, 0)
    end = np.minimum(np.arange(n_halves) + CONTEXT_REACH + 1, n_halves)
    context = (sums[end] - sums[begin]) / (end - begin)[:, None]

    scores = _unit(profile + CONTEXT_WEIGHT * context) @ TEMPLATES.T  # (H, 97)
    root_in_bass = lowest_sound / np.maximum(lowest_sound.sum(axis=1, keepdims=True), 1)
    scores[:, :N_CHORDS] += ROOT_WEIGHT * root_in_bass.repeat(len(QUALITIES), axis=1)
    scores[:, :N_CHORDS] -= np.tile(RARITY, OCTAVE)
    scores[~sound.any(axis=1)] = 0                           # silence speaks for no chord, and against none
    return scores


def _best_path(scores: np.ndarray) -> np.ndarray:
    """(H,) states of the path whose sum of (H, S) scores, less the costs of its changes, is highest.

    Viterbi's algorithm. A change costs as much from and to any state, so only the best state is worth leaving.
    """
    stays = np.empty(scores.shape, bool)
    best = np.empty(len(scores), np.int64)
    total = np.zeros(scores.shape[1])
    for half_bar, score in enumerate(scores):
        best[half_bar] = total.argmax()
        after_change = total[best[half_bar]] - CHANGE_COSTS[half_bar % HALVES]
        stays[half_bar] = total >= after_change
        total = np.maximum(total, after_change) + score
    path = np.empty(len(scores), np.int64)
    state = total.argmax()
    for half_bar in reversed(range(len(scores))):
        path[half_bar] = state
        if not stays[half_bar, state]:
            state = best[half_bar]
    return path


# ---------------------------------------------------------------- names and notes


class Chord(NamedTuple):
    """A chord in numbers: pitch classes from 0, and an index into QUALITIES."""

    root: int
    quality: int
    bass: int

    def __str__(self) -> str:
        bass = "" if self.bass == self.root else f"/{PITCH_CLASSES[self.bass]}"
        return PITCH_CLASSES[self.root] + SUFFIXES[self.quality] + bass


def chord_name(row: np.ndarray) -> str:
    """What musicians write for the three ids of a chord: Am/C; - for none, ? if any of the three is unknown."""
    if UNKNOWN in row:
        return "?"
    if NONE in row:
        return "-"
    return str(_chord(row))


def chord_pitch_classes(row: np.ndarray) -> frozenset[int]:
    """Pitch classes of a chord with its bass, from its three ids; none of no chord or an unknown one."""
    if UNKNOWN in row or NONE in row:
        return frozenset()
    chord = _chord(row)
    return frozenset((chord.root + interval) % OCTAVE for interval in INTERVALS[chord.quality]) | {chord.bass}


def _chord(row: np.ndarray) -> Chord:
    return Chord(*(int(value) - FIRST_VALUE for value in row))


def transposed_chords(columns: np.ndarray, semitones: int) -> np.ndarray:
    """A copy of (..., 3) chords whose roots and basses are moved; NONE and UNKNOWN stay."""
    moved = columns.copy()
    for field in (ROOT, BASS):
        ids = columns[..., field].astype(np.int64)
        shifted = FIRST_VALUE + (ids - FIRST_VALUE + semitones) % OCTAVE
        moved[..., field] = np.where(ids >= FIRST_VALUE, shifted, ids)
    return moved


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
    """Read chords such as "Am F:2 C/E:.5 -": each lasts a bar, or as many as follow the colon; - is none.

    Blanks, commas and | stand between them. Qualities are those that the library pychord knows; one that is not
    in QUALITIES becomes the nearest. Raises UserError.
    """
    items = [item for item in re.split(r"[\s,|]+", text) if item]
    if not items:
        raise UserError(f"chords {text!r}: names none; give some, such as 'Am F C G'")
    names, rows, notices = [], [], []
    for number, item in enumerate(items, start=1):
        name, colon, length = item.partition(":")
        where = f"chord {number}, {item!r:.40}"
        n_halves = _half_bars(length, where) if colon else HALVES
        chord, as_written = (None, True) if name == "-" else _read_chord(name, where)
        played = "-" if chord is None else str(chord)
        notice = f"{name} is played as {played}"
        if not as_written and notice not in notices:
            notices.append(notice)
        row = [NONE] * len(CHORD_FIELDS) if chord is None else [FIRST_VALUE + value for value in chord]
        names.append(played)
        rows += [row] * n_halves
    return Progression(tuple(names), np.array(rows, np.uint8), tuple(notices))


def _half_bars(length: str, where: str) -> int:
    """Half bars in a length in bars. Raises UserError."""
    bars = float(length) if re.fullmatch(r"[0-9]+\.?[0-9]*|\.[0-9]+", length) else 0.0
    if not 0 < bars <= MOST_BARS or bars * HALVES % 1:
        raise UserError(f"{where}: lasts no whole number of half bars; give .5, 1, 1.5, 2 and so on, "
                        f"up to {MOST_BARS} bars")
    return int(bars * HALVES)


def _read_chord(name: str, where: str) -> tuple[Chord, bool]:
    """The chord of a name, and whether it has the very notes that are meant. Raises UserError."""
    import pychord  # not at the top: --help must not wait for it
    from pychord.utils import note_to_val

    plain = name.replace("♭", "b").replace("♯", "#").replace("min", "m").replace("6/9", "69")
    try:
        if re.search(r"/[0-9]", plain):  # pychord's way to name an inversion
            raise ValueError
        meant = pychord.Chord(plain)
    except ValueError:
        raise UserError(f"{where}: no chord; give {NAMES}") from None
    root = note_to_val(meant.root)
    bass = note_to_val(meant.on) if meant.on else root
    quality, as_written = _nearest_quality(frozenset(interval % OCTAVE for interval in meant.quality.components))
    return Chord(root, quality, bass), as_written


def _nearest_quality(intervals: frozenset[int]) -> tuple[int, bool]:
    """The quality that differs from some intervals above the root in the fewest notes, and whether it has them all.

    Of several as near, the first.
    """
    if intervals == SUS2:
        return QUALITIES.index("sus"), False
    distances = [len(intervals.symmetric_difference(known)) for known in INTERVALS]
    nearest = int(np.argmin(distances))
    return nearest, distances[nearest] == 0
