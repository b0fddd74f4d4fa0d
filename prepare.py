"""Make a tensor dataset of token files: songs joined in shuffled order and cut into equal blocks.

Input    folder of token .json files, as tokenizer.py writes them (searched recursively)
Output   one .pt file: a tensor of N blocks × T notes × 4 ids, the names of the songs, where each begins, and which
         are near-duplicates of each other; the same compressed, to be carried elsewhere, if its name ends in .pt.xz
Example  python prepare.py dataset.pt -b 512 -fp tokens_output
         python prepare.py dataset.pt.xz -fp tokens_output

Songs of exactly the same notes are duplicates, whatever their files; the first is kept. Near-duplicates (the same
song in another transcription, key or tempo grid, shifted, with a part less or other notes here and there) are kept,
next to each other: train_pool.py never has one of them to train on and another to validate. See --duplicates.
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
from backline.folders.inputs import Listing, Task, mark, whole_of_piece
from backline.music.vocab import SHORTEST_BLOCK
from backline.preparation.duplicates import cluster, exact_key, join_labels, signature, signature_shape
from backline.preparation.song_store import Entry, SongStore
from tokenizer import MidiTokenizerPooled, read_tokens

NONE, EXACT, NEAR = "none", "exact", "near"


@dataclasses.dataclass(frozen=True)
class ReadSong:
    """The job on one token file: what is stored of it."""

    tokenizer: MidiTokenizerPooled

    def __call__(self, task: Task) -> Entry:
        """Raises UserError if the file cannot be read, or has no note."""
        rows, _ = read_tokens(Path(task.source), self.tokenizer)
        if not len(rows):
            raise UserError(f"{task.source}: has no notes; leave it out, or make it again with tokenizer.py")
        vocabulary = self.tokenizer.vocabulary
        return Entry(rows.astype(vocabulary.id_type).tobytes(), exact_key(rows), signature(rows, vocabulary))


def read_songs(store: SongStore, listing: Listing, job: ReadSong, args: argparse.Namespace) -> int:
    """Read every token file that is not in the store yet; returns how many files there are."""
    n_files = sum(1 for _ in listing)
    n_done = store.done_before(listing)
    if n_done:
        print(f"notice: {n_done} of {n_files} files were read before", file=sys.stderr)
    n_workers = workers.enough(args.jobs, n_files - n_done)
    outcomes = workers.run(job, itertools.islice(listing, n_done, None), n_workers, args.time_limit)
    for outcome in tqdm(outcomes, total=n_files, initial=n_done, unit="song", disable=None):
        store.add(outcome.task, outcome.result, outcome.reason)
    store.commit()
    return n_files


def find_clusters(store: SongStore) -> tuple[np.ndarray, np.ndarray]:
    """Which songs are the same, or nearly.

    Returns:
        same: (n,) index of the first song with exactly the same notes.
        near: (n,) label of the song's cluster: of equal songs, near-duplicates, and pieces cut from one song.
    """
    _, first, which = np.unique(store.keys(), return_index=True, return_inverse=True)
    same = first[which]
    wholes = np.fromiter((mark(whole_of_piece(name)) for name in store.names()), np.uint64)
    _, first, which = np.unique(wholes, return_index=True, return_inverse=True)
    return same, join_labels([same, cluster(store.signatures()), first[which]])


def song_order(clusters: np.ndarray, kept: np.ndarray, seed: int) -> np.ndarray:
    """Indices of the songs that are kept, in an order of the clusters shuffled by `seed`, each cluster's together."""
    labels = np.unique(clusters[kept])
    rank = np.empty(len(clusters), np.int64)
    rank[labels] = np.random.default_rng(seed).permutation(len(labels))
    songs = np.flatnonzero(kept)
    return songs[np.argsort(rank[clusters[songs]], kind="stable")]


def build_parser() -> argparse.ArgumentParser:
    parser = Parser(__doc__)
    parser.add_argument("out", type=Path, help="dataset file to write, .pt or .pt.xz")
    parser.add_argument("-fp", "--file_path", type=Path, required=True, help="folder of token files")
    parser.add_argument("-b", "--block_size", type=int, default=512, help="notes per block (default: %(default)s)")
    parser.add_argument("--duplicates", choices=(EXACT, NEAR, NONE), default=EXACT,
                        help="leave out all but the first of songs of the same notes (exact), of near-duplicates as "
                             "well (near), or nothing (none) (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="of the songs' order (default: %(default)s)")
    parser.add_argument("--vocab", type=Path, help="vocabulary JSON (default: configs/vocab.json)")
    workers.add_options(parser)
    parser.add_argument("--force", action="store_true", help="overwrite a dataset that exists")
    return parser


@reports_user_errors
def main(argv: Sequence[str] | None = None) -> int:
    args = build_parser().parse_args(argv)
    workers.check_options(args)
    if args.block_size < SHORTEST_BLOCK:
        raise UserError(f"-b {args.block_size}: blocks must be at least {SHORTEST_BLOCK} notes long")
    if args.seed < 0:
        raise UserError(f"--seed {args.seed}: must be 0 or more")
    tokenizer = MidiTokenizerPooled(args.vocab)
    listing = Listing([args.file_path], (".json",), args.out, "")
    check_new([args.out], args.force)
    check_writable(args.out.parent)
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
    lengths = store.lengths()
    n_left_out = n_files - len(lengths)
    for number, reason in enumerate(store.left_out()):
        if len(lengths) or number:
            print(f"left out: {reason}", file=sys.stderr)
    if not len(lengths):
        raise UserError(f"none of {n_files} token files could be read, the first because: {next(store.left_out())}")
    same, clusters = find_clusters(store)
    numbers = np.arange(len(lengths))
    kept = {NONE: numbers >= 0, EXACT: same == numbers, NEAR: clusters == numbers}[args.duplicates]
    order = song_order(clusters, kept, args.seed)
    from backline.preparation.dataset import (  # brings torch, which --help and bad arguments need not wait for
        Songs,
        write_dataset,
    )

    names = list(store.names())
    notes = tqdm(store.notes(order), total=len(order), unit="song", desc="writing", disable=None)
    songs = Songs([names[song] for song in order], lengths[order], clusters[order], notes)
    counts = write_dataset(args.out, songs, args.block_size, store.vocabulary,
                           {"shuffle_seed": args.seed, "duplicates": args.duplicates})
    store.finish()
    sizes = np.unique(clusters[order], return_counts=True)[1]
    print(f"{args.out}: {len(order)} songs ({n_left_out} files left out, {len(lengths) - len(order)} duplicates), "
          f"{counts.notes - 2 * len(order)} notes; with the first and last row of each song {counts.blocks} blocks of "
          f"{args.block_size} rows, the {counts.dropped} after the last full block dropped")
    print(f"{int(sizes[sizes > 1].sum())} songs have near-duplicates, which stay on their side of the split: "
          f"{int((sizes > 1).sum())} clusters of 2 to {sizes.max()} songs" if sizes.max() > 1 else
          "no song has a near-duplicate")


if __name__ == "__main__":
    sys.exit(main())
