"""The index of training songs: whether a new song shares long runs of notes with them.

A window is a few notes in a row, all parts together, each told by what precedes it: the steps since the last note, the
part, and a drum's pitch or a melodic note's interval from the last melodic note. So it is the same wherever it stands
and however the melodic parts are moved together. How long notes ring is left out. A run is a stretch of notes of which
every window is in the training songs. These may be different songs: a run may be longer than any that one song shares.

The index holds no notes: its windows are bits of a Bloom filter (Bloom 1970), which knows all windows it was given and
takes a few others for known: a run no longer than a window, or by a note, may be chance.
"""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import safetensors
import safetensors.numpy

from backline.common.errors import UserError
from backline.common.files import replacing
from backline.music.vocab import BAR, FIRST_ID, PITCH_INSTRUMENT, START_POS, Vocabulary

FORMAT, VERSION = "pooled-copies", 1
REMEDY = "make one with copies.py"
WINDOW = 12  # notes. By benchmarks/bench_copies.py shorter ones join runs of many songs, and longer ones cost more
BITS_PER_WINDOW, N_BITS_SET = 8, 6  # of the filter: one unknown window in 46 passes, (1 − e^(−6/8))⁶
EXCERPTS = (128, 256, 512)  # notes that held-out songs are cut to: what is shared grows with the length
PERCENTILES = (50, 90, 99)
MARKED = 99  # percentile of real songs' longest runs above which a song is marked

# Of the hash: an odd number, which has an inverse modulo 2⁶⁴, and the constants of SplitMix64 (Steele et al. 2014).
BASE = np.uint64(0xD1342543DE82EF95)
INVERSE = np.uint64(pow(int(BASE), -1, 1 << 64))
GOLDEN, FIRST_FACTOR, SECOND_FACTOR = map(np.uint64, (0x9E3779B97F4A7C15, 0xBF58476D1CE4E5B9, 0x94D049BB133111EB))


# ---------------------------------------------------------------- windows


def window_hashes(rows: np.ndarray, size: int, vocabulary: Vocabulary) -> np.ndarray:
    """(max(N − size + 1, 0),) uint64: a hash of each window of `size` notes in (N, F) note ids in order.

    A polynomial over the notes modulo 2⁶⁴ (Karp & Rabin 1987): each window's is a difference of running sums, in which
    the first note and the first melodic one, which precede nothing in the window, are put right.
    """
    n_notes, n_windows = len(rows), len(rows) - size + 1
    if n_windows < 1:
        return np.zeros(0, np.uint64)
    steps, codes, opening_codes, is_melodic = _described(rows, vocabulary)
    powers = _powers(BASE, n_notes)
    terms = _scrambled(_as_numbers(steps, codes)) * powers
    as_first = _scrambled(_as_numbers(np.zeros_like(steps), opening_codes)) * powers
    as_first_melodic = _scrambled(_as_numbers(steps, opening_codes)) * powers

    sums = np.concatenate([np.zeros(1, np.uint64), np.cumsum(terms)])
    first = np.arange(n_windows)
    hashes = sums[size:] - sums[:n_windows] + (as_first - terms)[:n_windows]
    melodic = np.minimum.accumulate(np.where(is_melodic, np.arange(n_notes), n_notes)[::-1])[::-1][:n_windows]
    inside = (melodic > first) & (melodic < first + size)  # the first melodic note from here on
    hashes[inside] += (as_first_melodic - terms)[melodic[inside]]
    return _scrambled(hashes * _powers(INVERSE, n_windows))


def _described(rows: np.ndarray, vocabulary: Vocabulary) -> tuple[np.ndarray, ...]:
    """Of each of (N, F) notes: steps since the last, part and sound in one number, the same where it opens a window
    (a melodic note then has no interval), and whether it is melodic."""
    onsets = rows[:, BAR].astype(np.int64) * vocabulary.steps_per_bar + rows[:, START_POS]
    parts, pitches = (table[rows[:, PITCH_INSTRUMENT]] for table in (vocabulary.part_of_id, vocabulary.pitch_of_id))
    is_melodic = ~np.array([part.is_drum for part in vocabulary.parts])[parts]
    n_pitches = int(vocabulary.pitch_of_id.max()) + 1
    sounds = pitches.astype(np.int64)
    sounds[is_melodic] = n_pitches + np.diff(pitches[is_melodic], prepend=0)
    openings = np.where(is_melodic, 2 * n_pitches, pitches)
    n_sounds = 2 * n_pitches + 1
    return np.diff(onsets, prepend=onsets[:1]), parts * n_sounds + sounds, parts * n_sounds + openings, is_melodic


def _as_numbers(steps: np.ndarray, codes: np.ndarray) -> np.ndarray:
    return (steps << 32 | codes).astype(np.uint64)


def _powers(base: np.uint64, n: int) -> np.ndarray:
    """(n,) base⁰, base¹, … modulo 2⁶⁴."""
    return np.cumprod(np.concatenate([np.ones(1, np.uint64), np.full(n - 1, base)]))


def _scrambled(values: np.ndarray) -> np.ndarray:
    """uint64 whose every bit depends on every bit of `values`: SplitMix64's finalizer, one to one."""
    values = values + GOLDEN
    values = (values ^ values >> np.uint64(30)) * FIRST_FACTOR
    values = (values ^ values >> np.uint64(27)) * SECOND_FACTOR
    return values ^ values >> np.uint64(31)


# ---------------------------------------------------------------- filter


def _bits(hashes: np.ndarray, n_bits: int) -> Iterable[np.ndarray]:
    """N_BITS_SET times (n,) positions in a filter of `n_bits` (Kirsch & Mitzenmacher 2006: two hashes do for many)."""
    high, low = hashes >> np.uint64(32), hashes & np.uint64(0xFFFFFFFF) | np.uint64(1)
    return ((high + np.uint64(i) * low) % np.uint64(n_bits) for i in range(N_BITS_SET))


def make_filter(hashes: np.ndarray) -> np.ndarray:
    """(M,) uint8, BITS_PER_WINDOW bits for each of `hashes`, which are all different; a byte at least."""
    is_set = np.zeros(8 * max(-(-len(hashes) * BITS_PER_WINDOW // 8), 1), bool)
    for positions in _bits(hashes, len(is_set)):
        is_set[positions] = True
    return np.packbits(is_set)


def in_filter(bits: np.ndarray, hashes: np.ndarray) -> np.ndarray:
    """(n,) bool: which of (n,) hashes are known to a filter (M,) uint8."""
    known = np.ones(len(hashes), bool)
    for positions in _bits(hashes, 8 * len(bits)):
        known &= (bits[positions >> np.uint64(3)] << (positions & np.uint64(7)).astype(np.uint8) & 0x80) != 0
    return known


# ---------------------------------------------------------------- index


class SharedRun(NamedTuple):
    """How many new notes in a row are in training songs, and the bars they stand in, from 1; 0 for none."""

    n_notes: int = 0
    first_bar: int = 0
    last_bar: int = 0


@dataclasses.dataclass(frozen=True)
class CopyIndex:
    """What is known of training songs' windows, and as a measure what real songs share with them.

    bits: (M,) uint8, the filter.
    real_runs: (len(EXCERPTS), n_songs) int32, the longest run of each held-out song's first so many notes.
    split: `split_digest` of the songs held out.
    """

    bits: np.ndarray
    real_runs: np.ndarray
    vocabulary: Vocabulary
    split: str

    def longest_run(self, rows: np.ndarray, is_new: np.ndarray | None = None) -> SharedRun:
        """The run of (N, F) notes in order with the most new ones; (N,) `is_new` says which are (default: all)."""
        known = in_filter(self.bits, window_hashes(rows, WINDOW, self.vocabulary))
        return _longest(known, rows, np.ones(len(rows), bool) if is_new is None else is_new)

    def usual(self, n_notes: int, percentile: float = MARKED) -> int:
        """Notes of the longest run of real songs about as long as `n_notes`, at a percentile."""
        row = min(int(np.searchsorted(EXCERPTS, n_notes)), len(EXCERPTS) - 1)
        return round(np.percentile(self.real_runs[row], percentile))

    def describe(self, run: SharedRun, n_notes: int) -> str:
        """In words, for a song of `n_notes` new notes; a run longer than real songs' is marked.

        One window alone is not told: in most songs the filter takes one for known.
        """
        usual = self.usual(n_notes)
        bars = f"bar {run.first_bar}" if run.first_bar == run.last_bar else f"bars {run.first_bar}–{run.last_bar}"
        told, length = run.n_notes > WINDOW, f"{run.n_notes} notes, {bars}"
        return (f"{'COPIED? ' if told and run.n_notes > usual else ''}longest run shared with training songs: "
                f"{length if told else f'at most {WINDOW} notes'} (real songs: "
                f"{usual if usual > WINDOW else f'at most {WINDOW}'} at the {MARKED}th percentile of songs this long)")


@dataclasses.dataclass(frozen=True)
class CopyCheck:
    """An index, and how many notes a song may share; `most` None: any number."""

    index: CopyIndex
    most: int | None = None

    def refuses(self, run: SharedRun) -> bool:
        return self.most is not None and run.n_notes > self.most


def _longest(known: np.ndarray, rows: np.ndarray, is_new: np.ndarray) -> SharedRun:
    """The run with the most new notes, the first of equals; (n,) `known` says which windows are in training songs."""
    edges = np.flatnonzero(np.diff(known, prepend=False, append=False))
    if not len(edges):
        return SharedRun()
    starts, ends = edges[::2], edges[1::2] + WINDOW - 1  # notes; the end is the first that is not in the run
    new_before = np.concatenate([[0], np.cumsum(is_new)])
    counts = new_before[ends] - new_before[starts]
    best = int(counts.argmax())
    bars = rows[starts[best]:ends[best], BAR][is_new[starts[best]:ends[best]]] - FIRST_ID + 1
    return SharedRun(len(bars), int(bars[0]), int(bars[-1])) if len(bars) else SharedRun()


def build_index(training: Iterable[np.ndarray], real: Sequence[np.ndarray], vocabulary: Vocabulary, split: str,
                ) -> CopyIndex:
    """The index of `training` songs, with the runs of `real` ones; both (N, F) note ids in order."""
    hashes = np.unique(np.concatenate([window_hashes(rows, WINDOW, vocabulary) for rows in training]))
    index = CopyIndex(make_filter(hashes), np.zeros((len(EXCERPTS), 0), np.int32), vocabulary, split)
    runs = [[index.longest_run(rows[:n_notes]).n_notes for rows in real] for n_notes in EXCERPTS]
    return dataclasses.replace(index, real_runs=np.array(runs, np.int32))


def split_digest(held_out: Iterable[str]) -> str:
    """Hash of the names of the songs that a model was not trained on."""
    return hashlib.sha256("\0".join(sorted(held_out)).encode("utf-8", "surrogateescape")).hexdigest()[:16]


def write_index(path: Path, index: CopyIndex) -> None:
    header = {"format": FORMAT, "version": str(VERSION), "window": str(WINDOW), "bits_set": str(N_BITS_SET),
              "excerpts": " ".join(map(str, EXCERPTS)), "vocabulary": index.vocabulary.digest, "split": index.split}
    with replacing(path) as file:
        file.write(safetensors.numpy.save({"bits": index.bits, "real_runs": index.real_runs}, header))


def read_index(path: Path, vocabulary: Vocabulary) -> CopyIndex:
    """The index of songs in the given vocabulary. Raises UserError if `path` holds none that this program can use."""
    if not path.is_file():
        raise UserError(f"{path}: no such index of training songs; {REMEDY}")
    try:
        with safetensors.safe_open(path, framework="np") as file:
            header = file.metadata() or {}
            found = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a dict)
    except (safetensors.SafetensorError, OSError) as err:
        raise UserError(f"{path}: damaged or not a safetensors file ({err}); {REMEDY}") from None
    if header.get("format") != FORMAT:
        raise UserError(f"{path}: not an index of training songs; {REMEDY}")
    ours = {"version": str(VERSION), "window": str(WINDOW), "bits_set": str(N_BITS_SET),
            "excerpts": " ".join(map(str, EXCERPTS))}
    for name, value in ours.items():
        if header.get(name) != value:
            raise UserError(f"{path}: {name} {header.get(name)!r:.40}, this program reads {value!r}; {REMEDY}")
    vocabulary.check_digest(header.get("vocabulary", ""), str(path), REMEDY)
    bits, real_runs = found.get("bits"), found.get("real_runs")
    if (bits is None or bits.dtype != np.uint8 or bits.ndim != 1 or not bits.size
            or real_runs is None or real_runs.dtype != np.int32 or real_runs.ndim != 2
            or len(real_runs) != len(EXCERPTS) or not real_runs.size):
        raise UserError(f"{path}: its tensors are damaged or missing; {REMEDY}")
    return CopyIndex(bits, real_runs, vocabulary, header.get("split", ""))
