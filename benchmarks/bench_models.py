"""The ablation: every option of the model against the published architecture, on held-out songs.

Example  python -m benchmarks.bench_models train dataset.pt runs reference late
         python -m benchmarks.bench_models table dataset.pt runs

`train` trains the rows named, one after another, each with every seed, into folders of their own (`late-s0`); run
again, it continues. Two of them may run at once, on different rows. `table` evaluates what is trained on the same
whole songs, times a step of each row, all in turns and on one core, and prints the table: losses after the same notes
seen; the time that a row takes for them (`time`, the reference's is 1); and losses after the reference's time, on the
held-out rows of training. These are read off the row's own curve, where its learning rate is still high (so a row
that takes longer is shown worse than one planned for that time would be), and at its end for a row that is done
sooner. Songs are held out by cluster. The size is a trial's: 6 layers, width 256; with `--steps 1200` 4.9 million
notes.
"""

from __future__ import annotations

import argparse
import csv
import dataclasses
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from backline.common.errors import Parser, UserError, reports_user_errors
from backline.common.files import write_bytes
from backline.evaluation.held_out_losses import by_context, measure_losses, nats_per_note
from backline.layers.config import ModelConfig
from backline.music.vocab import FIELDS
from backline.preparation.dataset import dataset_hash, load_dataset, split_by_song
from backline.training.checkpoints import load_checkpoint
from backline.training.config import LAST, LOSSES, TrainingSettings
from backline.training.distributed import Processes
from backline.training.run import Run, TrainingSongs
from backline.training.run_folder import RunFolder
from benchmarks.recurrence import RecurrentRun
from benchmarks.sequential_model import SequentialRun, SequentialTransformer, families, flat_split
from benchmarks.sequential_tokenizer import MidiTokenizerSequential
from model import PooledTransformer

TRIAL = {"emb_sizes": (128, 64, 64, 128), "n_layers": 6, "n_heads": 4, "d_model": 256, "dropout": 0.0}
TRAINING = {"batch_size": 8, "num_epochs": 100, "lr": 1e-3, "final_lr": 0.05, "warmup_steps": 100,
            "loggingsteps": 100, "validate_steps": 100, "validate_rows": 96, "precision": "bf16"}
TRAIN_SPLIT = 0.9
CONTEXT = 512


@dataclasses.dataclass(frozen=True)
class Row:
    """What one row of the table changes; `length` notes of context, as many notes in a step whatever it is."""

    model: dict[str, Any]
    training: dict[str, Any] = dataclasses.field(default_factory=dict)
    length: int = CONTEXT
    kind: type[Run] = Run


LATE = {"heads": "gru", "positions": "metre", "late_layers": 2}
LATE_RELATIVE = LATE | {"bars": "relative"}
MUON = {"optimizer": "muon", "muon_lr": 0.02}
ROWS = {
    "reference": Row({}),
    "rotary": Row({"positions": "rotary"}),
    "music_time": Row({"positions": "music_time"}),
    "metre": Row({"positions": "metre"}),
    "chain": Row({"heads": "chain"}),
    "gru": Row({"heads": "gru"}),
    "gru-music_time": Row({"heads": "gru", "positions": "music_time"}),
    "chain-metre": Row({"heads": "chain", "positions": "metre"}),
    "gru-metre": Row({"heads": "gru", "positions": "metre"}),
    "gru-metre-pitch_first": Row({"heads": "gru", "positions": "metre",
                                  "order": ("pitch_instrument", "bar", "start_pos", "note_dur")}),
    "late": Row(LATE),
    "late-1": Row(LATE | {"late_layers": 1}),
    "late-3": Row(LATE | {"late_layers": 3}),
    "late-chain": Row(LATE | {"heads": "chain"}),
    "late-music_time": Row(LATE | {"positions": "music_time"}),
    "late-relative": Row(LATE_RELATIVE),
    "late-relative-narrow": Row(LATE_RELATIVE | {"d_ff": 768}),
    "late-3-relative": Row(LATE | {"late_layers": 3, "bars": "relative"}),
    "late-augmented": Row(LATE, {"transpose": (-5, 6), "random_crops": True}),
    "late-dropped": Row(LATE, {"drop_parts": 0.1}),
    "late-1024": Row(LATE, length=1024),
    "late-2048": Row(LATE, length=2048),
    "muon": Row(LATE_RELATIVE, MUON),
    "muon-decay": Row(LATE_RELATIVE, MUON | {"weight_decay": 0.1}),
    "muon-adam3": Row(LATE_RELATIVE, MUON | {"lr": 3e-3}),
    "muon-qk": Row(LATE_RELATIVE | {"qk_norm": True}, MUON),
    "muon-qk-adam3": Row(LATE_RELATIVE | {"qk_norm": True}, MUON | {"lr": 3e-3}),
    "given": Row(LATE | {"bars": "relative", "given": True}, {"given_tasks": 0.5}),
    "given-no_lookahead": Row(LATE | {"bars": "relative", "given": True, "lookahead_bars": 0}, {"given_tasks": 0.5}),
    "late-recurrent": Row(LATE, kind=RecurrentRun),
    "sequential": Row({"positions": "rotary"}, kind=SequentialRun),
}

# ---------------------------------------------------------------- training


def start(folder: Path, name: str, seed: int, steps: int, path: Path) -> Run:
    """The run of one row, begun or continued where its folder says."""
    row, dataset = ROWS[name], load_dataset(path)
    model_config = ModelConfig.for_vocabulary(dataset.vocabulary, **TRIAL | row.model, block_size=row.length)
    training = TRAINING | {"batch_size": TRAINING["batch_size"] * CONTEXT // row.length,
                           "validate_rows": TRAINING["validate_rows"] * CONTEXT // row.length} | row.training
    settings = TrainingSettings(**training, filename=str(folder), max_train_steps=steps, seed=seed)
    split = split_by_song(dataclasses.replace(dataset, block_size=row.length), TRAIN_SPLIT)
    torch.manual_seed(seed)
    facts = {"dataset": str(path), "train_split": TRAIN_SPLIT, "weights": None, "dataset_hash": dataset_hash(path),
             "held_out_songs": list(split.held_out_songs)}
    if row.kind is SequentialRun:
        tokenizer = MidiTokenizerSequential(dataset.vocabulary)
        model = SequentialTransformer(model_config, tokenizer.n_tokens)
        split, notes_per_token = flat_split(dataset, split, row.length)
        steps = round(steps / notes_per_token)  # the same notes
        settings = dataclasses.replace(settings, max_train_steps=steps)
    else:
        model = PooledTransformer(model_config)
    processes = Processes("cpu")
    run = row.kind(RunFolder(folder, facts, processes), settings, model, TrainingSongs(dataset, split), processes)
    if row.kind is SequentialRun:
        run.family_of, run.notes_per_token = families(tokenizer), notes_per_token
    if (folder / LAST).is_file():
        state = load_checkpoint(folder / LAST)
        model.load_state_dict(state["weights"])
        run.restore(state["training"])
        if run.progress.step and run.total_steps != steps_planned(state["training"], run):
            raise UserError(f"{folder}: planned for other --steps; give another folder")
    return run


def steps_planned(state: dict[str, Any], run: Run) -> int:
    return min(state["settings"]["max_train_steps"], run.steps_per_epoch * state["settings"]["num_epochs"])


def train(args: argparse.Namespace) -> int:
    for seed in args.seeds:
        for name in args.rows:
            folder = args.runs / f"{name}-s{seed}"
            folder.mkdir(parents=True, exist_ok=True)
            run = start(folder, name, seed, args.steps, args.dataset)
            if run.progress.step < run.total_steps:
                run.train()
            if run.progress.step < run.total_steps:
                return 0  # Ctrl-C
    return 0


# ---------------------------------------------------------------- the table


def step_times(names: Sequence[str], path: Path, rounds: int) -> dict[str, float]:
    """What a step of each row takes on one core, as a multiple of the first's in the same round (medians)."""
    torch.set_num_threads(1)
    seconds: dict[str, list[float]] = {name: [] for name in names}
    with tempfile.TemporaryDirectory() as folder:
        runs = {name: start(Path(folder) / name, name, 0, 10, path) for name in names}
        for _ in range(rounds + 1):
            for name, run in runs.items():
                rows = next(run.batches())
                began = time.perf_counter()
                run.step(rows)
                seconds[name].append(time.perf_counter() - began)
    timed = {name: found[1:] for name, found in seconds.items()}  # without the first, which warms up
    return {name: statistics.median(own / theirs for own, theirs in zip(found, timed[names[0]], strict=True))
            for name, found in timed.items()}


def curve(folder: Path) -> tuple[list[float], list[float]]:
    """Steps and held-out losses of a run's validations."""
    with (folder / LOSSES).open() as file:
        rows = [row for row in csv.DictReader(file) if row["held_out_loss"]]
    return [float(row["steps"]) for row in rows], [float(row["held_out_loss"]) for row in rows]


def evaluated(run: Run, songs: Sequence[int]) -> dict[str, Any]:
    """Losses of a trained run on the whole of `songs`, in full precision: of every kind of run the same notes."""
    if type(run) is not Run:
        run.settings = dataclasses.replace(run.settings, precision="fp32")
        return nats_per_note(run.song_losses(songs))
    run.model.eval()
    losses = measure_losses(run.model, run.dataset, songs)
    return {**nats_per_note(losses.by_song), "by_context": by_context(losses.by_context)}


def results(args: argparse.Namespace) -> dict[str, dict[str, Any]]:
    """For each run that is finished what its evaluation says, kept in a file beside it."""
    found = {}
    for folder in sorted(args.runs.glob("*-s*")):
        name, _, seed = folder.name.rpartition("-s")
        if name not in ROWS or not (folder / LAST).is_file():
            continue
        run = start(folder, name, int(seed), args.steps, args.dataset)
        if run.progress.step < run.total_steps:
            print(f"{folder}: at step {run.progress.step} of {run.total_steps}, left out", file=sys.stderr)
            continue
        kept = folder / "evaluation.json"
        n_train = run.dataset.n_songs - len(run.split.held_out_songs)
        held_out = range(n_train, run.dataset.n_songs)[:args.songs or None]
        result = json.loads(kept.read_text()) if kept.is_file() else {}
        if result.get("songs") != len(held_out):
            result = {**evaluated(run, held_out), "songs": len(held_out), "parameters": run.model.n_parameters(),
                      "steps": run.total_steps}
            write_bytes(kept, json.dumps(result, indent=1).encode())
        found[folder.name] = result
    return found


def after_equal_time(folder: Path, reference_steps: int, times: float) -> float:
    """The held-out loss on the run's curve when the reference would have been done."""
    steps, losses = curve(folder)
    return float(np.interp(reference_steps / times, steps, losses))


def table(args: argparse.Namespace) -> int:
    found = results(args)
    names = [name for name in ROWS if any(run.startswith(f"{name}-s") for run in found)]
    if "reference" not in names:
        raise UserError(f"{args.runs}: no finished run of the reference to compare with; train it first")
    times = step_times(names, args.dataset, args.rounds)
    lines = ["| | parameters | " + " | ".join(FIELDS) + " | nats per note | same notes | time | same time |",
             "|---|---:|" + "---:|" * (len(FIELDS) + 4)]
    base = statistics.mean(result["nats_per_note"] for run, result in found.items() if run.startswith("reference-s"))
    base_time = statistics.mean(curve(args.runs / run)[1][-1] for run in found if run.startswith("reference-s"))
    for name in names:
        runs = {run: result for run, result in found.items() if run.rpartition("-s")[0] == name}
        mean = {key: statistics.mean(result[key] for result in runs.values()) for key in (*FIELDS, "nats_per_note")}
        equal = statistics.mean(after_equal_time(args.runs / run, args.steps, times[name]) for run in runs)
        time_taken = times[name] * next(iter(runs.values()))["steps"] / args.steps  # a flat row takes more steps
        seeds = " / ".join(f"{result['nats_per_note']:.3f}" for result in runs.values())
        lines.append(f"| {name} | {next(iter(runs.values()))['parameters'] / 1e6:.2f} M | "
                     + " | ".join(f"{mean[field]:.3f}" for field in FIELDS)
                     + f" | {seeds} | {mean['nats_per_note'] / base - 1:+.1%} | {time_taken:.2f} | "
                     f"{equal / base_time - 1:+.1%} |")
    print("\n".join(lines))
    print("\nNats per note by the rows before a note in its context:\n")
    for run, result in found.items():
        if "by_context" in result:
            print(f"{run:28s} " + "  ".join(f"{key}: {loss:.3f}" for key, loss in result["by_context"].items()))
    return 0


def build_parser() -> argparse.ArgumentParser:
    parser = Parser(__doc__)
    commands = parser.add_subparsers(required=True, metavar="train|table")
    for name, work, text in (("train", train, "train rows"), ("table", table, "evaluate, time and print them")):
        command = commands.add_parser(name, help=text)
        command.set_defaults(work=work)
        command.add_argument("dataset", type=Path, help="dataset .pt")
        command.add_argument("runs", type=Path, help="folder of the runs")
        command.add_argument("--steps", type=int, default=1200, help="of 4,096 notes (default: %(default)s)")
        if work is train:
            command.add_argument("rows", nargs="+", choices=ROWS, metavar="row", help=", ".join(ROWS))
            command.add_argument("--seeds", type=int, nargs="+", default=[0], help="default: 0")
        else:
            command.add_argument("--songs", type=int, default=0, help="held-out songs to evaluate on (default: all)")
            command.add_argument("--rounds", type=int, default=5, help="steps timed of each row (default: %(default)s)")
    return parser


@reports_user_errors
def main(argv: Sequence[str] | None = None) -> int:
    args = build_parser().parse_args(argv)
    return args.work(args)


if __name__ == "__main__":
    sys.exit(main())
