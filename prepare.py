"""Make a tensor dataset from token files: songs in shuffled order, joined and cut into equal blocks.

Input    folder of token .json files, as tokenizer.py writes them (searched recursively)
Output   one .pt file: a tensor of N blocks × T notes × 4 ids, the names of the songs, where each begins,
         and which are near-duplicates of each other; compressed if its name ends in .pt.xz
Example  python prepare.py dataset.pt -b 512 -fp tokens_output
         python prepare.py dataset.pt.xz -fp tokens_output

Songs with exactly the same notes are duplicates, whatever their files; the first is kept. A
near-duplicate is the same song in another transcription, key or tempo grid, shifted, with a part
missing or some notes changed. Near-duplicates are kept next to each other: train_pool.py never
trains on one and validates on another. See --duplicates.
"""

from __future__ import annotations

import argparse
import dataclasses
import itertools
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from tqdm import tqdm

from backline.common.errors import Parser, UserError, reports_user_errors
from backline.common.files import check_new, check_writable
from backline.folders import workers
from backline.folders.inputs import Input, Listing, mark, song_of_piece
from backline.preparation.duplicates import (
    cluster,
    exact_key,
    join_labels,
    signature,
    signature_shape,
)
from backline.preparation.song_store import Entry, SongStore
from tokenizer import MidiTokenizerPooled, read_tokens

KEEP_ALL, EXACT, NEAR = "none", "exact", "near"  # values of --duplicates


@dataclasses.dataclass(frozen=True)
class ReadSong:
    """The job on one token file: what is stored of it."""

    tokenizer: MidiTokenizerPooled

    def __call__(self, item: Input) -> Entry:
        """Raises UserError if the file cannot be read, or has no note."""
        rows, _ = read_tokens(Path(item.source), self.tokenizer)
        if not len(rows):
            raise UserError(f"{item.source}: has no notes; leave it out, or make it again with "
                            f"tokenizer.py")
        vocabulary = self.tokenizer.vocabulary
        notes = rows.astype(vocabulary.id_type).tobytes()
        return Entry(notes, exact_key(rows), signature(rows, vocabulary))


def read_songs(store: SongStore,
               listing: Listing,
               job: ReadSong,
               args: argparse.Namespace) -> int:
    """Read every token file that is not in the store yet; returns how many files there are."""
    n_files = sum(1 for _ in listing)
    n_done = store.done_before(listing)
    if n_done:
        print(f"notice: {n_done} of {n_files} files were read before", file=sys.stderr)
    n_workers = workers.worker_count(args.jobs, n_files - n_done)
    pending = itertools.islice(listing, n_done, None)
    outcomes = workers.run_tasks(job, pending, n_workers, args.time_limit)
    for outcome in tqdm(outcomes,
                        total=n_files,
                        initial=n_done,
                        unit="song",
                        disable=None):
        store.add(outcome.task, outcome.result, outcome.reason)
    store.commit()
    return n_files


def find_clusters(store: SongStore) -> tuple[np.ndarray, np.ndarray]:
    """Which songs are the same, or nearly.

    Returns:
        same: (n,) index of the first song with exactly the same notes.
        near: (n,) label of the song's cluster: of equal songs, near-duplicates, and pieces cut from
            one song.
    """
    same = _first_of_equals(store.keys())
    marks = (mark(song_of_piece(name)) for name in store.names())
    same_song = _first_of_equals(np.fromiter(marks, np.uint64))
    alike = cluster(store.signatures())
    near = join_labels([same, alike, same_song])
    return same, near


def _first_of_equals(values: np.ndarray) -> np.ndarray:
    """(n,) for each of (n,) values the index of the first that is equal."""
    _, first, which = np.unique(values, return_index=True, return_inverse=True)
    return first[which]


def song_order(clusters: np.ndarray, kept: np.ndarray, seed: int) -> np.ndarray:
    """Indices of the songs kept, in an order of clusters shuffled by `seed`, each together."""
    labels = np.unique(clusters[kept])
    rank = np.empty(len(clusters), np.int64)
    random = np.random.default_rng(seed)
    rank[labels] = random.permutation(len(labels))
    songs = np.flatnonzero(kept)
    rank_of_song = rank[clusters[songs]]
    order = np.argsort(rank_of_song, kind="stable")
    return songs[order]


def build_parser() -> argparse.ArgumentParser:
    """The command's options."""
    parser = Parser(__doc__)
    parser.add_argument("out", type=Path, help="dataset file to write, .pt or .pt.xz")
    parser.add_argument("-fp", "--file_path",
                        type=Path,
                        required=True,
                        help="folder of token files")
    parser.add_argument("-b", "--block_size",
                        type=int,
                        default=512,
                        help="notes per block (default: %(default)s)")
    parser.add_argument("--duplicates",
                        choices=(EXACT, NEAR, KEEP_ALL),
                        default=EXACT,
                        help="keep only the first of songs with the same notes (exact), of "
                             "near-duplicates as well (near), or keep all songs (none) "
                             "(default: %(default)s)")
    parser.add_argument("--seed",
                        type=int,
                        default=0,
                        help="sets the order of the songs (default: %(default)s)")
    parser.add_argument("--vocab", type=Path, help="vocabulary JSON (default: configs/vocab.json)")
    workers.add_options(parser)
    parser.add_argument("--force", action="store_true", help="overwrite a dataset that exists")
    return parser


@reports_user_errors
def main(argv: Sequence[str] | None = None) -> int:
    """Prepare a dataset; returns the exit code."""
    args = build_parser().parse_args(argv)
    workers.check_options(args)
    if args.seed < 0:
        raise UserError(f"--seed {args.seed}: must be 0 or more")
    tokenizer = MidiTokenizerPooled(args.vocab)
    listing = Listing([args.file_path], (".json",), args.out, "")
    check_new([args.out], args.force)
    check_writable(args.out.parent)
    from backline.preparation.dataset import SHORTEST_BLOCK  # brings torch: other errors come first

    if args.block_size < SHORTEST_BLOCK:
        raise UserError(f"-b {args.block_size}: blocks must be at least {SHORTEST_BLOCK} notes "
                        f"long")
    folder = args.out.with_name(f".{args.out.name}.songs")
    with SongStore(folder, tokenizer.vocabulary, signature_shape(tokenizer.vocabulary)) as store:
        try:
            n_files = read_songs(store, listing, ReadSong(tokenizer), args)
        except KeyboardInterrupt:
            store.commit()
            raise KeyboardInterrupt("interrupted; the same command goes on from here") from None
        try:
            _write(store, n_files, args)
        except UserError:
            store.finish()  # reading the same files again would not help
            raise
    return 0


def _write(store: SongStore, n_files: int, args: argparse.Namespace) -> None:
    """Write the dataset of the songs in the store, and say what it holds."""
    from backline.preparation.dataset import Songs, write_dataset  # brings torch

    lengths = store.lengths()
    _check_some_read(store, len(lengths), n_files)
    same, clusters = find_clusters(store)
    numbers = np.arange(len(lengths))
    kept = {
        KEEP_ALL: numbers >= 0,
        EXACT: same == numbers,
        NEAR: clusters == numbers,
    }[args.duplicates]
    order = song_order(clusters, kept, args.seed)

    names = list(store.names())
    notes = tqdm(store.notes(order),
                 total=len(order),
                 unit="song",
                 desc="writing",
                 disable=None)
    songs = Songs([names[song]
                   for song in order],
                  lengths[order],
                  clusters[order],
                  notes)
    counts = write_dataset(args.out,
                           songs,
                           args.block_size,
                           store.vocabulary,
                           {"shuffle_seed": args.seed, "duplicates": args.duplicates})
    store.finish()
    print(f"{args.out}: {len(order)} songs ({n_files - len(lengths)} files left out, "
          f"{len(lengths) - len(order)} duplicates), {counts.notes - 2 * len(order)} notes; with "
          f"the first and last row of each song {counts.blocks} blocks of {args.block_size} rows, "
          f"the {counts.dropped} after the last full block dropped")
    print(_near_duplicates(clusters[order]))


def _check_some_read(store: SongStore, n_read: int, n_files: int) -> None:
    """Say which files were left out. Raises UserError if all were."""
    reasons = store.left_out()
    first = "" if n_read else next(reasons)  # the error names it
    for reason in reasons:
        print(f"left out: {reason}", file=sys.stderr)
    if not n_read:
        raise UserError(f"none of {n_files} token files could be read; the first reason: {first}")


def _near_duplicates(clusters: np.ndarray) -> str:
    """What to say of the clusters, (n,) labels, of the songs in a dataset."""
    _, sizes = np.unique(clusters, return_counts=True)
    sizes = sizes[sizes > 1]
    if not len(sizes):
        return "no song has a near-duplicate"
    return (f"{int(sizes.sum())} songs have near-duplicates, which stay on their side of the "
            f"split: {len(sizes)} clusters of 2 to {sizes.max()} songs")


if __name__ == "__main__":
    sys.exit(main())
