"""Index the songs a model was trained on, so that generate.py --check-copies tells what a new song shares with them.

Input    a model (.safetensors or .pth), whose file lists what was held out, and the dataset .pt it was trained with
Output   one .safetensors: a filter of the training songs' windows, and what held-out songs share with them
Example  python copies.py models/bundled_copies.safetensors --dataset_path dataset.pt -mp models/bundled.safetensors

A window is a few notes in a row, all parts together, each told by what precedes it: the steps since the last note, the
part, and a drum's pitch or a melodic note's interval from the last melodic note. So it is the same wherever it stands
and however the melodic parts are moved together. How long notes ring is left out. A run is a stretch of notes of which
every window is in the training songs. These may be different songs: a run may be longer than any that one song shares.

The index holds no notes: its windows are bits of a Bloom filter (Bloom 1970), which knows all windows it was given and
takes a few others for known: a run no longer than a window, or by a note, may be chance.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from tqdm import tqdm

from backline.common.errors import Parser, UserError, reports_user_errors
from backline.common.files import BUNDLED_COPIES, BUNDLED_MODEL, check_file, check_new, check_writable
from backline.evaluation.copy_index import EXCERPTS, PERCENTILES, WINDOW, build_index, split_digest, write_index


def build_parser() -> argparse.ArgumentParser:
    parser = Parser(__doc__)
    parser.add_argument("out", type=Path, nargs="?", default=BUNDLED_COPIES,
                        help="index to write, ending in .safetensors (default: that of the model in this repository)")
    parser.add_argument("-mp", "--model_path", type=Path, default=BUNDLED_MODEL,
                        help="model: .safetensors or .pth (default: the one in this repository)")
    parser.add_argument("--dataset_path", type=Path, required=True, help="dataset that it was trained with")
    parser.add_argument("--force", action="store_true", help="overwrite an index that exists")
    return parser


@reports_user_errors
def main(argv: Sequence[str] | None = None) -> int:
    args = build_parser().parse_args(argv)
    if args.out.suffix != ".safetensors":
        raise UserError(f"{args.out}: the name must end in .safetensors")
    for path in (args.model_path, args.dataset_path):
        check_file(path)
    check_new([args.out], args.force, inputs=(args.model_path, args.dataset_path))
    check_writable(args.out.parent)

    from backline.evaluation.held_out_losses import song_notes
    from backline.evaluation.song_sets import held_out_songs
    from backline.preparation.dataset import load_dataset
    from backline.training.checkpoints import held_out_names, load_model  # brings torch

    _, vocabulary, facts = load_model(args.model_path)
    dataset = load_dataset(args.dataset_path, vocabulary)
    held_out = held_out_songs(facts, dataset, args.model_path)
    training = sorted({*range(dataset.n_songs)} - {*held_out})
    if not training:
        raise UserError(f"{args.dataset_path}: all its songs are held out; give the dataset the model was trained with")
    songs = (song_notes(dataset, song) for song in tqdm(training, unit="song", disable=None))
    index = build_index(songs, [song_notes(dataset, song) for song in held_out], vocabulary,
                        split_digest(held_out_names(facts)))
    write_index(args.out, index)
    print(f"{args.out}: {len(training)} songs, {args.out.stat().st_size / 1e6:.1f} MB")
    print(f"longest run of {len(held_out)} held-out songs, in notes, by percentile; up to {WINDOW} may be fewer:")
    print("\n".join([f"| first notes | {' | '.join(map(str, PERCENTILES))} |", "|---:" * (1 + len(PERCENTILES)) + "|",
                     *(f"| {n} | {' | '.join(str(index.usual(n, share)) for share in PERCENTILES)} |"
                       for n in EXCERPTS)]))
    return 0


if __name__ == "__main__":
    sys.exit(main())
