"""Teach a model's file to hear whether its songs sound real, so that generate.py chooses among draws by it.

Input    a model .safetensors; the dataset .pt that it was trained with
Output   the same file with a critic in it (generate.py --draws, --best-of); its weights keep their bytes
Example  python critic.py mine.safetensors dataset.pt

The model writes songs from scratch, as it plays by itself and without an end. A logistic regression
learns to tell them from as many training songs, cut to their lengths. Songs held out from the
model's training are left out. (Details: backline/evaluation/critic.py.)
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from tqdm import tqdm

from backline.common.errors import Parser, UserError, reports_user_errors
from backline.common.files import check_file, check_writable
from backline.engine.model_file import held_out_names, write_fact
from backline.evaluation.critic import FACT
from backline.generation.freely import FIRST_SEED, FREELY, made_songs
from backline.generation.session import LoadedModel

LEAST_SONGS = 20  # of each kind


def build_parser() -> argparse.ArgumentParser:
    """The options of the command."""
    parser = Parser(__doc__)
    parser.add_argument("model", type=Path, help="model .safetensors; gets the critic")
    parser.add_argument("dataset", type=Path, help="dataset .pt that the model was trained with")
    parser.add_argument("-n", "--songs",
                        type=int,
                        default=1000,
                        help="songs of each kind to learn from (default: %(default)s)")
    parser.add_argument("--made",
                        type=Path,
                        metavar="FOLDER",
                        help="take the model's songs from a folder of generate.py, made with --genconfig "
                        f"{FREELY.name} --ending no, in place of new ones")
    parser.add_argument("--seed",
                        type=int,
                        default=FIRST_SEED,
                        help="of the first song that the model writes (default: %(default)s)")
    parser.add_argument("--force", action="store_true", help="replace a critic that the model already has")
    parser.add_argument("-d", "--device", default="auto", help="cpu, cuda or auto (default: %(default)s)")
    return parser


def real_songs(path: Path, loaded: LoadedModel, n: int) -> list[np.ndarray]:
    """(N, F) rows of `n` songs of a dataset, or all it has, that the model was trained on, drawn by chance.

    Raises UserError if none of the dataset's songs is known to be held out.
    """
    from backline.preparation.dataset import load_dataset, song_notes  # brings torch

    dataset = load_dataset(path, loaded.vocabulary)
    held_out = set(held_out_names(loaded.facts))
    if not held_out & set(dataset.songs):
        raise UserError(f"{path}: none of the songs held out from {loaded.path} is in it; give the dataset "
                        "that it was trained with")
    numbers = [i for i, name in enumerate(dataset.songs) if name not in held_out]
    order = np.random.default_rng(0).permutation(numbers)
    songs = [song_notes(dataset, int(i)) for i in order[:n]]
    return [rows for rows in songs if len(rows)]


@reports_user_errors
def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; returns its exit code."""
    args = build_parser().parse_args(argv)
    if args.songs < LEAST_SONGS:
        raise UserError(f"--songs {args.songs}: must be at least {LEAST_SONGS}")
    check_file(args.model)
    check_file(args.dataset)
    check_writable(args.model.parent)
    if args.model.suffix != ".safetensors":
        raise UserError(f"{args.model}: not a .safetensors; make one of it with release.py")
    loaded = LoadedModel(args.model, args.device)
    if loaded.critic and not args.force:
        raise UserError(f"{args.model}: already has a critic; --force replaces it")

    # These are slow to import, and mistakes found by now need not wait for them.
    from backline.evaluation.critic_learning import fit_critic
    from backline.evaluation.song_sets import read_folder
    from backline.evaluation.statistics import cut_alike

    real = real_songs(args.dataset, loaded, args.songs)
    if args.made:
        made = read_folder(args.made, loaded.tokenizer).rows[:args.songs]
    else:
        songs = made_songs(loaded, args.songs, args.seed)
        made = list(tqdm(songs, total=args.songs, unit="song", disable=None))
    if min(len(real), len(made)) < LEAST_SONGS:
        raise UserError(f"{len(real)} real and {len(made)} made songs: a critic needs {LEAST_SONGS} of each")
    fitted = fit_critic(cut_alike(real, made), made, loaded.vocabulary)
    data = fitted.critic.to_dict()
    write_fact(args.model, FACT, data)
    print(f"{args.model}: a critic of {len(real)} real and {len(made)} made songs, "
          f"{len(json.dumps(data)) / 1000:.1f} kB; it tells unseen songs apart with an AUC of {fitted.auc:.3f}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
