"""Generation speed: notes per second beside what the memory allows and beside the published way.

Example  python -m benchmarks.bench_generate
         python -m benchmarks.bench_generate flat --notes 2048
         python -m benchmarks.bench_generate first
         python -m benchmarks.bench_generate window --model_path best.pth --dataset_path dataset.pt

`speed` makes songs with random weights of the reference configuration (which write as many notes as are asked for), in
turns, and prints medians. `bound` is what the machine could do at most: all weights read once for each note, or for
each sixteen, and the keys and values of the notes before, at the rate at which the same machine, in the same run, adds
up an array too large for its caches. `published` is a stand-in for the published way: the whole context read again for
each note, in fp32, over x-transformers' Decoder (requirements-dev.txt); `times` compares with it. `flat` prints the
speed by position in a long song, whose window moves. `first` runs generate.py for one note and a bare `import torch`
in turns. `window` reads held-out songs as generation does, whose context drops its oldest half when it is full, and
prints nats per note by position in the song; `rounded` what the same songs cost in the other number formats, and the
share of songs that come out note for note the same.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from backline.common.errors import Parser, UserError, reports_user_errors
from backline.common.paths import BUNDLED_MODEL
from backline.evaluation.held_out_losses import nats_per_note
from backline.evaluation.song_sets import held_out_songs
from backline.generation.config import DTYPES, GenConfig, RuleConfig
from backline.generation.rules import Passage, Rules
from backline.generation.sampler import Request, sample_songs
from backline.layers.config import ModelConfig
from backline.layers.packed import for_inference
from backline.layers.torch_io import pick_device
from backline.music.vocab import BAR, BOS, EOS, FIELDS, FIRST_ID, START_POS, load_vocabulary
from backline.preparation.dataset import Dataset, load_dataset, song_rows
from backline.training.checkpoints import load_model
from backline.training.losses import note_losses, window_losses
from benchmarks.bench_train import Published, read_config
from model import PooledTransformer

ROOT = Path(__file__).parents[1]
TOGETHER = 16
ARRAY = 64 * 1024 * 1024  # numbers of four bytes, more than caches hold
BYTES = {"fp32": (4, 4), "bf16": (2, 2), "int8": (1, 2)}  # of a weight, and of a key or value


def endless(model: PooledTransformer) -> PooledTransformer:
    """The model, but so unwilling to move on that a song of any number of notes stays in its first bars."""
    with torch.no_grad():
        for family, slope in ((BAR, 2.0), (START_POS, 0.5)):
            bias = model.heads[family].bias
            bias[FIRST_ID:] = -slope * torch.arange(len(bias) - FIRST_ID, device=bias.device)
        model.heads[BAR].bias[EOS] = -1e9
    return model


def bandwidth(device: torch.device) -> float:
    """Bytes per second at which an array is read."""
    array = torch.ones(ARRAY, device=device)
    took = []
    for _ in range(5):
        began = time.perf_counter()
        float(array.sum())
        took.append(time.perf_counter() - began)
    return 4 * ARRAY / statistics.median(took)


def bytes_per_note(model_bytes: int, config: ModelConfig, dtype: str, n_songs: int, n_notes: int) -> float:
    """Bytes that must be read for a note, on average over songs of `n_notes`."""
    cached = min(n_notes, config.block_size) / 2
    return model_bytes / n_songs + 2 * config.n_layers * config.d_model * cached * BYTES[dtype][1]


def requests(n_songs: int) -> list[Request]:
    vocabulary = load_vocabulary()
    return [Request(Rules(vocabulary, RuleConfig(), Passage(vocabulary.bars)), seed) for seed in range(n_songs)]


def own_way(config: ModelConfig, dtype: str, device: torch.device, n_songs: int, n_notes: int) -> Callable[[], object]:
    torch.manual_seed(0)
    model = for_inference(endless(PooledTransformer(config).to(device)), dtype)
    settings = GenConfig(max_steps=n_notes)

    def make() -> None:
        made = sample_songs(model, requests(n_songs), settings)
        assert all(len(song.notes) == n_notes for song in made)  # or the speed would be another's

    return make


def published_way(config: ModelConfig, device: torch.device, n_notes: int) -> Callable[[], object]:
    torch.manual_seed(0)
    model = Published(config).to(device).eval()

    @torch.inference_mode()
    def make() -> None:
        rows = torch.full((1, 1, len(FIELDS)), BOS, device=device)
        for _ in range(n_notes):
            note = [torch.multinomial(logits[:, -1].softmax(-1), 1) for logits in model(rows[:, -config.block_size:])]
            rows = torch.cat([rows, torch.stack(note, -1)], 1)

    return make


def seconds(work: Callable[[], object], device: torch.device) -> float:
    began = time.perf_counter()
    work()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter() - began


def speed(args: argparse.Namespace) -> int:
    device, config = pick_device(args.device), read_config(args.model_config)
    n_parameters = PooledTransformer(config).n_parameters()
    ways = {("published", 1): published_way(config, device, args.notes)}
    ways |= {(dtype, n): own_way(config, dtype, device, n, args.notes) for n in (1, TOGETHER) for dtype in args.dtypes}
    took: dict[tuple[str, int], list[float]] = {way: [] for way in ways}
    rates = []
    own_way(config, "fp32", device, 1, 8)()  # what only the first call costs
    for _ in range(args.rounds):
        for way, make in ways.items():
            rates.append(bandwidth(device))
            took[way].append(seconds(make, device))
    rate, slowest = statistics.median(rates), statistics.median(took["published", 1])
    print(f"{n_parameters / 1e6:.1f} M parameters, songs of {args.notes} notes, {torch.get_num_threads()} threads, "
          f"{device.type}; an array is read at {rate / 1e9:.1f} GB/s\n")
    print("| | songs | notes/s | times | bound | share of it |\n|---|---:|---:|---:|---:|---:|")
    for (name, n), found in took.items():
        notes = n * args.notes / statistics.median(found)
        line = f"| {name} | {n} | {notes:.0f} | {notes * slowest / args.notes:.1f} |"
        if name in BYTES:
            bound = rate / bytes_per_note(n_parameters * BYTES[name][0], config, name, n, args.notes)
            line += f" {bound:.0f} | {notes / bound:.0%} |"
        print(line if name in BYTES else line + " | |")
    return 0


def flat(args: argparse.Namespace) -> int:
    device, config = pick_device(args.device), read_config(args.model_config)
    model, moments = for_inference(endless(PooledTransformer(config).to(device)), "fp32"), []
    settings = GenConfig(max_steps=args.notes)
    sample_songs(model, requests(1), settings, on_note=lambda: moments.append(time.perf_counter()))
    print(f"context {config.block_size}; notes/s in a song of {args.notes}:\n")
    for start in range(0, args.notes, args.notes // 16):
        end = min(start + args.notes // 16, args.notes) - 1
        print(f"{start:6d}–{end:<6d} {(end - start) / (moments[end] - moments[start]):6.0f}")
    return 0


def first(args: argparse.Namespace) -> int:
    with tempfile.TemporaryDirectory() as folder:
        genconfig = Path(folder) / "one_note.json"
        genconfig.write_text(json.dumps({"max_steps": 1, "all_parts": False, "whole_bars": False}))
        whole = [sys.executable, str(ROOT / "generate.py"), "-o", folder, "--genconfig", str(genconfig), "-d", "cpu"]
        bare = [sys.executable, "-c", "import torch"]
        took = []
        for _ in range(args.rounds + 1):
            pair = []
            for command in (bare, whole):
                began = time.perf_counter()
                subprocess.run(command, check=True, capture_output=True)
                pair.append(time.perf_counter() - began)
            took.append(pair)
    (imported, made), later = zip(*took[1:], strict=True), statistics.median(b - a for a, b in took[1:])
    print(f"import torch {statistics.median(imported):.2f} s, generate.py to the file of one note "
          f"{statistics.median(made):.2f} s: {later:.2f} s later (median of {args.rounds} pairs)")
    return 0


@torch.inference_mode()
def window(args: argparse.Namespace) -> int:
    model, vocabulary, facts = load_model(args.model_path)
    dataset = load_dataset(args.dataset_path, vocabulary)
    songs = [song_rows(dataset, song) for song in held_out_songs(facts, dataset, args.model_path)]
    size = model.config.block_size
    half, longest = size // 2, [rows for rows in songs if len(rows) > 4 * size][:args.songs]
    sums: dict[int, list[float]] = {}
    for rows in tqdm(longest, unit="song", disable=None):
        for start in range(0, 4 * size - half, half):  # the window in which the notes of its last half are predicted
            losses = window_losses(model, model.config, rows[None, start:start + size + 1])[0].sum(-1)
            new = losses if start == 0 else losses[half:]
            for position, loss in enumerate(new.tolist(), start if start == 0 else start + half):
                sums.setdefault(position // half, []).append(loss)
    print(f"{len(longest)} songs of more than {4 * size} rows, context {size}; nats per note by position:\n")
    for number, found in sorted(sums.items()):
        print(f"{number * half:6d}–{(number + 1) * half - 1:<6d} {statistics.mean(found):.3f}")
    return 0


def rounded(args: argparse.Namespace) -> int:
    exact = None
    for dtype in args.dtypes:
        model, vocabulary, facts = load_model(args.model_path)
        model = for_inference(model, dtype)
        wanted = [Request(Rules(vocabulary, RuleConfig(), Passage(32)), seed) for seed in range(args.songs)]
        made = [song.notes for song in sample_songs(model, wanted, GenConfig(max_steps=512))]
        exact = exact or made
        same = sum(np.array_equal(one, other) for one, other in zip(made, exact, strict=True))
        print(f"{dtype}: {same} of {len(made)} songs as in {args.dtypes[0]}", end="", flush=True)
        if args.dataset_path:
            dataset = load_dataset(args.dataset_path, vocabulary)
            songs = held_out_songs(facts, dataset, args.model_path)[:args.songs]
            print(f"; {nats_per_note(cached_losses(model, dataset, songs))['nats_per_note']:.4f} nats per note", end="")
        print()
    return 0


@torch.inference_mode()
def cached_losses(model: PooledTransformer, dataset: Dataset, songs: Sequence[int]) -> Tensor:
    """(n_songs, F + 1) as `evaluation.Losses.by_song`, of the first window of each, read with a cache."""
    sums = []
    for song in songs:
        rows = song_rows(dataset, song)[None, :model.config.block_size + 1]
        reading = model.read(rows[:, :-1], model.new_cache(1))
        losses = note_losses([logits.float() for logits in model.logits(reading, rows[:, 1:])], rows[:, 1:])
        sums.append(torch.cat([losses[0].sum(0), torch.tensor([losses.shape[1]])]).double())
    return torch.stack(sums)


def build_parser() -> argparse.ArgumentParser:
    parser = Parser(__doc__)
    parser.add_argument("what", nargs="?", choices=tuple(WORK), default="speed")
    parser.add_argument("--model_path", type=Path, default=BUNDLED_MODEL, help="of window and rounded")
    parser.add_argument("--dataset_path", type=Path, help="the model was trained on: of window and rounded")
    parser.add_argument("--songs", type=int, default=48, help="of window and rounded (default: %(default)s)")
    parser.add_argument("--model_config", type=Path, default=ROOT / "configs" / "model_reference.json",
                        help="(default: the reference)")
    parser.add_argument("--notes", type=int, default=512, help="notes of a song (default: %(default)s)")
    parser.add_argument("--rounds", type=int, default=3, help="(default: %(default)s)")
    parser.add_argument("--dtypes", nargs="+", choices=DTYPES, default=DTYPES, help="(default: all)")
    parser.add_argument("-d", "--device", default="cpu", help="(default: %(default)s)")
    return parser


WORK = {"speed": speed, "flat": flat, "first": first, "window": window, "rounded": rounded}


@reports_user_errors
def main(argv: Sequence[str] | None = None) -> int:
    args = build_parser().parse_args(argv)
    if args.what == "window" and not args.dataset_path:
        raise UserError("window needs the dataset that the model was trained on: --dataset_path")
    return WORK[args.what](args)


if __name__ == "__main__":
    sys.exit(main())
