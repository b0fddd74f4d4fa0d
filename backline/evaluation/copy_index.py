"""The index of training songs: which runs of notes a new song shares with them.

A window is WINDOW notes in a row, all parts together. Each note is described by the steps since
the last note, its part, and its sound: the pitch of a drum, the interval from the last melodic
note of a melodic one. A window therefore stays the same wherever it stands, and when all melodic
parts move together. Durations are left out.

A run is a stretch of notes whose windows are all in the training songs. They may be in different
songs, so a run can be longer than what any one song shares.

The index holds no notes. It is a Bloom filter (Bloom 1970) of the windows: it knows every window
it was given and takes a few others for known. A run of a window's length, or a note longer, may
be chance.
"""

from __future__ import annotations

import dataclasses
import hashlib
import math
import sys
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import safetensors
import safetensors.numpy

from backline.common.errors import UserError
from backline.common.files import replacing
from backline.engine.model_file import held_out_names, in_order
from backline.music.vocab import BAR, FIRST_ID, PITCH_INSTRUMENT, START_POS, Vocabulary

FORMAT, VERSION = "pooled-copies", 1
REMEDY = "make one with copies.py"
# Notes in a window. Shorter windows join runs of many songs, longer ones cost more
# (benchmarks/bench_copies.py).
WINDOW = 12
BITS_PER_WINDOW = 8  # of the filter
N_BITS_SET = 6  # of them: one unknown window in 46 passes, (1 − e^(−6/8))⁶
EXCERPTS = (128, 256, 512)  # notes that held-out songs are cut to: runs grow with a song's length
PERCENTILES = (50, 90, 99)
MARKED = 99  # percentile of real songs' longest runs above which a song is marked

# For hashing: an odd number, which has an inverse modulo 2⁶⁴, and the constants of SplitMix64
# (Steele et al. 2014).
BASE = np.uint64(0xD1342543DE82EF95)
INVERSE = np.uint64(pow(int(BASE), -1, 1 << 64))
GOLDEN = np.uint64(0x9E3779B97F4A7C15)
FIRST_FACTOR = np.uint64(0xBF58476D1CE4E5B9)
SECOND_FACTOR = np.uint64(0x94D049BB133111EB)


# ---------------------------------------------------------------- windows


def window_hashes(rows: np.ndarray,
                  size: int,
                  vocabulary: Vocabulary) -> np.ndarray:
    """A hash of each window of `size` notes: (max(N − size + 1, 0),) uint64.

    A polynomial over the notes modulo 2⁶⁴ (Karp & Rabin 1987), so the sum over a window is a
    difference of running sums. Two notes of a window need another term: its first note, which
    follows nothing, and its first melodic note, which has no interval.

    Args:
        rows: (N, F) note ids in order.
    """
    n_notes = len(rows)
    n_windows = n_notes - size + 1
    if n_windows < 1:
        return np.zeros(0, np.uint64)
    notes = _described(rows, vocabulary)
    powers = _powers(BASE, n_notes)
    no_steps = np.zeros_like(notes.steps)
    numbers = _as_numbers(notes.steps, notes.sounds)
    numbers_first = _as_numbers(no_steps, notes.first_sounds)
    numbers_first_melodic = _as_numbers(notes.steps, notes.first_sounds)
    terms = _scrambled(numbers) * powers
    terms_first = _scrambled(numbers_first) * powers
    terms_first_melodic = _scrambled(numbers_first_melodic) * powers

    nothing = np.zeros(1, np.uint64)
    sums = np.concatenate([nothing, np.cumsum(terms)])       # (N + 1,), before each note
    hashes = sums[size:] - sums[:n_windows]                  # (n_windows,)
    hashes += (terms_first - terms)[:n_windows]
    first = np.arange(n_windows)
    first_melodic = _next_true(notes.is_melodic)[:n_windows]
    is_later = (first < first_melodic) & (first_melodic < first + size)  # in the window, not first
    change = terms_first_melodic - terms
    hashes[is_later] += change[first_melodic[is_later]]
    hashes *= _powers(INVERSE, n_windows)  # from here on alike at every place
    return _scrambled(hashes)


class _Described(NamedTuple):
    """What a window says of each note, (N,) each."""

    steps: np.ndarray  # since the note before it
    sounds: np.ndarray  # part and sound in one number
    first_sounds: np.ndarray  # the same, with no interval: of the first melodic note of a window
    is_melodic: np.ndarray


def _described(rows: np.ndarray, vocabulary: Vocabulary) -> _Described:
    bars = rows[:, BAR].astype(np.int64)
    onsets = bars * vocabulary.steps_per_bar + rows[:, START_POS]
    ids = rows[:, PITCH_INSTRUMENT]
    parts = vocabulary.part_of_id[ids]
    pitches = vocabulary.pitch_of_id[ids]
    is_drum = vocabulary.is_drum
    is_melodic = ~is_drum[parts]

    # Numbers of sounds: below n_pitches a drum's pitch, around it an interval, at the end none.
    n_pitches = int(vocabulary.pitch_of_id.max()) + 1
    no_interval = 2 * n_pitches
    n_sounds = no_interval + 1
    sounds = pitches.astype(np.int64)
    intervals = np.diff(pitches[is_melodic], prepend=0)
    sounds[is_melodic] = n_pitches + intervals
    first_sounds = np.where(is_melodic, no_interval, pitches)
    return _Described(
        steps=np.diff(onsets, prepend=onsets[:1]),
        sounds=parts * n_sounds + sounds,
        first_sounds=parts * n_sounds + first_sounds,
        is_melodic=is_melodic,
    )


def _next_true(flags: np.ndarray) -> np.ndarray:
    """(N,) index of the first true flag from each place on; N where none follows."""
    n = len(flags)
    indices = np.where(flags, np.arange(n), n)
    backwards = np.minimum.accumulate(indices[::-1])
    return backwards[::-1]


def _as_numbers(steps: np.ndarray, sounds: np.ndarray) -> np.ndarray:
    return (steps << 32 | sounds).astype(np.uint64)


def _powers(base: np.uint64, n: int) -> np.ndarray:
    """(n,) base⁰, base¹, … modulo 2⁶⁴."""
    factors = np.full(n, base)
    factors[0] = 1
    return np.cumprod(factors)


def _scrambled(values: np.ndarray) -> np.ndarray:
    """uint64 of which every bit depends on every bit of `values`; one to one.

    This is SplitMix64's finalizer.
    """
    values = values + GOLDEN
    values = (values ^ values >> np.uint64(30)) * FIRST_FACTOR
    values = (values ^ values >> np.uint64(27)) * SECOND_FACTOR
    return values ^ values >> np.uint64(31)


# ---------------------------------------------------------------- filter


def _bits(hashes: np.ndarray, n_bits: int) -> Iterator[np.ndarray]:
    """N_BITS_SET times the (n,) bits, out of `n_bits`, that stand for (n,) hashes.

    Two hashes, the halves of one, do for many (Kirsch & Mitzenmacher 2006).
    """
    high = hashes >> np.uint64(32)
    low = hashes & np.uint64(0xFFFFFFFF) | np.uint64(1)
    for i in range(N_BITS_SET):
        yield (high + np.uint64(i) * low) % np.uint64(n_bits)


def make_filter(hashes: np.ndarray) -> np.ndarray:
    """(M,) uint8, at least one: BITS_PER_WINDOW bits for each of `hashes`, all different."""
    n_bytes = max(math.ceil(len(hashes) * BITS_PER_WINDOW / 8), 1)
    is_set = np.zeros(8 * n_bytes, bool)
    for bits in _bits(hashes, len(is_set)):
        is_set[bits] = True
    return np.packbits(is_set)


def in_filter(filter_bytes: np.ndarray, hashes: np.ndarray) -> np.ndarray:
    """(n,) bool: which of (n,) hashes are known to a filter, (M,) uint8."""
    known = np.ones(len(hashes), bool)
    for bits in _bits(hashes, 8 * len(filter_bytes)):
        bytes_of_bits = filter_bytes[bits >> np.uint64(3)]
        shifts = (bits & np.uint64(7)).astype(np.uint8)
        known &= (bytes_of_bits << shifts & 0x80) != 0
    return known


# ---------------------------------------------------------------- index


class SharedRun(NamedTuple):
    """How many new notes in a row are in training songs, and in which bars, from 1; 0 for none."""

    n_notes: int = 0
    first_bar: int = 0
    last_bar: int = 0


@dataclasses.dataclass(frozen=True)
class CopyIndex:
    """The windows of training songs, and how much real songs share with them.

    bits: (M,) uint8, the filter.
    real_runs: (len(EXCERPTS), n_songs) int32, the longest run in the beginning of each held-out
        song, for each length of beginning.
    split: `split_digest` of the held-out songs.
    """

    bits: np.ndarray
    real_runs: np.ndarray
    vocabulary: Vocabulary
    split: str

    def longest_run(self, rows: np.ndarray, is_new: np.ndarray | None = None) -> SharedRun:
        """The run with the most new notes.

        Args:
            rows: (N, F) note ids in order.
            is_new: (N,) bool, which notes count (default: all).
        """
        if is_new is None:
            is_new = np.ones(len(rows), bool)
        hashes = window_hashes(rows, WINDOW, self.vocabulary)
        return _longest(in_filter(self.bits, hashes), rows, is_new)

    def usual(self, n_notes: int, percentile: float = MARKED) -> int:
        """Length of the longest run of real songs about as long as `n_notes`, at a percentile."""
        row = int(np.searchsorted(EXCERPTS, n_notes))
        row = min(row, len(EXCERPTS) - 1)
        runs = self.real_runs[row]
        return round(np.percentile(runs, percentile))

    def describe(self, run: SharedRun, n_notes: int) -> str:
        """A run in words, for a song of `n_notes` new notes, marked if longer than real songs'.

        Runs up to WINDOW are not given exactly: the filter takes one window of most songs for
        known by mistake.
        """
        at_most = f"at most {WINDOW}"
        usual = self.usual(n_notes)
        is_marked = run.n_notes > max(WINDOW, usual)
        bars = f"bars {run.first_bar}–{run.last_bar}"
        if run.first_bar == run.last_bar:
            bars = f"bar {run.first_bar}"
        length = f"{at_most} notes"
        if run.n_notes > WINDOW:
            length = f"{run.n_notes} notes, {bars}"
        mark = "COPIED? " if is_marked else ""
        of_real = usual if usual > WINDOW else at_most
        return (f"{mark}longest run shared with training songs: "
                f"{length} (real songs: {of_real} at the {MARKED}th "
                f"percentile of songs this long)")


@dataclasses.dataclass(frozen=True)
class CopyCheck:
    """An index, and how many notes a song may share; `most` None: any number."""

    index: CopyIndex
    most: int | None = None

    def refuses(self, run: SharedRun) -> bool:
        """Whether a run is longer than allowed."""
        return self.most is not None and run.n_notes > self.most


def _longest(known: np.ndarray, rows: np.ndarray, is_new: np.ndarray) -> SharedRun:
    """The run with the most new notes, the first of equals.

    Args:
        known: (n_windows,) bool, which windows are in training songs.
        rows: (N, F) note ids.
        is_new: (N,) bool.
    """
    edges = np.flatnonzero(np.diff(known, prepend=False, append=False))
    if not len(edges):
        return SharedRun()
    starts = edges[::2]
    ends = edges[1::2] + WINDOW - 1  # exclusive, in notes
    new_before = np.concatenate([[0], np.cumsum(is_new)])
    n_new = new_before[ends] - new_before[starts]            # of each run
    best = int(n_new.argmax())
    run = slice(starts[best], ends[best])
    bars = rows[run, BAR][is_new[run]] - FIRST_ID + 1
    if not len(bars):
        return SharedRun()
    first_bar = int(bars[0])
    last_bar = int(bars[-1])
    return SharedRun(len(bars), first_bar, last_bar)


def build_index(training: Iterable[np.ndarray],
                real: Sequence[np.ndarray],
                vocabulary: Vocabulary,
                split: str) -> CopyIndex:
    """The index of `training` songs, with the runs of `real` ones; all (N, F) note ids in order."""
    hashes = [window_hashes(rows, WINDOW, vocabulary) for rows in training]
    no_runs = np.zeros((len(EXCERPTS), 0), np.int32)
    different = np.unique(np.concatenate(hashes))
    bits = make_filter(different)
    index = CopyIndex(bits, no_runs, vocabulary, split)
    real_runs = []
    for n_notes in EXCERPTS:
        excerpts = (rows[:n_notes] for rows in real)
        runs = (index.longest_run(excerpt) for excerpt in excerpts)
        real_runs.append([run.n_notes for run in runs])
    return dataclasses.replace(index, real_runs=np.array(real_runs, np.int32))


def split_digest(held_out: Iterable[str]) -> str:
    """Hash of the names of the songs that a model was not trained on."""
    names = "\0".join(sorted(held_out)).encode("utf-8", "surrogateescape")
    return hashlib.sha256(names).hexdigest()[:16]


# ---------------------------------------------------------------- file


def _header() -> dict[str, str]:
    """What the file of an index says of how this program hashes and counts."""
    return {
        "version": str(VERSION),
        "window": str(WINDOW),
        "bits_set": str(N_BITS_SET),
        "excerpts": " ".join(map(str, EXCERPTS)),
    }


def write_index(path: Path, index: CopyIndex) -> None:
    """Write an index as .safetensors: two tensors, and a header that `read_index` checks."""
    header = {"format": FORMAT, **_header(),
              "vocabulary": index.vocabulary.digest, "split": index.split}
    tensors = {"bits": index.bits, "real_runs": index.real_runs}
    with replacing(path) as file:
        file.write(in_order(safetensors.numpy.save(tensors, header)))


def read_index_for(model: Path, facts: dict[str, Any], path: Path, vocabulary: Vocabulary) -> CopyIndex:
    """The index at `path`; prints a notice if it may be of other songs than a model was trained on.

    `facts`: what the model's file says of its training. Raises UserError as `read_index` does.
    """
    index = read_index(path, vocabulary)
    held_out = held_out_names(facts)
    if not held_out or split_digest(held_out) != index.split:
        print(f"notice: {path} may be of other songs than {model} was trained on; make its own with "
              "copies.py", file=sys.stderr)
    return index


def read_index(path: Path, vocabulary: Vocabulary) -> CopyIndex:
    """The index of songs in the given vocabulary.

    Raises UserError if `path` holds none that this program can use.
    """
    if not path.is_file():
        raise UserError(f"{path}: no such index of training songs; {REMEDY}")
    try:
        with safetensors.safe_open(path, framework="np") as file:
            header = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 no dict
    except (safetensors.SafetensorError, OSError) as err:
        raise UserError(f"{path}: damaged or not a safetensors file ({err}); {REMEDY}") from None
    if header.get("format") != FORMAT:
        raise UserError(f"{path}: not an index of training songs; {REMEDY}")
    for name, value in _header().items():
        if header.get(name) != value:
            raise UserError(f"{path}: {name} {header.get(name)!r:.40}, this program reads "
                            f"{value!r}; {REMEDY}")
    vocabulary.check_digest(header.get("vocabulary", ""), str(path), REMEDY)
    bits = tensors.get("bits", np.zeros(0))
    real_runs = tensors.get("real_runs", np.zeros(0))
    if not (_is_filled(bits, np.uint8, 1)
            and _is_filled(real_runs, np.int32, 2)
            and len(real_runs) == len(EXCERPTS)):
        raise UserError(f"{path}: its tensors are damaged or missing; {REMEDY}")
    return CopyIndex(bits, real_runs, vocabulary, header.get("split", ""))


def _is_filled(array: np.ndarray, dtype: type, ndim: int) -> bool:
    return array.dtype == dtype and array.ndim == ndim and array.size > 0
