"""Index a model's training songs, so that generate.py --check-copies can find copies of them.

Input    a model (.safetensors or .pth; it lists its held-out songs) and the dataset .pt it was trained with
Output   one .safetensors: a filter of the training songs' windows, and what held-out songs share with them
Example  python copies.py models/bundled_copies.safetensors --dataset_path dataset.pt -mp models/bundled.safetensors

A window is a few notes in a row, all parts together. Each note is described by the steps since the last note, its part,
and its interval or drum. A run is a stretch of notes whose windows all occur in training songs, perhaps in different
ones. The index holds no notes. It is a Bloom filter: it knows every window it was given, and mistakes a few others for
known ones. (Details: backline/evaluation/copy_index.py.)
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from tqdm import tqdm

from backline.common.errors import Parser, UserError, reports_user_errors
from backline.common.files import check_file, check_new, check_writable
from backline.common.hub import fetched, is_address
from backline.common.paths import BUNDLED_MODEL, own_copies
from backline.engine.model_file import held_out_names
from backline.evaluation.copy_index import (
    EXCERPTS,
    PERCENTILES,
    WINDOW,
    CopyIndex,
    build_index,
    split_digest,
    write_index,
)


def build_parser() -> argparse.ArgumentParser:
    """The options of the command."""
    parser = Parser(__doc__)
    parser.add_argument("out", type=Path, nargs="?",
                        help="index to write, ending in .safetensors (default: MODEL_copies.safetensors "
                             "beside the model, where generate.py looks for it)")
    parser.add_argument("-mp", "--model_path",
                        type=Path,
                        default=BUNDLED_MODEL,
                        help="model: .safetensors, .pth or hf:owner/name (default: the one in this repository)")
    parser.add_argument("--dataset_path",
                        type=Path,
                        required=True,
                        help="dataset the model was trained with")
    parser.add_argument("--force", action="store_true", help="overwrite an index that exists")
    return parser


def check_arguments(args: argparse.Namespace) -> None:
    """Raise UserError about what is wrong whatever the files hold."""
    if args.out is None:
        if is_address(args.model_path):
            raise UserError(f"{args.model_path}: say where to write the index of a model on the hub")
        args.out = own_copies(args.model_path)
    args.model_path = fetched(args.model_path)
    if args.out.suffix != ".safetensors":
        raise UserError(f"{args.out}: the name must end in .safetensors")
    inputs = (args.model_path, args.dataset_path)
    for path in inputs:
        check_file(path)
    check_new([args.out], args.force, inputs=inputs)
    check_writable(args.out.parent)


def usual_runs(index: CopyIndex) -> str:
    """A table: the longest runs of real songs, by the length of their beginning."""
    shares = map(str, PERCENTILES)
    rows = [["first notes", *shares]]
    for n_notes in EXCERPTS:
        runs = (index.usual(n_notes, share) for share in PERCENTILES)
        rows.append([str(n_notes), *map(str, runs)])
    lines = []
    for row in rows:
        cells = " | ".join(row)
        lines.append(f"| {cells} |")
    rule = "|---:" * len(rows[0])
    lines.insert(1, f"{rule}|")
    return "\n".join(lines)


@reports_user_errors
def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; returns its exit code."""
    args = build_parser().parse_args(argv)
    check_arguments(args)

    from backline.evaluation.song_sets import held_out_songs
    from backline.preparation.dataset import load_dataset, song_notes
    from backline.training.checkpoints import load_model  # brings torch

    _, vocabulary, metadata = load_model(args.model_path)
    dataset = load_dataset(args.dataset_path, vocabulary)
    held_out = held_out_songs(metadata, dataset, args.model_path)
    all_songs = set(range(dataset.n_songs))
    training = sorted(all_songs - set(held_out))
    if not training:
        raise UserError(f"{args.dataset_path}: all its songs are held out; give the dataset the "
                        f"model was trained with")
    training_songs = (song_notes(dataset, song)
                      for song in tqdm(training, unit="song", disable=None))
    real_songs = [song_notes(dataset, song) for song in held_out]
    split = split_digest(held_out_names(metadata))
    index = build_index(training_songs, real_songs, vocabulary, split)
    write_index(args.out, index)

    megabytes = args.out.stat().st_size / 1e6
    print(f"{args.out}: {len(training)} songs, {megabytes:.1f} MB")
    print(f"longest run of {len(held_out)} held-out songs, in notes, by percentile; up to {WINDOW} "
          f"may be fewer:")
    print(usual_runs(index))
    return 0


if __name__ == "__main__":
    sys.exit(main())
