"""How well an index of copies.py tells the longest run, by the length of its windows and how they are kept.

Example  python -m benchmarks.bench_copies dataset.pt models/bundled.safetensors

Exact: the most notes in a row that a held-out song, cut to its first notes, shares with one training song, by windows
of every length needed, as 64-bit hashes. Beside it, what an index tells of the same songs, with windows of several
lengths and three ways of keeping them: copies.py's filter of all windows, 32-bit hashes of all, or of those alone
whose hash is a multiple of a number (a run then reaches from one kept window that is unknown to the next). Lengths
below that of a window count as that: no index tells them apart.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from tqdm import tqdm

from backline.common.errors import Parser, reports_user_errors
from backline.evaluation.copy_index import in_filter, make_filter, window_hashes
from backline.evaluation.song_sets import held_out_songs
from backline.music.vocab import Vocabulary
from backline.preparation.dataset import load_dataset, song_notes
from backline.training.checkpoints import load_model

KEPT = (1, 2, 4, 16)  # one window in so many
Known = Callable[[np.ndarray], np.ndarray]  # (n,) hashes → (n,) bool


def exact_runs(queries: Sequence[np.ndarray], training: Sequence[np.ndarray], vocabulary: Vocabulary) -> np.ndarray:
    """(n,) notes of the longest run that each query shares with one training song; (N, F) ids in order.

    A song that shares a window shares all shorter ones: the length is halved in on, for all queries at once.
    """
    low, high = np.zeros(len(queries), np.int64), np.array([len(rows) for rows in queries])
    with tqdm(unit="length", disable=None) as bar:
        while (low < high).any():
            middle = (low + high + 1) // 2
            for size in np.unique(middle[low < high]):
                songs = np.flatnonzero((low < high) & (middle == size))
                hashes = [window_hashes(queries[i], size, vocabulary) for i in songs]
                shared = _shared(np.unique(np.concatenate(hashes)), training, size, vocabulary)
                found = np.array([np.isin(of_song, shared).any() for of_song in hashes])
                low[songs[found]], high[songs[~found]] = size, size - 1
                bar.update()
    return low


def _shared(wanted: np.ndarray, training: Sequence[np.ndarray], size: int, vocabulary: Vocabulary) -> np.ndarray:
    """Those of the sorted hashes `wanted` that a training song has."""
    is_there = np.zeros(len(wanted), bool)
    for rows in training:
        hashes = window_hashes(rows, size, vocabulary)
        places = _places(wanted, hashes)
        is_there[places[wanted[places] == hashes]] = True
    return wanted[is_there]


def _places(known: np.ndarray, wanted: np.ndarray) -> np.ndarray:
    """(n,) where in sorted `known` each of (n,) `wanted` stands, if it does. np.isin would sort `known` each time."""
    return np.minimum(np.searchsorted(known, wanted), len(known) - 1)


def told_run(hashes: np.ndarray, known: Known, kept: int, size: int) -> int:
    """Notes of the longest run, of which one window in `kept` is looked up; 0 for none.

    Args:
        hashes: (n,) uint64 of a song's windows of `size` notes.
    """
    is_kept = hashes % np.uint64(kept) == 0
    is_known = is_kept & known(hashes)
    fences = np.concatenate([[-1], np.flatnonzero(is_kept & ~is_known), [len(hashes)]])
    known_before = np.concatenate([[0], np.cumsum(is_known)])[np.maximum(fences, 0)]
    lengths = (np.diff(fences) - 1)[np.diff(known_before) > 0]
    return int(lengths.max()) + size - 1 if len(lengths) else 0


def keepers(hashes: np.ndarray) -> dict[str, tuple[Known, int]]:
    """Of each way of keeping different hashes: what tells whether one is known, and its bytes."""
    bits, short = make_filter(hashes), np.unique(hashes.astype(np.uint32))
    return {"filter": (lambda wanted: in_filter(bits, wanted), bits.nbytes),
            "hashes": (lambda wanted: _is_in(short, wanted.astype(np.uint32)), short.nbytes)}


def _is_in(known: np.ndarray, wanted: np.ndarray) -> np.ndarray:
    return known[_places(known, wanted)] == wanted


def compare(size: int, queries: Sequence[np.ndarray], training: Sequence[np.ndarray], exact: np.ndarray,
            vocabulary: Vocabulary) -> None:
    """Print a row of the table for each way of keeping windows of `size` notes."""
    everything = np.unique(np.concatenate([window_hashes(rows, size, vocabulary) for rows in training]))
    of_queries = [window_hashes(rows, size, vocabulary) for rows in queries]
    for kept in KEPT:
        hashes = everything[everything % np.uint64(kept) == 0]
        for name, (known, n_bytes) in keepers(hashes).items():
            told = np.array([told_run(of_query, known, kept, size) for of_query in of_queries])
            errors = np.maximum(told, size) - np.maximum(exact, size)
            print(f"| {size} | {name} | 1 in {kept} | {len(hashes):,} | {n_bytes / 1e6:.1f} | {errors.mean():+.1f} | "
                  f"{np.percentile(errors, 90):+.0f} | {errors.min():+d} | {errors.max():+d} |", flush=True)


def build_parser() -> argparse.ArgumentParser:
    parser = Parser(__doc__)
    parser.add_argument("dataset", type=Path, help="dataset .pt the model was trained with")
    parser.add_argument("model", type=Path, help="checkpoint or released weights")
    parser.add_argument("--windows", type=int, nargs="+", default=[8, 12, 16, 24, 32], metavar="NOTES",
                        help="lengths of windows (default: 8 12 16 24 32)")
    parser.add_argument("--notes", type=int, default=512, help="of a held-out song (default: %(default)s)")
    return parser


@reports_user_errors
def main(argv: Sequence[str] | None = None) -> int:
    args = build_parser().parse_args(argv)
    _, vocabulary, facts = load_model(args.model)
    dataset = load_dataset(args.dataset, vocabulary)
    held_out = held_out_songs(facts, dataset, args.model)
    training = [song_notes(dataset, song) for song in sorted({*range(dataset.n_songs)} - {*held_out})]
    queries = [song_notes(dataset, song)[:args.notes] for song in held_out]
    exact = exact_runs(queries, training, vocabulary)
    print(f"{len(queries)} held-out songs, exact longest run at the percentiles 10, 50, 90, 99, 100: "
          f"{', '.join(f'{notes:.0f}' for notes in np.percentile(exact, [10, 50, 90, 99, 100]))}")
    print("| window | kept | of windows | windows | MB | error, mean | 90th percentile | least | most |\n|---:|---|---|"
          + "---:|" * 6)
    for size in args.windows:
        compare(size, queries, training, exact, vocabulary)
    return 0


if __name__ == "__main__":
    sys.exit(main())
