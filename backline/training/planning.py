"""How many steps a run of `max_minutes` has: measured on the machine it runs on, before the first step."""

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

STEPS_BEFORE = 3  # not timed: the first steps are slower
STEPS_TIMED = 5
STEPS_TOGETHER = 20  # timed in one go where the host does not wait for the device
TIMING_SHARE = 0.1  # of the run's time, at most, goes into steps that are timed
PLANNED_SHARE = 0.95  # of the time left, since steps differ in how long they take


def steps_in_time(run: Run) -> int:
    """How many steps fit into `max_minutes`, by the speed of a few steps that leave no trace.

    The time counts from when the run was begun: reading the songs, compiling and these few steps are
    part of it, and so are the validations and checkpoints to come. The first process decides for all.
    """
    settings = run.settings
    validation = timed(run, run.validate)
    if run.average:  # the weights and their average are both validated
        validation *= 2
    saving = timed(run, lambda: _save_anew(run))
    with nothing_left(run):
        times = step_times(run)
    whole_share = 1 - settings.whole_rows_from if len(times) > 1 else 0.0
    per_step = times[0] * (1 - whole_share) + times[-1] * whole_share
    per_step += (validation + saving) / run.validate_every
    per_step += saving / settings.loggingsteps
    at_the_end = validation + 2 * saving
    since_beginning = time.monotonic() - run.began
    left = settings.max_minutes * 60 - since_beginning - at_the_end
    steps = max(int(PLANNED_SHARE * left / per_step), 1)
    return int(_of_the_first(run, steps))


def _of_the_first(run: Run, value: float) -> float:
    """The value that the first process has, in all of them."""
    own = value if run.processes.is_first else 0.0
    total = run.processes.total(torch.tensor([own], dtype=torch.float64))
    return total[0].item()


def _save_anew(run: Run) -> None:
    """Save, and draw the picture too."""
    if run.processes.is_first:
        (run.folder.path / PICTURE).unlink(missing_ok=True)
    run.save()


@contextlib.contextmanager
def nothing_left(run: Run) -> Iterator[None]:
    """Puts `run` back to before its first step when the block ends, whatever steps were done in it."""
    weights = copy.deepcopy(run.model.state_dict())
    average = copy.deepcopy(run.average.weights) if run.average else []
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
    """Seconds of a step for each length of rows that the run will have, once it is under way.

    Before that comes compiling, if the settings say so. A batch of another shape, such as the last one
    of an epoch, brings it on anew.
    """
    data = run.data
    lengths = [data.length]
    if run.settings.whole_rows_from < 1 and data.whole_length != data.length:
        lengths.append(data.whole_length)
    shapes = [(_rows_of_step(run, length), length) for length in lengths]
    if run.settings.compile:
        shapes += [(len(data.notes) // length % n_rows, length) for n_rows, length in shapes]
    # The full batches first, in which both numbers differ: what is compiled for them fits the others.
    for n_rows, length in shapes:
        if n_rows:
            run.step(_rows(run, n_rows, length))
    at_most = TIMING_SHARE * 60 * run.settings.max_minutes / len(lengths)
    return [_step_time(run, length, at_most) for length in lengths]


def _step_time(run: Run, length: int, at_most: float) -> float:
    """Seconds of a step on rows of `length` notes; steps that are slow are timed for `at_most` seconds."""
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
    """(B, T, C) rows of the songs, B = `n_rows` and T = `length`: all of them begin with the first note."""
    firsts = torch.zeros(n_rows, dtype=torch.long)
    rows = run.data.rows(firsts, length, len(run.data.notes), seed=0)
    return rows.pin_memory() if run.device.type == "cuda" else rows


def timed(run: Run, work: Callable[[], object]) -> float:
    """Seconds that `work` takes, on the run's device too."""
    run.wait()
    began = time.monotonic()
    work()
    run.wait()
    return time.monotonic() - began
