"""Find exact and near duplicates among tokenized songs, at a cost close to linear in their number.

Near duplicates are the same song in another transcription, key or tempo grid, shifted, with a part
left out or some notes changed. They are recognised by the melodic parts alone, since unrelated
songs share drum loops:

lines      the lowest and the highest note of each onset of a part, repeated notes counted once;
           intervals forget the key, and leaving out all times forgets grid, tempo and shift
shingles   SHINGLE consecutive intervals; those with few pitches are clichés (alternating octaves,
           arpeggios of one chord, one-note basses) and do not count; a repeated one counts up to
           MOST_REPEATS times
signature  MinHash of each part's shingles (Broder, "On the resemblance and containment of
           documents", 1997): the share of equal values estimates the Jaccard similarity of two
           parts' shingles
clusters   songs that agree in a few values of one part are compared: banding, as in Leskovec,
           Rajaraman and Ullman, "Mining of Massive Datasets", section 3.4

The constants are measured on 3,384 songs of the Lakh MIDI Dataset (benchmarks/bench_duplicates.py).
"""

from __future__ import annotations

import functools
import hashlib
import mmap
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from backline.music.vocab import BAR, PITCH_INSTRUMENT, START_POS, Vocabulary

if TYPE_CHECKING:
    from datasketch import MinHash

SHINGLE = 7  # intervals; at most 7, eight bits each: one number holds a shingle and its repeat
PITCHES = 5  # different pitches that a shingle needs to count
# Of one shingle that count: if more, one loop outweighs a song; if fewer, changed notes do.
MOST_REPEATS = 3
MINIMUM = 12  # different shingles that a part needs to count
N_HASHES = 128  # K, of each part: standard error of a similarity at most 0.044
# All K values of a part with too little material; datasketch's sketch of nothing.
EMPTY = np.uint32(0xFFFFFFFF)
THRESHOLD = 0.3  # similarity, summed over parts, from which songs are near duplicates
# Band i holds the hash values i + these (modulo K): K bands. Twice as many bands find 1 % more.
BAND_STEPS = (0, 5, 22)
NEIGHBOURS = (1, 2)  # distances, in the order of a band, at which songs are compared
BANDS_AT_ONCE = 8  # bands for one pass over the signatures: more is quicker, and takes more memory
VALUES_AT_ONCE = 1 << 22  # hash values held while reading signatures

# Of a band's 64-bit keys, the lower bits order songs among those that agree in the band.
ORDER_BITS = 16
ORDER_MASK = np.uint64((1 << ORDER_BITS) - 1)


def exact_key(rows: np.ndarray) -> bytes:
    """16 bytes that are equal for songs of the same notes.

    `rows` are (N, F) note ids in order, of any integer type.
    """
    content = np.ascontiguousarray(rows, "<i4").tobytes()
    return hashlib.blake2b(content, digest_size=16).digest()


# ---------------------------------------------------------------- signatures


def signature(rows: np.ndarray, vocabulary: Vocabulary) -> np.ndarray:
    """(P, K) uint32 MinHash values of the P melodic parts of a song, in the vocabulary's order.

    A part with fewer than MINIMUM different shingles has K times the value EMPTY: it is like no
    other part.

    Args:
        rows: (N, F) note ids in order.
    """
    part = vocabulary.part_of_id[rows[:, PITCH_INSTRUMENT]]  # (N,)
    values = np.full(signature_shape(vocabulary), EMPTY)
    melodic = np.flatnonzero(~vocabulary.is_drum).tolist()
    for i, p in enumerate(melodic):
        two_lines = lines(rows[part == p], vocabulary)
        hashes = shingle_hashes(two_lines)
        if len(hashes):
            sketch = _empty_sketch().copy()
            sketch.update_batch(hashes.tolist())
            values[i] = sketch.hashvalues
    return values


def signature_shape(vocabulary: Vocabulary) -> tuple[int, int]:
    """(P, K) of `signature`."""
    return int((~vocabulary.is_drum).sum()), N_HASHES


@functools.cache
def _empty_sketch() -> MinHash:
    from datasketch import MinHash  # brings scipy; the hashes it gets are hashes already

    return MinHash(N_HASHES, seed=1, hashfunc=int, scheme="affine32")


def lines(rows: np.ndarray, vocabulary: Vocabulary) -> tuple[np.ndarray, np.ndarray]:
    """MIDI pitches of the lowest and of the highest line of one part, none twice in a row.

    Two lines find more than one: their shingles are enough for more parts, and an arpeggio hides
    but one of them.

    Args:
        rows: (N, F) note ids in order, so that within an onset pitches rise.
    """
    bar = rows[:, BAR].astype(np.int64)
    onset = bar * vocabulary.steps_per_bar + rows[:, START_POS]
    pitch = vocabulary.pitch_of_id[rows[:, PITCH_INSTRUMENT]]
    pitch = pitch.astype(np.uint8)
    is_lowest = _changes(onset)
    is_highest = _changes(onset[::-1])[::-1]
    low = pitch[is_lowest]
    high = pitch[is_highest]
    return low[_changes(low)], high[_changes(high)]


def _changes(values: np.ndarray) -> np.ndarray:
    """(N,) bool: where a value differs from the one before; the first does."""
    is_change = np.ones(len(values), bool)
    is_change[1:] = values[1:] != values[:-1]
    return is_change


def shingle_hashes(two_lines: tuple[np.ndarray, np.ndarray]) -> np.ndarray:
    """uint32 hashes of the shingles of two lines, all different.

    A shingle that is repeated gives up to MOST_REPEATS of them. Each line counts half, as both are
    the same in a part without chords. Empty if fewer than MINIMUM different shingles count.
    """
    length = SHINGLE + 1  # notes
    windows = [np.lib.stride_tricks.sliding_window_view(line, length)
               for line in two_lines
               if len(line) >= length]
    if not windows:
        return np.zeros(0, np.uint32)
    pitches = np.concatenate(windows)                        # (W, length)
    ordered = np.sort(pitches, axis=1)
    is_new = ordered[:, 1:] != ordered[:, :-1]
    n_pitches = 1 + is_new.sum(axis=1)                       # (W,) different ones
    pitches = pitches[n_pitches >= PITCHES].astype(np.int64)

    intervals = np.diff(pitches, axis=1) + 128               # pitches are 0 to 127: eight bits each
    numbers = intervals @ (1 << 8 * np.arange(SHINGLE))      # (W,), one for each shingle
    shingles, counts = np.unique(numbers, return_counts=True)
    if len(shingles) < MINIMUM:
        return np.zeros(0, np.uint32)
    repeat = np.arange(MOST_REPEATS)[:, None]
    numbered = shingles + (repeat << 8 * SHINGLE)            # (MOST_REPEATS, W)
    counted = numbered[2 * repeat < counts]
    return _mixed(counted.astype(np.uint64)).astype(np.uint32)


def _mixed(values: np.ndarray) -> np.ndarray:
    """(…) uint64 → well mixed uint64 below 2³² (multiply and shift, Dietzfelbinger et al. 1997)."""
    return (values * np.uint64(0x9E3779B97F4A7C15)) >> np.uint64(32)


# ---------------------------------------------------------------- clusters


def cluster(signatures: np.ndarray, threshold: float = THRESHOLD) -> np.ndarray:
    """(n,) int64 labels: for each song the index of the first song of its cluster, mostly itself.

    Bands are sorted one after another, so that time grows as n log n. Each song is compared with
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
    labels = np.arange(len(signatures))
    for keys in _keys_of_bands(signatures):
        a, b = _neighbours(keys)                             # (M,) each
        is_apart = labels[a] != labels[b]
        a = a[is_apart]
        b = b[is_apart]
        is_similar = similarity(signatures, a, b) >= threshold
        labels = _union(labels, a[is_similar], b[is_similar])
    return labels


def _keys_of_bands(signatures: np.ndarray) -> Iterator[np.ndarray]:
    """(n,) keys of each band of each part; see `_band_keys`."""
    _, n_parts, n_hashes = signatures.shape
    for part in range(n_parts):
        for first in range(0, n_hashes, BANDS_AT_ONCE):
            bands = np.arange(first, min(first + BANDS_AT_ONCE, n_hashes))
            yield from _band_keys(signatures, part, bands)


def join_labels(partitions: Sequence[np.ndarray]) -> np.ndarray:
    """(n,) labels of the clusters that join what any of the partitions joins, (n,) labels each.

    A label is the index of a song of its cluster; in the result, of the first one.
    """
    joined = np.arange(len(partitions[0]))
    for labels in partitions:
        joined = _union(joined, np.arange(len(labels)), labels)
    return joined


def similarity(signatures: np.ndarray, a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """(M,) estimated Jaccard similarities of songs `a` and `b`, (M,) indices, summed over parts.

    The sum, not the largest: two parts that agree a little are better evidence than one that agrees
    a little more.
    """
    values_per_song = max(1, signatures[:1].size)
    step = max(1, VALUES_AT_ONCE // values_per_song)
    sums = np.zeros(len(a))
    for i in range(0, len(a), step):
        left = signatures[a[i:i + step]]                     # (rows, P, K)
        right = signatures[b[i:i + step]]
        is_equal = (left == right) & (left != EMPTY)
        of_parts = is_equal.mean(axis=2)                     # (rows, P)
        sums[i:i + step] = of_parts.sum(axis=1)
        _release(signatures)
    return sums


def _band_keys(signatures: np.ndarray, part: int, bands: np.ndarray) -> np.ndarray:
    """(len(bands), n) uint64 keys: the upper 48 bits are equal where songs agree in the band.

    The lower 16 come from one value more: of the many songs that share a cliché the most similar
    become neighbours. A part without material has keys of 0 there, which `_neighbours` leaves out.
    """
    n, _, n_hashes = signatures.shape
    steps = np.array([*BAND_STEPS, n_hashes // 2])           # the last: the value more
    columns = (bands[:, None] + steps) % n_hashes            # (bands, 4)
    keys = np.empty((len(bands), n), np.uint64)
    step = max(1, VALUES_AT_ONCE // n_hashes)
    for i in range(0, n, step):
        values = np.asarray(signatures[i:i + step, part])    # (rows, K)
        picked = values[:, columns].astype(np.uint64)        # (rows, bands, 4)
        high = np.zeros(picked.shape[:2], np.uint64)
        for j in range(len(BAND_STEPS)):
            high = (high ^ picked[..., j]) * np.uint64(0xD6E8FEB86659FD93)
            high ^= high >> np.uint64(32)
        is_empty = (values == EMPTY).all(axis=1)
        high[is_empty] = 0
        low = _mixed(picked[..., -1]) & ORDER_MASK
        low[high == 0] = 0
        both = (high & ~ORDER_MASK) | low                    # (rows, bands)
        keys[:, i:i + step] = both.T
        _release(signatures)
    return keys


def _release(array: np.ndarray) -> None:
    """Let go of what was read of a mapped file, or all of it counts as this process's memory."""
    mapping: Any = array.base
    if isinstance(mapping, mmap.mmap) and hasattr(mmap, "MADV_DONTNEED"):
        mapping.madvise(mmap.MADV_DONTNEED)


def _neighbours(keys: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Pairs of songs, (M,) indices each, that agree in a band and stand close in its order.

    `keys`: (n,) from `_band_keys`.
    """
    order = np.argsort(keys, kind="stable")
    band = keys[order] >> np.uint64(ORDER_BITS)
    a = []
    b = []
    for distance in NEIGHBOURS:
        here = band[:-distance]
        there = band[distance:]
        left = np.flatnonzero((here == there) & (there > 0))
        a.append(order[left])
        b.append(order[left + distance])
    return np.concatenate(a), np.concatenate(b)


def _union(labels: np.ndarray, a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Labels after joining the clusters of songs `a` and `b`: union-find, all pairs at once.

    Changes `labels`. A label never exceeds its song's index, so that roots, the songs labelled by
    themselves, come first.
    """
    while len(a):
        low = np.minimum(labels[a], labels[b])
        high = np.maximum(labels[a], labels[b])
        labels[high] = low  # one of several; the others stay apart until the next round
        roots = labels[labels]
        while (labels != roots).any():
            labels = roots
            roots = labels[labels]
        is_apart = labels[a] != labels[b]
        a = a[is_apart]
        b = b[is_apart]
    return labels
