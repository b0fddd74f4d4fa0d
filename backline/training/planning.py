"""How many steps a run of so many minutes has: measured on the machine that it runs on, before the first of them."""

from __future__ import annotations

import contextlib
import copy
import dataclasses
import statistics
import time
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from backline.training.config import PICTURE

if TYPE_CHECKING:
    from backline.training.run import Run

STEPS_BEFORE, STEPS_TIMED = 3, 5
STEPS_TOGETHER = 20  # are timed in one go where the host does not wait for the device
MEASURING = 0.1  # of the time goes into steps that are timed, where they are slow
SPARED = 0.95  # of the time left: no two steps take the same


def steps_in_time(run: Run) -> int:
    """How many steps fit into `max_minutes`, by the speed of a few of which nothing is left afterwards.

    The time counts from when the run was begun, with what reading the songs, compiling and these steps take, and with
    the validations and checkpoints on the way. The first process decides for all.
    """
    settings = run.settings
    validation = timed(run, run.validate) * (2 if run.average else 1)
    saving = timed(run, lambda: _save_anew(run))
    with nothing_left(run):
        times = step_times(run)
    whole_share = 1 - settings.whole_rows_from if len(times) > 1 else 0.0
    per_step = times[0] * (1 - whole_share) + times[-1] * whole_share
    per_step += (validation + saving) / run.validate_every + saving / settings.loggingsteps
    at_the_end = validation + 2 * saving
    left = settings.max_minutes * 60 - (time.monotonic() - run.began) - at_the_end
    steps = max(int(SPARED * left / per_step), 1)
    return int(_of_the_first(run, steps))


def _of_the_first(run: Run, value: float) -> float:
    """The value that the first process has, in all of them."""
    return run.processes.total(torch.tensor([value if run.processes.is_first else 0.0], dtype=torch.float64))[0].item()


def _save_anew(run: Run) -> None:
    """Save, and draw the picture too."""
    if run.processes.is_first:
        (run.folder / PICTURE).unlink(missing_ok=True)
    run.save()


@contextlib.contextmanager
def nothing_left(run: Run) -> Iterator[None]:
    """After the block `run` is at its first step as it was before, whatever steps were done in it."""
    weights = copy.deepcopy(run.model.state_dict())
    average = copy.deepcopy(run.average.weights) if run.average else None
    progress = dataclasses.replace(run.progress)
    random = run.random_state()
    yield
    run.model.load_state_dict(weights)
    run.optimizers = run.new_optimizers()
    if run.average:
        torch._foreach_copy_(run.average.weights, average)
    run.progress = progress
    run.sums.zero_()
    run.set_random_state(random)


def step_times(run: Run) -> list[float]:
    """Seconds of a step of each length of rows that the run will have, once what comes first is over.

    What comes first may be compiling, which a batch of another shape brings on anew: also the last one of an epoch.
    """
    data = run.data
    lengths = [data.length]
    if run.settings.whole_rows_from < 1 and data.whole_length != data.length:
        lengths.append(data.whole_length)
    shapes = [(_rows_of_step(run, length), length) for length in lengths]
    if run.settings.compile:
        shapes += [(len(data.notes) // length % n_rows, length) for n_rows, length in shapes]
    for n_rows, length in shapes:  # first those in which both numbers differ: what is compiled for them fits the others
        if n_rows:
            run.step(_rows(run, n_rows, length))
    at_most = MEASURING * 60 * run.settings.max_minutes / len(lengths)
    return [_step_time(run, length, at_most) for length in lengths]


def _step_time(run: Run, length: int, at_most: float) -> float:
    n_rows = _rows_of_step(run, length)
    rows = _rows(run, n_rows, length)
    if run.runs_ahead:  # the next step begins before the device is done with this one
        for _ in range(STEPS_BEFORE):
            run.step(rows)
        return timed(run, lambda: [run.step(rows) for _ in range(STEPS_TOGETHER)]) / STEPS_TOGETHER
    made = timed(run, lambda: _rows(run, n_rows, length))
    times: list[float] = []
    while len(times) < STEPS_BEFORE + STEPS_TIMED:
        if times and _of_the_first(run, sum(times) + times[-1]) > at_most:
            break
        times.append(timed(run, lambda: run.step(rows)))
    return made + statistics.median(times[-STEPS_TIMED:])


def _rows_of_step(run: Run, length: int) -> int:
    return run.data.rows_per_step * run.data.length // length


def _rows(run: Run, n_rows: int, length: int) -> Tensor:
    rows = run.data.rows(torch.zeros(n_rows, dtype=torch.long), length, len(run.data.notes), seed=0)
    return rows.pin_memory() if run.device.type == "cuda" else rows


def timed(run: Run, work: Callable[[], object]) -> float:
    """Seconds that `work` takes, on the run's device too."""
    run.wait()
    began = time.monotonic()
    work()
    run.wait()
    return time.monotonic() - began
