"""Generation speed: notes per second of the bundled model, beside earlier versions and what the memory allows.

Example  python -m benchmarks.bench_generate
         python -m benchmarks.bench_generate --beside ../backline-before
         python -m benchmarks.bench_generate reference
         python -m benchmarks.bench_generate flat --notes 2048
         python -m benchmarks.bench_generate first
         python -m benchmarks.bench_generate window --model_path best.pth --dataset_path dataset.pt

`speed` makes songs of the bundled model from scratch, 512 notes at most, sampling included, one, three and sixteen
at a time: in this checkout and in those that `--beside` names, in turns, each in a process of its own. It prints the
fastest round of each. `bound` is the most that the machine could do: all weights read once for each note, or
for each three or sixteen, at the rate at which the same machine, in the same run, adds up an array too large for its
caches. `reference` does the same with random weights of the reference configuration (which write as many notes as are
asked for) and prints medians; its bound counts the keys and values of the notes before, too. `published` there is a
stand-in for the published way: the whole context read again for each note, in fp32, over x-transformers' Decoder
(requirements-dev.txt); `times` compares with it. `flat` prints the speed by place in a long song, whose window moves.
`first` runs generate.py for one note, and for three songs, and a bare `import onnxruntime` in turns. `window` reads
held-out songs as generation does, whose context drops its oldest half when it is full, and prints nats per note by
position in the song; `rounded` what the same songs cost in 8 bits, and the share of songs that come out note for note
the same.
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
from tqdm import tqdm

from backline.common.errors import Parser, UserError, reports_user_errors
from backline.common.paths import BUNDLED_MODEL
from backline.engine.model_file import read_model_file
from backline.engine.onnx_player import ENGINE_DTYPES, OnnxPlayer
from backline.engine.player import NewNotes, Player
from backline.engine.torch_player import TorchPlayer
from backline.evaluation.song_sets import held_out_songs
from backline.generation.config import GenConfig, RuleConfig
from backline.generation.filters import softmax
from backline.generation.loading import player_of, weights_of
from backline.generation.rules import Passage, Rules
from backline.generation.sampler import Request, sample_songs
from backline.layers.config import ModelConfig
from backline.music.vocab import BAR, BOS, EOS, FIELDS, FIRST_ID, START_POS, load_vocabulary
from backline.preparation.dataset import Dataset, load_dataset, song_rows
from backline.training.checkpoints import load_model
from backline.training.losses import window_losses
from benchmarks.bench_train import Published, read_config
from model import PooledTransformer

ROOT = Path(__file__).parents[1]
TOGETHER = 16
ARRAY = 64 * 1024 * 1024  # numbers of four bytes, more than caches hold
BYTES = {"fp32": (4, 4), "int8": (1, 4)}  # of a weight, and of a key or value


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


def own_way(config: ModelConfig, dtype: str, n_songs: int, n_notes: int) -> Callable[[], object]:
    torch.manual_seed(0)
    player = OnnxPlayer(config, weights_of(endless(PooledTransformer(config))), dtype)
    settings = GenConfig(max_steps=n_notes)

    def make() -> None:
        made = sample_songs(player, requests(n_songs), settings)
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


def reference(args: argparse.Namespace) -> int:
    device, config = torch.device("cpu"), read_config(args.model_config)
    n_parameters = PooledTransformer(config).n_parameters()
    ways = {("published", 1): published_way(config, device, args.notes)}
    ways |= {(dtype, n): own_way(config, dtype, n, args.notes) for n in (1, TOGETHER) for dtype in args.dtypes}
    took: dict[tuple[str, int], list[float]] = {way: [] for way in ways}
    rates = []
    own_way(config, "fp32", 1, 8)()  # what only the first call costs
    for _ in range(args.rounds):
        for way, make in ways.items():
            rates.append(bandwidth(device))
            took[way].append(seconds(make, device))
    rate, slowest = statistics.median(rates), statistics.median(took["published", 1])
    print(f"{n_parameters / 1e6:.1f} M parameters, {args.notes} notes; an array is read at {rate / 1e9:.1f} GB/s\n")
    print("| | songs | notes/s | times | bound | share of it |\n|---|---:|---:|---:|---:|---:|")
    for (name, n), found in took.items():
        notes = n * args.notes / statistics.median(found)
        line = f"| {name} | {n} | {notes:.0f} | {notes * slowest / args.notes:.1f} |"
        if name in BYTES:
            bound = rate / bytes_per_note(n_parameters * BYTES[name][0], config, name, n, args.notes)
            line += f" {bound:.0f} | {notes / bound:.0%} |"
        print(line if name in BYTES else line + " | |")
    return 0


# ---------------------------------------------------------------- the bundled model, here and in other checkouts

# Run in a checkout: a line on stdin, of a number of songs, is answered by their notes and seconds. It speaks to
# this version's session and to earlier ones'.
WORKER = """
import sys, time
from pathlib import Path
import numpy as np
from backline.generation.config import GenConfig
from backline.generation.session import LoadedModel
from backline.generation.task import Wish, make_task
path, dtype = sys.argv[1:]
loaded = LoadedModel(Path(path), "cpu", dtype)
getattr(loaded, "take_few_cores", int)()
config = GenConfig(max_steps=512, num_bars=64)
task = make_task(Wish(), np.zeros((0, 4), np.int64), loaded.vocabulary, config)
loaded.make(task, GenConfig(max_steps=8, num_bars=64), range(1))
print("ready", flush=True)
for line in sys.stdin:
    began = time.perf_counter()
    songs = loaded.make(task, config, range(int(line)))
    print(sum(len(song.notes) for song in songs), time.perf_counter() - began, flush=True)
"""


class Worker:
    """A process that makes songs in one checkout."""

    def __init__(self, checkout: Path, model: Path, dtype: str) -> None:
        command = [sys.executable, "-c", WORKER, str(model.resolve()), dtype]
        self.process = subprocess.Popen(command, cwd=checkout, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                                        stderr=subprocess.DEVNULL, text=True)
        if self._answer() != ["ready"]:
            raise UserError(f"{checkout}: plays no {dtype} with {model}")

    def songs(self, n: int) -> tuple[int, float]:
        """Notes and seconds of `n` songs made together."""
        assert self.process.stdin
        self.process.stdin.write(f"{n}\n")
        self.process.stdin.flush()
        n_notes, took = self._answer()
        return int(n_notes), float(took)

    def _answer(self) -> list[str]:
        assert self.process.stdout
        return self.process.stdout.readline().split()


def speed(args: argparse.Namespace) -> int:
    checkouts = [ROOT, *args.beside]
    workers = {(checkout, dtype): Worker(checkout, args.model_path, dtype)
               for checkout in checkouts for dtype in args.dtypes}
    n_parameters = sum(array.size for array in read_model_file(args.model_path).weights.values())
    best: dict[tuple[Path, str, int], float] = {}
    rates = []
    for _ in tqdm(range(args.rounds), unit="round", disable=None):
        rates.append(bandwidth(torch.device("cpu")))
        for n in (1, 3, TOGETHER):
            for (checkout, dtype), worker in workers.items():
                n_notes, took = worker.songs(n)
                best[checkout, dtype, n] = max(best.get((checkout, dtype, n), 0), n_notes / took)
    rate = max(rates)
    print(f"{n_parameters / 1e6:.1f} M parameters; an array is read at {rate / 1e9:.1f} GB/s\n")
    print("| checkout | weights | songs | notes/s | times the last checkout | bound | share of it |\n"
          "|---|---|---:|---:|---:|---:|---:|")
    for (checkout, dtype, n), notes in best.items():
        bound = n * rate / (n_parameters * BYTES[dtype][0])
        name = "this one" if checkout == ROOT else checkout.name
        print(f"| {name} | {dtype} | {n} | {notes:.0f} | {notes / best[checkouts[-1], dtype, n]:.2f} | {bound:.0f} | "
              f"{notes / bound:.0%} |")
    return 0


def flat(args: argparse.Namespace) -> int:
    config, moments = read_config(args.model_config), []
    player = player_of(endless(PooledTransformer(config)))
    settings = GenConfig(max_steps=args.notes)
    sample_songs(player, requests(1), settings, on_note=lambda: moments.append(time.perf_counter()))
    print(f"context {config.block_size}; notes/s in a song of {args.notes}:\n")
    for start in range(0, args.notes, args.notes // 16):
        end = min(start + args.notes // 16, args.notes) - 1
        print(f"{start:6d}–{end:<6d} {(end - start) / (moments[end] - moments[start]):6.0f}")
    return 0


def first(args: argparse.Namespace) -> int:
    with tempfile.TemporaryDirectory() as folder:
        genconfig = Path(folder) / "one_note.json"
        genconfig.write_text(json.dumps({"max_steps": 1, "all_parts": False, "whole_bars": False}))
        commands = {"import onnxruntime": ["-c", "import onnxruntime"]}
        for checkout in (ROOT, *args.beside):
            generate = [str(checkout / "generate.py"), "-o", folder, "-mp", str(args.model_path.resolve()), "-d", "cpu",
                        "--seed", "0"]
            commands[f"{checkout.name}: one note"] = [*generate, "--genconfig", str(genconfig)]
            commands[f"{checkout.name}: -n 3"] = [*generate, "-n", "3"]
        took: dict[str, list[float]] = {name: [] for name in commands}
        for _ in range(args.rounds + 1):
            for name, command in commands.items():
                began = time.perf_counter()
                subprocess.run([sys.executable, *command], check=True, capture_output=True)
                took[name].append(time.perf_counter() - began)
    for name, found in took.items():
        print(f"{name}: {statistics.median(found[1:]):.2f} s (median of {args.rounds})")
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
    model, vocabulary, facts = load_model(args.model_path)
    wanted = [Request(Rules(vocabulary, RuleConfig(), Passage(32)), seed) for seed in range(args.songs)]
    players = {"torch": TorchPlayer(model)}
    players |= {dtype: OnnxPlayer(model.config, weights_of(model), dtype) for dtype in args.dtypes}
    made = {}
    for name, player in players.items():
        made[name] = [song.notes for song in sample_songs(player, wanted, GenConfig(max_steps=512))]
        same = sum(np.array_equal(one, other) for one, other in zip(made[name], made["torch"], strict=True))
        print(f"{name}: {same} of {len(wanted)} songs as by torch", flush=True)
    if args.dataset_path:
        dataset = load_dataset(args.dataset_path, vocabulary)
        songs = held_out_songs(facts, dataset, args.model_path)[:args.songs]
        for name, player in players.items():
            print(f"{name}: {held_out_nats(player, dataset, songs, args.notes):.4f} nats per note", flush=True)
    return 0


def held_out_nats(player: Player, dataset: Dataset, songs: Sequence[int], n_notes: int) -> float:
    """Nats per note of the first notes of some songs, read one by one as in playing."""
    rows = [song_rows(dataset, song).numpy()[:n_notes + 1] for song in songs]
    nats, n_read = 0.0, 0
    for of_song in tqdm(rows, unit="song", leave=False, disable=None):
        contexts = player.contexts(1)
        for t in range(len(of_song) - 1):
            ids = of_song[None, t:t + 1]
            new = NewNotes(ids, [1], np.zeros((1, 1), bool), np.zeros((1, 1, len(player.config.sheet_sizes)), np.int64))
            contexts.replace([0], new, [0]) if t == 0 else contexts.read(new)
            following = of_song[t + 1]
            logits = contexts.first_logits()
            for k, family in enumerate(player.order):
                nats -= float(np.log(softmax(logits.astype(float))[0, following[family]]))
                if k + 1 < len(player.order):
                    logits = contexts.next_logits(k, following[None], np.zeros((1, 3), np.int64))
            n_read += 1
    return nats / n_read


def build_parser() -> argparse.ArgumentParser:
    parser = Parser(__doc__)
    parser.add_argument("what", nargs="?", choices=tuple(WORK), default="speed")
    parser.add_argument("--model_path", type=Path, default=BUNDLED_MODEL, help="(default: the bundled one)")
    parser.add_argument("--beside", nargs="+", type=Path, default=[], metavar="CHECKOUT",
                        help="other versions of the repository, of speed and first")
    parser.add_argument("--dataset_path", type=Path, help="the model was trained on: of window and rounded")
    parser.add_argument("--songs", type=int, default=48, help="of window and rounded (default: %(default)s)")
    parser.add_argument("--model_config", type=Path, default=ROOT / "configs" / "model_reference.json",
                        help="(default: the reference)")
    parser.add_argument("--notes", type=int, default=512, help="notes of a song (default: %(default)s)")
    parser.add_argument("--rounds", type=int, default=3, help="(default: %(default)s)")
    parser.add_argument("--dtypes", nargs="+", choices=ENGINE_DTYPES, default=ENGINE_DTYPES, help="(default: all)")
    return parser


WORK = {"speed": speed, "reference": reference, "flat": flat, "first": first, "window": window, "rounded": rounded}


@reports_user_errors
def main(argv: Sequence[str] | None = None) -> int:
    args = build_parser().parse_args(argv)
    if args.what == "window" and not args.dataset_path:
        raise UserError("window needs the dataset that the model was trained on: --dataset_path")
    return WORK[args.what](args)


if __name__ == "__main__":
    sys.exit(main())
