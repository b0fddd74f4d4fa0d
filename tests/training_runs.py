"""Training runs of a few steps: their settings, what they leave in their folder, and how to stop them."""

from __future__ import annotations

import csv
import signal
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

import train_pool
from backline.common.errors import EXIT_INTERRUPTED
from backline.training import run as training
from backline.training.checkpoints import load_checkpoint
from backline.training.config import BEST, LAST, LOSSES, PICTURE, SETTINGS

COLUMNS_OF_TIME = {"seconds"}
FILES = sorted([LAST, BEST, LOSSES, PICTURE, SETTINGS])
TINY_TRAINING = {"filename": "run", "batch_size": 3, "num_epochs": 2, "lr": 0.01, "warmup_steps": 2, "loggingsteps": 2}
T = 32  # notes a row


def table(run: Path) -> list[dict[str, str]]:
    with open(run / LOSSES, newline="") as file:
        return list(csv.DictReader(file))


def column(run: Path, name: str) -> list[float]:
    return [float(row[name]) for row in table(run) if row[name]]


def weights(run: Path, name: str = LAST) -> dict[str, torch.Tensor]:
    return load_checkpoint(run / name)["weights"]


def same(a: Any, b: Any) -> bool:
    """Whether checkpoints, or parts of them, are equal bit for bit."""
    if isinstance(a, torch.Tensor):
        return isinstance(b, torch.Tensor) and torch.equal(a, b)
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(same(a[key], b[key]) for key in a)
    if isinstance(a, list | tuple):
        return len(a) == len(b) and all(map(same, a, b))
    return a == b


def is_stopped(argv: Sequence[object]) -> None:
    """Run train_pool.py, which a signal stops: a shell's `&&` does not go on."""
    assert train_pool.main([str(arg) for arg in argv]) == EXIT_INTERRUPTED


def interrupt_after(monkeypatch, *steps: int, times: int = 1, number: int = signal.SIGINT) -> None:
    """Press Ctrl-C, or send another signal, while the steps of these numbers are computed."""
    plain = training.Run.step

    def step(self, rows):
        losses = plain(self, rows)
        if self.progress.step in steps:
            for _ in range(times):
                signal.raise_signal(number)
        return losses

    monkeypatch.setattr(training.Run, "step", step)


def assert_same_run(stopped: Path, whole: Path) -> None:
    """Equal in all but how long they took, and where they are."""
    one, other = load_checkpoint(stopped / LAST), load_checkpoint(whole / LAST)
    assert one["training"]["progress"].pop("step") == other["training"]["progress"].pop("step")
    for data in (one, other):
        del data["training"]["progress"]["seconds"], data["training"]["settings"]["filename"]
        for row in data["training"]["progress"]["rows"]:
            del row["seconds"]
    assert same(one, other)
    assert same(weights(stopped, BEST), weights(whole, BEST))
    without = [[{key: value for key, value in row.items() if key != "seconds"} for row in table(run)]
               for run in (stopped, whole)]
    assert without[0] == without[1]
