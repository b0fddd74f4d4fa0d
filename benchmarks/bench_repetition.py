"""Does `variety` help against loops? Copied bars in sampled songs beside those of real ones.

Example  python -m benchmarks.bench_repetition dataset.pt models/bundled.safetensors --variety 0 0.05 0.1

For each setting the same seeds make long songs, past the model's context. Of them, and of held-out songs cut to as
many notes: the share of bars that copy one of the eight before them note for note, how many do in a row at most (mean
and highest tenth of the songs), and the Kolmogorov-Smirnov distance between these longest runs and the real songs' (0:
alike, 1: nothing in common). What a setting costs is shown by the nats that its notes surprised the model by.
"""

from __future__ import annotations

import argparse
import dataclasses
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from backline.common.errors import Parser, reports_user_errors
from backline.common.settings import config_from_file
from backline.evaluation.song_sets import held_out_songs
from backline.generation.config import GenConfig, RuleConfig
from backline.generation.loading import player_of
from backline.generation.repetition import repeats_in_a_row
from backline.generation.rules import Passage, Rules
from backline.generation.sampler import Request, Sampled, sample_songs
from backline.music.vocab import BAR, FIRST_ID
from backline.preparation.dataset import load_dataset, song_notes
from backline.training.checkpoints import load_model

BATCH = 16


def real_songs(path: Path, model_path: Path, n_notes: int) -> list[np.ndarray]:
    """(N, F) first `n_notes` rows of the held-out songs that have so many, counted from bar 0."""
    _, vocabulary, facts = load_model(model_path)
    dataset, found = load_dataset(path, vocabulary), []
    for song in held_out_songs(facts, dataset, model_path):
        rows = song_notes(dataset, song)[:n_notes]
        if len(rows) == n_notes:
            rows[:, BAR] -= rows[0, BAR] - FIRST_ID
            found.append(rows)
    return found


def line(name: str, songs: list[np.ndarray], real_longest: np.ndarray, nats: float | None) -> tuple[str, np.ndarray]:
    """A row of the table, and the longest run of each song."""
    counts = [repeats_in_a_row(rows) for rows in songs if len(rows)]
    longest = np.array([of_song.max() for of_song in counts])
    share = np.mean([(of_song > 0).mean() for of_song in counts])
    distance = _distance(longest, real_longest if len(real_longest) else longest)
    return (f"| {name} | {len(counts)} | {np.mean([len(of_song) for of_song in counts]):.0f} | {share:.3f} | "
            f"{longest.mean():.1f} | {np.percentile(longest, 90):.0f} | {distance:.2f} | "
            f"{'' if nats is None else f'{nats:.3f}'} |"), longest


def _distance(one: np.ndarray, other: np.ndarray) -> float:
    """The largest difference of the two cumulative distributions."""
    places = np.concatenate([one, other])
    shares = [np.searchsorted(np.sort(of_kind), places, side="right") / len(of_kind) for of_kind in (one, other)]
    return float(np.abs(shares[0] - shares[1]).max())


def build_parser() -> argparse.ArgumentParser:
    parser = Parser(__doc__)
    parser.add_argument("dataset", type=Path, help="dataset .pt with songs the model was not trained on")
    parser.add_argument("model", type=Path, help="checkpoint or released weights")
    parser.add_argument("--genconfig", type=Path, help="sampling settings (default: the default ones)")
    parser.add_argument("--variety", type=float, nargs="+", default=[0, 0.05, 0.1, 0.2], help="default: 0 .05 .1 .2")
    parser.add_argument("--songs", type=int, default=32, help="of each setting (default: %(default)s)")
    parser.add_argument("--notes", type=int, default=1500, help="of a song (default: %(default)s)")
    return parser


@reports_user_errors
def main(argv: Sequence[str] | None = None) -> int:
    args = build_parser().parse_args(argv)
    config = config_from_file(GenConfig, args.genconfig) if args.genconfig else GenConfig()
    model, vocabulary, _ = load_model(args.model)
    player = player_of(model)
    print("| | songs | bars | copied | longest run | highest tenth | distance | nats |\n|---|" + "---:|" * 7)
    text, real = line("real", real_songs(args.dataset, args.model, args.notes), np.zeros(0), None)
    print(text, flush=True)
    for variety in args.variety:
        settings, made = dataclasses.replace(config, variety=variety, loop_guard=0.0, max_steps=args.notes), []
        for start in range(0, args.songs, BATCH):
            wanted = [Request(Rules(vocabulary, RuleConfig(), Passage(vocabulary.bars)), seed)
                      for seed in range(start, min(start + BATCH, args.songs))]
            made += sample_songs(player, wanted, settings)
        print(line(f"variety {variety:g}", [song.notes for song in made], real, _mean_nats(made))[0], flush=True)
    return 0


def _mean_nats(made: list[Sampled]) -> float:
    return float(np.concatenate([song.surprisals for song in made]).mean())


if __name__ == "__main__":
    sys.exit(main())
