"""Which sampling settings write songs that lie among real ones? A grid of them, judged as evaluate.py judges.

Example  python -m benchmarks.bench_sampling dataset.pt models/bundled.safetensors benchmarks/sampling_grid.json

The grid is a list of settings as --genconfig takes them, each with a "name" besides; what it leaves out is as in
configs/genconfig_free.json, so that songs are as the model plays them, told what generate.py tells it. For each the
same seeds make songs from scratch. They are judged beside the held-out songs of the dataset, cut to their lengths: the
measures inside the band of real songs, how well a classifier tells the two apart, the nats that the notes surprised the
model by (of the held-out songs: its loss), and, where --copies gives the index, the longest run that is in training
songs too (percentile 90), and the share of songs whose run is longer than that of 99 in 100 real songs.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import orjson
from tqdm import tqdm

from backline.common.errors import Parser, UserError, reports_user_errors
from backline.common.files import read_input, read_json_object
from backline.common.settings import config_from_dict
from backline.evaluation.copy_index import CopyIndex, read_index
from backline.evaluation.song_sets import SongSet, held_out
from backline.evaluation.statistics import Verdict
from backline.generation.config import GenConfig
from backline.generation.sampler import Sampled
from backline.generation.session import LoadedModel
from backline.generation.task import make_task
from backline.generation.wish import Wish
from backline.music.vocab import FIELDS, Vocabulary
from evaluate import compare

FREE = Path(__file__).parents[1] / "configs" / "genconfig_free.json"
BATCH = 32
FARTHEST = 5  # measures named


def read_grid(path: Path) -> dict[str, GenConfig]:
    """Settings by name. Raises UserError."""
    free = read_json_object(FREE)
    try:
        grid = orjson.loads(read_input(path))
        if not isinstance(grid, list):
            raise TypeError
        return {each.pop("name"): config_from_dict(GenConfig, free | each, f"{path}: {i}")
                for i, each in enumerate(grid)}
    except (orjson.JSONDecodeError, AttributeError, KeyError, TypeError):
        raise UserError(f"{path}: must be a list of settings, each an object with a name; correct it") from None


def make_songs(loaded: LoadedModel, config: GenConfig, seeds: range) -> list[Sampled]:
    """Songs from scratch, one for each seed."""
    task = make_task(Wish(), np.zeros((0, len(FIELDS)), np.int64), loaded.vocabulary, config)
    made: list[Sampled] = []
    for start in tqdm(range(0, len(seeds), BATCH), unit="batch", leave=False, disable=None):
        made += loaded.make(task, config, seeds[start:start + BATCH])
    return made


def line(name: str, made: list[Sampled], real: SongSet, vocabulary: Vocabulary, index: CopyIndex | None) -> str:
    rows = [song.notes for song in made if len(song.notes)]
    result: dict[str, Any] = compare(SongSet([""] * len(rows), rows, []), real, vocabulary, index)
    apart, nats = result["told_apart"], float(np.concatenate([song.surprisals for song in made]).mean())
    area = f"{apart['auc']:.3f} ({apart['low']:.3f}–{apart['high']:.3f})" if apart else ""
    outside = sorted((Verdict(**each) for each in result["measures"] if not each["inside"]),
                     key=lambda verdict: -abs(verdict.half_widths))
    copied = f"{result['copies']['generated']['90']:.0f}, {result['copies']['above']:.0%}" if index else ""
    return (f"| {name} | {np.mean([len(of_song) for of_song in rows]):.0f} | {nats:.3f} | "
            f"{result['inside']} of {len(result['measures'])} | {area} | {copied} | "
            f"{', '.join(map(signed, outside[:FARTHEST]))} |")


def signed(verdict: Verdict) -> str:
    return f"{verdict.name} {'+' if verdict.half_widths > 0 else '−'}"


def build_parser() -> argparse.ArgumentParser:
    parser = Parser(__doc__)
    parser.add_argument("dataset", type=Path, help="dataset .pt with songs the model was not trained on")
    parser.add_argument("model", type=Path, help="checkpoint or released weights")
    parser.add_argument("grid", type=Path, help="JSON list of sampling settings")
    parser.add_argument("--songs", type=int, default=100, help="of each setting (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="the first song's (default: %(default)s)")
    parser.add_argument("--copies", type=Path, help="index of copies.py")
    return parser


@reports_user_errors
def main(argv: Sequence[str] | None = None) -> int:
    args = build_parser().parse_args(argv)
    grid = read_grid(args.grid)
    loaded = LoadedModel(args.model, "cpu")
    vocabulary = loaded.vocabulary
    index = read_index(args.copies, vocabulary) if args.copies else None
    real = held_out(args.dataset, args.model)
    seeds = range(args.seed, args.seed + args.songs)
    print("| | notes | nats per note | inside | told apart, AUC | copied | outside, the farthest |\n"
          "|---|---:|---:|---:|---:|---:|---|")
    for name, config in grid.items():
        print(line(name, make_songs(loaded, config, seeds), real, vocabulary, index), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
