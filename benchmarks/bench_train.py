"""Training speed: notes and FLOP per second, beside the machine's matrix product and beside the published recipe.

Example  python -m benchmarks.bench_train
         python -m benchmarks.bench_train --heads

One step of each is taken in turns, so that what else the machine does touches all alike; the table shows medians and,
as `times`, the median of the ratios within a round. `published` is a stand-in for the published code: its loop, in
fp32 and without fused kernels, over x-transformers' Decoder (requirements-dev.txt), but for the stochastic depth, which
leaves out a tenth of the published layers at random. FLOP are those of the matrix products of a step, forward and
backward, as torch's FlopCounterMode counts them, products that a mask throws away included; `share` is what they are
of the rate at which the same machine multiplies square matrices in the same run and precision. `--heads` compares the
kinds of heads in one model instead; `--parts` says where the time of a step goes.
"""

from __future__ import annotations

import argparse
import dataclasses
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from backline.common.errors import Parser, reports_user_errors
from backline.common.files import read_json_object
from backline.layers.config import HEADS, ModelConfig
from backline.layers.positions import sinusoids
from backline.music.vocab import BAR, FIRST_ID, load_vocabulary
from backline.training.checkpoints import pick_device
from backline.training.losses import window_losses
from model import PooledTransformer

CONFIGS = Path(__file__).parents[1] / "configs"
SQUARE = 2048  # side of the matrices multiplied


class Published(nn.Module):
    """The published architecture over x-transformers: four embeddings, a Decoder, four heads."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        from x_transformers import Decoder

        self.embeddings = nn.ModuleList(nn.Embedding(*shape)
                                        for shape in zip(config.n_tokens, config.emb_sizes, strict=True))
        self.in_linear, self.norm = nn.Linear(sum(config.emb_sizes), config.d_model), nn.LayerNorm(config.d_model)
        self.dropout = nn.Dropout(config.dropout)
        self.decoder = Decoder(dim=config.d_model, depth=config.n_layers, heads=config.n_heads,
                               attn_dropout=config.dropout, ff_dropout=config.dropout)
        self.heads = nn.ModuleList(nn.Linear(config.d_model, n) for n in config.n_tokens)

    def forward(self, ids: Tensor) -> list[Tensor]:
        x = self.norm(self.in_linear(torch.cat([table(ids[..., f]) for f, table in enumerate(self.embeddings)], -1)))
        positions = sinusoids(torch.arange(ids.shape[1], device=ids.device)[None], x.shape[-1])
        x = self.decoder(self.dropout(x + positions))
        return [head(x) for head in self.heads]


class Contestant(NamedTuple):
    name: str
    step: Callable[[Tensor], object]
    precision: str


def own_step(config: ModelConfig, precision: str, compiled: bool, device: torch.device) -> Callable[[Tensor], object]:
    model = PooledTransformer(config).to(device).train()
    optimizer = torch.optim.AdamW(model.parameters(), 1e-4, fused=True)
    forward = torch.compile(model) if compiled else model

    def step(rows: Tensor) -> None:
        with torch.autocast(device.type, torch.bfloat16, enabled=precision == "bf16"):
            loss = window_losses(forward, config, rows).mean()
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()

    return step


def published_step(config: ModelConfig, device: torch.device) -> Callable[[Tensor], object]:
    model = Published(config).to(device).train()
    optimizer = torch.optim.AdamW(model.parameters(), 1e-4)

    def step(rows: Tensor) -> None:
        losses = [nn.functional.cross_entropy(logits.transpose(1, 2), rows[:, 1:, f])
                  for f, logits in enumerate(model(rows[:, :-1]))]
        (sum(losses) / len(losses)).backward()
        optimizer.step()
        optimizer.zero_grad()

    return step


def random_rows(config: ModelConfig, batch: int, length: int, device: torch.device) -> Tensor:
    """(B, T, F) rows of random notes, bar after bar: the time of a step does not depend on what they say."""
    rows = torch.stack([torch.randint(FIRST_ID, n, (batch, length), device=device) for n in config.n_tokens], -1)
    rows[..., BAR] = rows[..., BAR].sort(1).values
    return rows


def timed(work: Callable[[], object], device: torch.device) -> float:
    """Seconds that `work` takes, what it left running on the device included."""
    began = time.perf_counter()
    work()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter() - began


def matrix_rate(precision: str, device: torch.device) -> float:
    """FLOP per second of square matrix products."""
    a, b = torch.randn(2, SQUARE, SQUARE, device=device, dtype=torch.bfloat16 if precision == "bf16" else None)
    repeats = 50 if device.type == "cuda" else 5
    timed(lambda: a @ b, device)
    return 2 * SQUARE ** 3 * repeats / timed(lambda: [a @ b for _ in range(repeats)], device)


def flop_of(step: Callable[[Tensor], object], rows: Tensor) -> int:
    with FlopCounterMode(display=False) as counter:
        step(rows)
    return counter.get_total_flops()


def compare(contestants: Sequence[Contestant], rows: Tensor, rounds: int) -> str:
    """The table; the first contestant is the one the others are compared with."""
    device = rows.device
    for c in contestants:
        c.step(rows)  # to warm up
    seconds = {c.name: [] for c in contestants}
    rates: dict[str, list[float]] = {precision: [] for precision in sorted({c.precision for c in contestants})}
    for _ in range(rounds):
        for c in contestants:
            seconds[c.name].append(timed(lambda step=c.step: step(rows), device))
        for precision, found in rates.items():
            found.append(matrix_rate(precision, device))
    # Counted last: torch.compile gives up for good on what it first meets under the counter.
    flop = {c.name: flop_of(c.step, rows) for c in contestants}
    lines = [f"| {'':24s} | notes/s | step, s | times | TFLOP/s | share |", "|---|---:|---:|---:|---:|---:|"]
    notes = rows.shape[0] * (rows.shape[1] - 1)
    for c in contestants:
        step = statistics.median(seconds[c.name])
        times = statistics.median(a / b for a, b in zip(seconds[contestants[0].name], seconds[c.name], strict=True))
        share = flop[c.name] / step / statistics.median(rates[c.precision])
        lines.append(f"| {c.name:24s} | {notes / step:,.0f} | {step:.3f} | {times:.2f} | "
                     f"{flop[c.name] / step / 1e12:.3f} | {share:.0%} |")
    lines += [f"matrix product {precision}: {statistics.median(found) / 1e12:.3f} TFLOP/s"
              for precision, found in rates.items()]
    return "\n".join(lines)


def parts_of(step: Callable[[Tensor], object], rows: Tensor) -> str:
    """Where the time of a step goes: the operators that take most of it."""
    activities = [torch.profiler.ProfilerActivity.CPU]
    if rows.device.type == "cuda":
        activities.append(torch.profiler.ProfilerActivity.CUDA)
    with torch.profiler.profile(activities=activities) as profile:
        step(rows)
    key = "self_device_time_total" if rows.device.type == "cuda" else "self_cpu_time_total"
    times = {event.key: getattr(event, key) for event in profile.key_averages()}
    total = sum(times.values())
    largest = sorted(times, key=times.get, reverse=True)[:12]
    return "\n".join(f"{times[name] / total:6.1%}  {name}" for name in largest)


def build_parser() -> argparse.ArgumentParser:
    parser = Parser(__doc__)
    parser.add_argument("--model_config", type=Path, default=CONFIGS / "model_config.json",
                        help="the model beside the reference (default: %(default)s)")
    parser.add_argument("--batch_size", type=int, default=12, help="rows of a step (default: %(default)s)")
    parser.add_argument("--length", type=int, default=512, help="notes of a row (default: %(default)s)")
    parser.add_argument("--rounds", type=int, default=3, help="steps of each (default: %(default)s)")
    parser.add_argument("--heads", action="store_true", help="the kinds of heads in --model_config instead")
    parser.add_argument("--parts", action="store_true", help="where the time of a step of --model_config goes, too")
    parser.add_argument("--compile", action="store_true", help="with torch.compile, too")
    parser.add_argument("-d", "--device", default="auto", help="auto, cuda, mps or cpu (default: %(default)s)")
    return parser


def read_config(path: Path) -> ModelConfig:
    """The model settings in a JSON file, with the sizes of the default vocabulary."""
    return ModelConfig.from_dict(read_json_object(path), load_vocabulary(), str(path))


def head_contestants(config: ModelConfig, device: torch.device) -> list[Contestant]:
    """`config` with each kind of heads and without late layers, and as it is."""
    kinds = {heads: dataclasses.replace(config, heads=heads, late_layers=0) for heads in HEADS}
    if config.late_layers:
        kinds[f"{config.heads}, {config.late_layers} late layers"] = config
    return [Contestant(name, own_step(kind, "bf16", False, device), "bf16") for name, kind in kinds.items()]


@reports_user_errors
def main(argv: Sequence[str] | None = None) -> int:
    args = build_parser().parse_args(argv)
    device = pick_device(args.device)
    default, reference = read_config(args.model_config), ModelConfig.for_vocabulary(load_vocabulary())
    rows = random_rows(reference, args.batch_size, args.length, device)
    print(f"{args.batch_size} rows of {args.length} notes, {torch.get_num_threads()} threads, {device}; "
          f"torch {torch.__version__}", flush=True)
    if args.heads:
        contestants = head_contestants(default, device)
    else:
        contestants = [Contestant("published, fp32", published_step(reference, device), "fp32")]
        for name, config in (("reference", reference), (args.model_config.stem, default)):
            contestants += [Contestant(f"{name}, {precision}", own_step(config, precision, False, device), precision)
                            for precision in ("fp32", "bf16")]
            if args.compile:
                contestants.append(Contestant(f"{name}, bf16, compiled", own_step(config, "bf16", True, device),
                                              "bf16"))
    print(compare(contestants, rows, args.rounds), flush=True)
    if args.parts:
        print("\n" + parts_of(own_step(default, "bf16", False, device), rows))
    return 0


if __name__ == "__main__":
    sys.exit(main())
