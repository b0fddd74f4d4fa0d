"""Does choosing among draws by the critic make songs that pass for real more often, and not all alike?

Example  python -m benchmarks.bench_critic dataset.pt models/bundled.safetensors
                                           --copies models/bundled_copies.safetensors

For each seed several songs are drawn from scratch as the model plays by itself, without an end, with seeds SEED_STEP
apart, as generate.py --draws draws them. Of the first N of each seed the critic chooses one. What is chosen is judged
beside the held-out songs, cut to their lengths, by judges that know nothing of the critic: the forty measures of
evaluate.py and a random forest on them, in halves of the seeds apart. "Distance" is how far the songs lie from each
other in those measures, each scaled by its spread among real songs: a critic whose favourites are all alike makes it
smaller than that of real songs.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from backline.common.errors import Parser, UserError, reports_user_errors
from backline.evaluation.copy_index import CopyIndex, read_index
from backline.evaluation.critic import Critic
from backline.evaluation.song_sets import SongSet, held_out
from backline.evaluation.statistics import cut_alike
from backline.generation.freely import free_config
from backline.generation.session import SEED_STEP, LoadedModel
from backline.music.vocab import Vocabulary
from benchmarks.bench_sampling import make_songs
from evaluate import compare, measure_table

HEADER = """| draws | songs | measures inside | AUC | copies, percentile 50 / 90 / 99 | distance |
|---:|---:|---:|---:|---:|---:|"""


def build_parser() -> argparse.ArgumentParser:
    parser = Parser(__doc__)
    parser.add_argument("dataset", type=Path)
    parser.add_argument("model", type=Path)
    parser.add_argument("--copies", type=Path, metavar="INDEX", help="index of copies.py")
    parser.add_argument("--seed", type=int, default=1000, help="of the first song (default: %(default)s)")
    parser.add_argument("--songs", type=int, default=200, help="(default: %(default)s)")
    parser.add_argument("--draws", type=int, nargs="+", default=[1, 2, 4, 8], help="(default: %(default)s)")
    return parser


def drawn(loaded: LoadedModel, seeds: range, n_draws: int) -> list[list[np.ndarray]]:
    """For each seed its (N, F) candidates that have notes."""
    config = free_config()
    of_draw = [make_songs(loaded, config, range(seeds.start + k * SEED_STEP, seeds.stop + k * SEED_STEP))
               for k in range(n_draws)]
    return [[song.notes for song in candidates if len(song.notes)] for candidates in zip(*of_draw, strict=True)]


def chosen(candidates: list[list[np.ndarray]], n: int, critic: Critic, vocabulary: Vocabulary) -> list[np.ndarray]:
    """Of the first `n` candidates of each seed the most real one."""
    return [max(of_seed[:n], key=lambda rows: critic.realness(rows, vocabulary)) for of_seed in candidates if of_seed]


def distance(songs: Sequence[np.ndarray], spread: np.ndarray, vocabulary: Vocabulary) -> float:
    """The mean distance between two songs: in each measure, scaled by `spread`; the mean of the measures."""
    _, table = measure_table(songs, vocabulary)
    scaled = table / spread
    differences = np.abs(scaled[:, None] - scaled[None])     # (n, n, measures)
    return float(np.nanmean(differences[~np.eye(len(songs), dtype=bool)]))


def line(name: str, songs: list[np.ndarray], real: SongSet, spread: np.ndarray, vocabulary: Vocabulary,
         index: CopyIndex | None) -> str:
    result = compare(SongSet([""] * len(songs), songs, []), real, vocabulary, index)
    apart = result["told_apart"]
    area = f"{apart['auc']:.3f} ({apart['low']:.3f}–{apart['high']:.3f})" if apart else ""
    copied = " / ".join(f"{result['copies']['generated'][key]:.0f}" for key in ("50", "90", "99")) if index else ""
    return (f"| {name} | {len(songs)} | {result['inside']} of {len(result['measures'])} | {area} | {copied} | "
            f"{distance(songs, spread, vocabulary):.3f} |")


@reports_user_errors
def main(argv: Sequence[str] | None = None) -> int:
    args = build_parser().parse_args(argv)
    loaded = LoadedModel(args.model, "cpu")
    if loaded.critic is None:
        raise UserError(f"{args.model}: has no critic; run critic.py on it")
    vocabulary = loaded.vocabulary
    real = held_out(args.dataset, args.model)
    index = read_index(args.copies, vocabulary) if args.copies else None
    candidates = drawn(loaded, range(args.seed, args.seed + args.songs), max(args.draws))
    lengths = [of_seed[0] for of_seed in candidates if of_seed]
    alike = cut_alike(real.rows, lengths)
    _, table = measure_table(alike, vocabulary)
    spread = np.nanstd(table, axis=0)
    spread[spread == 0] = np.nan  # what never differs says nothing of distances
    print(HEADER)
    print(f"| real songs | {len(alike)} | | | | {distance(alike, spread, vocabulary):.3f} |", flush=True)
    half = len(candidates) // 2
    for n in args.draws:
        for part, name in ((candidates[:half], "first half"), (candidates[half:], "second half")):
            songs = chosen(part, n, loaded.critic, vocabulary)
            print(line(f"{n}, {name}", songs, real, spread, vocabulary, index), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
