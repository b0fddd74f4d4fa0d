"""Find exact and near duplicates among tokenized songs, at a cost close to linear in their number.

Near duplicates are the same song in another transcription, key or tempo grid, shifted, with a part
left out or some notes changed. They are recognised by the melodic parts alone (drum loops are
shared by unrelated songs):

lines      the lowest and the highest note of each onset of a part, repeated notes counted once;
intervals forget the
           key, and leaving out all times forgets grid, tempo and shift
shingles   SHINGLE consecutive intervals; those with few pitches are clichés (alternating octaves,
arpeggios of one
           chord, one-note basses) and do not count; one that is repeated counts up to REPEATS times
signature  MinHash of each part's shingles (Broder, "On the resemblance and containment of
documents", 1997): the
           share of equal values estimates the Jaccard similarity of two parts' shingles
clusters   songs that agree in a few values of one part are compared: banding, as in Leskovec,
Rajaraman and Ullman,
           "Mining of Massive Datasets", section 3.4

The constants are measured on 3,384 songs of the Lakh MIDI Dataset (benchmarks/bench_duplicates.py).
"""

from __future__ import annotations

import functools
import hashlib
import mmap
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from backline.music.vocab import BAR, PITCH_INSTRUMENT, START_POS, Vocabulary

if TYPE_CHECKING:
    from datasketch import MinHash

SHINGLE = 7  # intervals; at most 7, eight bits each, so that one number holds a shingle and its repeat
PITCHES = 5  # different pitches that a shingle needs to count
REPEATS = 3  # of one shingle that count: more, and one loop outweighs a song; fewer, and changed notes outweigh it
MINIMUM = 12  # different shingles that a part needs to count
N_HASHES = 128  # K, of each part: standard error of a similarity at most 0.044
EMPTY = np.uint32(0xFFFFFFFF)  # all K values of a part with too little material; datasketch's sketch of nothing
THRESHOLD = 0.3  # similarity, summed over parts, from which songs are near duplicates
BAND_STEPS = (0, 5, 22)  # band i holds the hash values i + these (modulo K): K bands; twice as many find 1 % more
NEIGHBOURS = (1, 2)  # distances, in the order of a band, at which songs are compared
BANDS_AT_ONCE = 8  # bands for one pass over the signatures: more is quicker, and takes more memory
CHUNK = 1 << 22  # hash values held at once while reading signatures


def exact_key(rows: np.ndarray) -> bytes:
    """16 bytes that are equal for songs of the same notes.

    `rows` are (N, F) note ids in order, of any integer type.
    """
    return hashlib.blake2b(np.ascontiguousarray(rows, "<i4").tobytes(), digest_size=16).digest()


# ---------------------------------------------------------------- signatures


def signature(rows: np.ndarray, vocabulary: Vocabulary) -> np.ndarray:
    """(P, K) uint32 MinHash values of the P melodic parts of a song, in the vocabulary's order.

    A part with fewer than MINIMUM different shingles has K times the value EMPTY: it is like no
    other part.

    Args:
        rows: (N, F) note ids in order.
    """
    part = vocabulary.part_of_id[rows[:, PITCH_INSTRUMENT]]
    melodic = [p for p, facts in enumerate(vocabulary.parts) if not facts.is_drum]
    values = np.full((len(melodic), N_HASHES), EMPTY)
    for i, p in enumerate(melodic):
        hashes = shingle_hashes(lines(rows[part == p], vocabulary))
        if len(hashes):
            sketch = _empty_sketch().copy()
            sketch.update_batch(hashes.tolist())
            values[i] = sketch.hashvalues
    return values


def lines(rows: np.ndarray, vocabulary: Vocabulary) -> tuple[np.ndarray, np.ndarray]:
    """MIDI pitches of the lowest and of the highest line of one part, none twice in a row.

    Two lines find more than one: their shingles are enough for more parts, and an arpeggio hides
    but one of them.

    Args:
        rows: (N, F) note ids in order, so that within an onset pitches rise.
    """
    onset = rows[:, BAR].astype(np.int64) * vocabulary.steps_per_bar + rows[:, START_POS]
    pitch = vocabulary.pitch_of_id[rows[:, PITCH_INSTRUMENT]].astype(np.uint8)
    low, high = pitch[_changes(onset)], pitch[_changes(onset[::-1])[::-1]]
    return low[_changes(low)], high[_changes(high)]


def shingle_hashes(two_lines: tuple[np.ndarray, np.ndarray]) -> np.ndarray:
    """uint32 hashes of the shingles of two lines, of a repeated one up to REPEATS, all different.

    Each line counts half, as both are the same in a part without chords. Empty if fewer than
    MINIMUM different shingles count.
    """
    windows = np.concatenate([np.lib.stride_tricks.sliding_window_view(line, SHINGLE + 1)
                              for line in two_lines if len(line) > SHINGLE] or [np.zeros((0, SHINGLE + 1), np.uint8)])
    ordered = np.sort(windows, axis=1)
    rich = 1 + (ordered[:, 1:] != ordered[:, :-1]).sum(axis=1) >= PITCHES
    intervals = np.diff(windows[rich].astype(np.int64), axis=1) + 128  # pitches are 0 to 127, so eight bits each
    shingles, counts = np.unique(intervals @ (1 << 8 * np.arange(SHINGLE)), return_counts=True)
    if len(shingles) < MINIMUM:
        return np.zeros(0, np.uint32)
    repeat = np.arange(REPEATS)[:, None]
    numbered = (shingles + (repeat << 8 * SHINGLE))[2 * repeat < counts]
    return _mixed(numbered.astype(np.uint64)).astype(np.uint32)


@functools.cache
def _empty_sketch() -> MinHash:
    from datasketch import MinHash  # brings scipy; the hashes it gets are hashes already

    return MinHash(N_HASHES, seed=1, hashfunc=int, scheme="affine32")


def _changes(values: np.ndarray) -> np.ndarray:
    """Where a value differs from the one before; the first does."""
    return np.concatenate([np.ones(min(len(values), 1), bool), values[1:] != values[:-1]])


def _mixed(values: np.ndarray) -> np.ndarray:
    """(…) uint64 → well mixed uint64 below 2³² (multiply and shift, Dietzfelbinger et al. 1997)."""
    return (values * np.uint64(0x9E3779B97F4A7C15)) >> np.uint64(32)


def signature_shape(vocabulary: Vocabulary) -> tuple[int, int]:
    """(P, K) of `signature`."""
    return sum(not part.is_drum for part in vocabulary.parts), N_HASHES


# ---------------------------------------------------------------- clusters


def cluster(signatures: np.ndarray, threshold: float = THRESHOLD) -> np.ndarray:
    """(n,) int64: for each song the index of the first song of its cluster, which for most is the song itself.

    Bands are sorted one after another, so that time grows as n log n; each song is compared with
    its next neighbours in each band, never with all that share it: a cliché that a million songs
    have costs no more than any other. datasketch's MinHashLSH, an index of Python dicts, takes 14
    kB for each part of a song with 42 bands (measured on 50,000): 38 GB for 1.4 million songs of
    two.

    Similarity is passed on: a song joins two clusters if it is like a song of each. Songs of no
    part with enough material are alone: `exact_key` tells which of them are equal.

    Args:
        signatures: (n, P, K) uint32 from `signature`; may be a np.memmap, which is read a few rows
            at a time.
        threshold: similarity, summed over parts, from which two songs are near duplicates.
    """
    n, n_parts, n_hashes = signatures.shape
    labels = np.arange(n)
    for p in range(n_parts):
        for first in range(0, n_hashes, BANDS_AT_ONCE):
            bands = np.arange(first, min(first + BANDS_AT_ONCE, n_hashes))
            for keys in _band_keys(signatures, p, bands):
                a, b = _neighbours(keys)
                apart = labels[a] != labels[b]
                a, b = a[apart], b[apart]
                similar = similarity(signatures, a, b) >= threshold
                labels = _joined(labels, a[similar], b[similar])
    return labels


def join_labels(partitions: Sequence[np.ndarray]) -> np.ndarray:
    """(n,) labels of the clusters that join whatever one of the partitions, (n,) labels each, joins.

    A label is the index of a song of its cluster, in what is given and in the result, where it is
    the first.
    """
    joined = np.arange(len(partitions[0]))
    for labels in partitions:
        joined = _joined(joined, np.arange(len(labels)), labels)
    return joined


def similarity(signatures: np.ndarray, a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """(M,) estimated Jaccard similarities of songs `a` and `b`, (M,) indices each, summed over the parts.

    The sum, not the largest: two parts that agree a little are better evidence than one that agrees
    a little more.
    """
    step = max(1, CHUNK // max(1, signatures[:1].size))
    sums = np.zeros(len(a))
    for i in range(0, len(a), step):
        left, right = signatures[a[i:i + step]], signatures[b[i:i + step]]
        sums[i:i + step] = ((left == right) & (left != EMPTY)).mean(axis=2).sum(axis=1)
        _release(signatures)
    return sums


def _band_keys(signatures: np.ndarray, part: int, bands: np.ndarray) -> np.ndarray:
    """(len(bands), n) uint64 keys; in their upper 48 bits songs are equal where their values in the band are.

    The lower 16 come from one value more: of the many songs that share a cliché the most similar
    get neighbours. A part without material gets keys of its own.
    """
    n, _, n_hashes = signatures.shape
    columns = (bands[:, None] + np.array([*BAND_STEPS, n_hashes // 2])) % n_hashes  # (bands, 4)
    keys = np.empty((len(bands), n), np.uint64)
    step = max(1, CHUNK // n_hashes)
    for i in range(0, n, step):
        values = np.asarray(signatures[i:i + step, part])
        picked = values[:, columns].astype(np.uint64)  # (rows, bands, 4)
        high = np.zeros(picked.shape[:2], np.uint64)
        for j in range(len(BAND_STEPS)):
            high = (high ^ picked[..., j]) * np.uint64(0xD6E8FEB86659FD93)
            high ^= high >> np.uint64(32)
        mask = np.uint64(0xFFFF)
        high[(values == EMPTY).all(axis=1)] = 0  # `_neighbours` leaves key 0 out
        keys[:, i:i + step] = ((high & ~mask) | (_mixed(picked[..., -1]) & mask) * (high > 0)).T
        _release(signatures)
    return keys


def _release(array: np.ndarray) -> None:
    """Let go of what was read of a mapped file: else all of it comes to count as this process's memory."""
    if isinstance(array, np.memmap) and hasattr(mmap, "MADV_DONTNEED"):
        array.base.madvise(mmap.MADV_DONTNEED)


def _neighbours(keys: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Pairs of songs whose (n,) keys agree in the upper 48 bits and stand next to each other in order."""
    order = np.argsort(keys, kind="stable")
    high = keys[order] >> np.uint64(16)
    pairs = []
    for distance in NEIGHBOURS:
        left = np.flatnonzero((high[:-distance] == high[distance:]) & (high[distance:] > 0))
        pairs.append((order[left], order[left + distance]))
    return tuple(np.concatenate(side) for side in zip(*pairs, strict=True))


def _joined(labels: np.ndarray, a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Labels after joining the clusters of songs `a` and `b`: union-find, all pairs at once. Changes `labels`.

    A label never exceeds its song's index, so that roots, the songs labelled by themselves, come
    first.
    """
    while len(a):
        low, high = np.minimum(labels[a], labels[b]), np.maximum(labels[a], labels[b])
        labels[high] = low  # one of several; the others stay apart until the next round
        while (labels != (roots := labels[labels])).any():
            labels = roots
        apart = labels[a] != labels[b]
        a, b = a[apart], b[apart]
    return labels
