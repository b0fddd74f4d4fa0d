"""Four bars of songs that the model never heard, and how like the songs' own next bars it goes on.

Example  python -m benchmarks.bench_continuation dataset.pt models/bundled.safetensors

The protocol follows BEAT (Gu et al. 2026, arXiv 2604.19532): prompts of four bars, and for each of three statistics of
MusPy, pitch-class entropy, groove consistency and scale consistency, the Jensen-Shannon divergence between its
distribution over continuations and over what the songs do themselves. Base 2 (0: alike, 1: nothing in common), over
20 bins of equal width between the least and the greatest value; the paper's bins are not known to us, so compare the
order of rows rather than digits. `real again` is the same for two draws of real continuations, as many as there are:
nothing can be expected to lie below. The prompt begins with the first bar of a song in which all parts play.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from tqdm import tqdm

from backline.common.errors import Parser, UserError, counted, reports_user_errors
from backline.common.settings import config_from_file
from backline.evaluation.measures import measure_song
from backline.evaluation.song_sets import held_out_songs
from backline.generation.clip import Clip
from backline.generation.config import GenConfig
from backline.generation.sampler import Request, sample_songs
from backline.generation.session import LoadedModel
from backline.generation.task import make_task
from backline.generation.wish import Wish
from backline.music.vocab import BAR, FIRST_ID, PITCH_INSTRUMENT, Vocabulary
from backline.preparation.dataset import Dataset, load_dataset, song_notes

PROMPT = 4  # bars
BATCH = 16
BINS = 20
DRAWS = 200  # of pairs of real continuations
STATISTICS = ("pitch-class entropy", "groove consistency", "scale consistency")


def split_songs(dataset: Dataset,
                songs: Sequence[int],
                n_bars: int,
                vocabulary: Vocabulary) -> list[tuple[np.ndarray, np.ndarray]]:
    """(N, F) rows of four bars of songs, and (M, F) of the `n_bars` after them, each counted from bar 0."""
    found = []
    for song in songs:
        rows = song_notes(dataset, song)  # perhaps none of the last song, which is cut off with the last full block
        bar = rows[:, BAR] - FIRST_ID
        parts = vocabulary.part_of_id[rows[:, PITCH_INSTRUMENT]]
        begins = [first
                  for first in range(int(bar.max(initial=-1)) - PROMPT - n_bars + 2)
                  if len(set(parts[bar == first].tolist())) == len(vocabulary.parts)]
        if begins:
            middle = begins[0] + PROMPT
            before, after = (rows[(bar >= first) & (bar < last)].astype(np.int64)
                             for first, last in ((begins[0], middle), (middle, middle + n_bars)))
            before[:, BAR] -= begins[0]
            after[:, BAR] -= middle
            if len(before) and len(after):
                found.append((before, after))
    return found


def continuations(loaded: LoadedModel,
                  prompts: Sequence[np.ndarray],
                  n_bars: int,
                  config: GenConfig) -> list[np.ndarray]:
    """(M, F) new rows after each prompt, counted from the first new bar; one draw each, seeds from 0."""
    clip = Clip(PROMPT)
    tasks = [make_task(Wish(bars=n_bars), prompt, loaded.vocabulary, config, clip) for prompt in prompts]
    requests = [Request(task.rules, seed, task.prompt, task.given, loaded.told(task, config, seed))
                for seed, task in enumerate(tasks)]
    made = []
    for start in tqdm(range(0, len(requests), BATCH), unit="batch", disable=None):
        made += [song.notes for song in sample_songs(loaded.player, requests[start:start + BATCH], config)]
    for notes, task in zip(made, tasks, strict=True):
        notes[:, BAR] -= task.first_bar
    return made


def statistics(songs: Sequence[np.ndarray], vocabulary: Vocabulary) -> np.ndarray:
    """(songs, 3) of `STATISTICS`; nan where a song has no pitched note."""
    measures = [measure_song(rows, vocabulary) for rows in songs if len(rows)]
    return np.array([[measured[name] for name in STATISTICS] for measured in measures])


def divergence(one: np.ndarray, other: np.ndarray, edges: np.ndarray) -> float:
    """Jensen-Shannon divergence, in bits, of two sets of values over bins."""
    shares = [np.histogram(values, edges)[0] / len(values) for values in (one, other)]
    mean = (shares[0] + shares[1]) / 2
    entropies = [-np.sum(share[share > 0] * np.log2(share[share > 0])) for share in (*shares, mean)]
    return float(entropies[2] - (entropies[0] + entropies[1]) / 2)


def compared(made: np.ndarray, real: np.ndarray) -> tuple[float, float]:
    """The divergence of a statistic's values (songs,) over made songs, and over real ones drawn twice."""
    made, real = made[~np.isnan(made)], real[~np.isnan(real)]
    if not len(made) or not len(real):
        return float("nan"), float("nan")
    both = np.concatenate([made, real])
    edges = np.linspace(both.min(), both.max() + 1e-9, BINS + 1)
    random = np.random.default_rng(0)
    again = [divergence(random.choice(real, len(made)), random.choice(real, len(real)), edges) for _ in range(DRAWS)]
    return divergence(made, real, edges), float(np.mean(again))


def build_parser() -> argparse.ArgumentParser:
    parser = Parser(__doc__)
    parser.add_argument("dataset", type=Path, help="dataset .pt with songs the model was not trained on")
    parser.add_argument("model", type=Path, help="checkpoint or released weights")
    parser.add_argument("--genconfig", type=Path, help="sampling settings (default: the default ones)")
    parser.add_argument("--bars", type=int, default=16, help="new bars (default: %(default)s)")
    parser.add_argument("--songs", type=int, default=200, help="at most (default: %(default)s)")
    return parser


@reports_user_errors
def main(argv: Sequence[str] | None = None) -> int:
    args = build_parser().parse_args(argv)
    config = config_from_file(GenConfig, args.genconfig) if args.genconfig else GenConfig()
    loaded = LoadedModel(args.model, "cpu")
    dataset = load_dataset(args.dataset, loaded.vocabulary)
    held_out = held_out_songs(loaded.facts, dataset, args.model)
    pairs = split_songs(dataset, held_out, args.bars, loaded.vocabulary)[:args.songs]
    if not pairs:
        raise UserError(f"{args.dataset}: no {PROMPT + args.bars} bars that begin with all parts among the held-out "
                        "songs; ask for fewer with --bars")
    made = statistics(continuations(loaded, [before for before, _ in pairs], args.bars, config), loaded.vocabulary)
    if not len(made):
        raise UserError(f"{args.model}: no note in {counted(len(pairs), 'continuation')}; ask for more with --bars")
    real = statistics([after for _, after in pairs], loaded.vocabulary)
    print(f"{args.model}: {len(made)} continuations of {args.bars} bars\n")
    print("| | real | made | divergence | real again |\n|---|" + "---:|" * 4)
    for column, name in enumerate(STATISTICS):
        found, again = compared(made[:, column], real[:, column])
        of_kinds = [values[~np.isnan(values)] for values in (real[:, column], made[:, column])]
        means = [f"{values.mean():.3f}" if len(values) else "nan" for values in of_kinds]
        print(f"| {name} | {' | '.join(means)} | {found:.3f} | {again:.3f} |")
    return 0


if __name__ == "__main__":
    sys.exit(main())
