"""Make a tensor dataset of token files: songs joined in shuffled order and cut into equal blocks.

Input    folder of token .json files, as tokenizer.py writes them (searched recursively)
Output   one .pt file: a tensor of N blocks × T notes × 4 ids, the names of the songs and where each begins
Example  python prepare.py dataset.pt -b 512 -fp tokens_output
"""

from __future__ import annotations

import argparse
import itertools
import random
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from tqdm import tqdm

from errors import UserError, reports_user_errors
from files import check_new, check_writable, find_files
from tokenizer import MidiTokenizerPooled, read_tokens
from vocab import SHORTEST_BLOCK


def read_songs(files: Sequence[tuple[Path, Path]], tokenizer: MidiTokenizerPooled,
               skipped: list[UserError]) -> Iterator[tuple[str, np.ndarray]]:
    """Each token file's name and (N, F) note ids; a file that cannot be read, or has no note, goes to `skipped`."""
    for path, relative in tqdm(files, unit="song", disable=None):
        try:
            rows, _ = read_tokens(path, tokenizer)
            if not len(rows):
                raise UserError(f"{path}: has no notes")
        except UserError as err:
            skipped.append(err)
            continue
        yield relative.with_suffix("").as_posix(), rows


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, allow_abbrev=False,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path, help="dataset file to write")
    parser.add_argument("-fp", "--file_path", type=Path, required=True, help="folder of token files")
    parser.add_argument("-b", "--block_size", type=int, default=512, help="notes per block (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="of the songs' order (default: %(default)s)")
    parser.add_argument("--vocab", type=Path, help="vocabulary JSON (default: configs/vocab.json)")
    parser.add_argument("--force", action="store_true", help="overwrite a dataset that exists")
    return parser


@reports_user_errors
def main(argv: Sequence[str] | None = None) -> int:
    args = build_parser().parse_args(argv)
    if args.block_size < SHORTEST_BLOCK:
        raise UserError(f"-b {args.block_size}: blocks must be at least {SHORTEST_BLOCK} notes long")
    tokenizer = MidiTokenizerPooled(args.vocab)
    files = find_files([args.file_path], (".json",))
    check_new([args.out], args.force)
    check_writable(args.out.parent)
    random.Random(args.seed).shuffle(files)
    from dataset import write_dataset  # brings torch, which --help and bad arguments need not wait for

    skipped: list[UserError] = []
    songs = read_songs(files, tokenizer, skipped)
    first_song = next(songs, None)
    if first_song is None:
        for err in skipped[1:]:
            print(f"left out: {err}", file=sys.stderr)
        raise UserError(f"none of {len(files)} token files could be read, the first because: {skipped[0]}")
    try:
        counts = write_dataset(args.out, itertools.chain([first_song], songs), args.block_size, tokenizer.vocabulary,
                               {"shuffle_seed": args.seed})
    finally:  # where too few songs are left, the reasons matter most
        for err in skipped:
            print(f"left out: {err}", file=sys.stderr)
    print(f"{args.out}: {counts['songs']} songs ({len(skipped)} files left out), {counts['notes']} notes, "
          f"{counts['blocks']} blocks of {args.block_size}; {counts['dropped']} notes after the last full block "
          f"dropped")
    return 0


if __name__ == "__main__":
    sys.exit(main())
