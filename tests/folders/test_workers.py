"""Worker processes: results in order, and a worker that dies or hangs costs its task and nothing else."""

from __future__ import annotations

import argparse
import itertools
import json
import os
import signal
import subprocess
import sys
import time
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path

import pytest
from commands import ROOT
from hypothesis import given
from hypothesis import strategies as st
from pebble.pool import process

from backline.common.errors import UserError
from backline.folders import workers
from backline.folders.workers import Outcome, run_tasks

METHODS = ["forkserver", "spawn"] if sys.platform.startswith("linux") else ["spawn"]


def square(task: int) -> int:
    time.sleep(0.001 * (task % 3))  # so that later tasks are done before earlier ones
    return task * task


def act(task: str) -> str:
    """What befalls a worker, by the task's name. At the top of a module, so that spawned processes find it."""
    if task == "abort":
        os.abort()
    if task == "killed":
        os.kill(os.getpid(), signal.SIGKILL)
    if task == "exit":
        os._exit(3)
    if task == "sleep":
        time.sleep(30)
    if task == "user error":
        raise UserError("song.mid: no notes; add some")
    if task == "bug":
        raise ZeroDivisionError("a fault of ours")
    if task == "memory":
        raise MemoryError
    if task == "disk":
        raise OSError(28, "No space left on device", "out/song.json")
    return f"{task}, of {os.getpid()}"


def children() -> set[str]:
    """Processes below this one, where the system tells; without Python's fork server and resource tracker, which stay.

    A worker under the fork server is a child of that, with the same command line.
    """
    parents, lines = {}, {}
    for path in Path("/proc").glob("[0-9]*"):
        try:
            state, parent = (path / "stat").read_text().rpartition(")")[2].split()[:2]
            lines[path.name] = (path / "cmdline").read_bytes()
        except OSError:
            continue
        if state != "Z":
            parents[path.name] = parent
    found, own = set(), str(os.getpid())
    for number, parent in parents.items():
        stays = b"resource_tracker" in lines[number] or b"forkserver" in lines[number]
        if (parent == own and not stays) or parents.get(parent) == own:
            found.add(number)
    return found


# ---------------------------------------------------------------- results


@pytest.mark.parametrize("n_workers", [0, 1, 3])
def test_results_come_in_the_order_of_the_tasks(n_workers):
    n_tasks = 3 * workers.AHEAD + 5
    assert list(run_tasks(square, iter(range(n_tasks)), n_workers, 60)) == [
        Outcome(task, task * task, "") for task in range(n_tasks)]


@pytest.mark.parametrize("n_workers", [0, 2])
def test_no_tasks_give_no_outcomes(n_workers):
    assert list(run_tasks(square, [], n_workers, 60)) == []


def test_tasks_are_taken_as_they_are_needed():
    taken = []

    def endless():
        for number in itertools.count():
            taken.append(number)
            yield number

    outcomes = run_tasks(square, endless(), 2, 60)
    assert [next(outcomes).result for _ in range(5)] == [0, 1, 4, 9, 16]
    outcomes.close()
    assert len(taken) <= 2 * workers.AHEAD + 5


DEADLY = ["a", "abort", "b", "killed", "exit", "sleep", "c", "user error", "bug", "memory", "d"]


@pytest.mark.parametrize("method", METHODS)
def test_a_worker_that_dies_or_hangs_costs_one_task(method):
    """In a process of its own: a fork server keeps the stderr of the test that started it."""
    code = (f"import json, os, sys; sys.path[:0] = {[str(ROOT), str(ROOT / 'tests'), str(Path(__file__).parent)]!r}\n"
            f"from test_workers import DEADLY, act, children, run_tasks\n"
            f"outcomes = list(run_tasks(act, DEADLY, 2, 0.5, {method!r}))\n"
            f"print(json.dumps([outcomes, os.getpid(), sorted(children())]))")
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    outcomes, own_id, left_running = json.loads(done.stdout)
    assert [task for task, _, _ in outcomes] == DEADLY
    reasons = {task: reason for task, result, reason in outcomes if result is None}
    assert set(reasons) == set(DEADLY) - {"a", "b", "c", "d"}
    for name, code in (("abort", -signal.SIGABRT), ("killed", -signal.SIGKILL), ("exit", 3)):
        assert reasons[name].startswith(f"killed the process that read it (exit code {int(code)})")
    assert reasons["sleep"].startswith("took longer than 0.5 seconds")
    assert reasons["user error"] == "song.mid: no notes; add some"
    assert reasons["bug"].startswith("an error of ours (ZeroDivisionError: a fault of ours); please report it")
    assert reasons["memory"].startswith("needs more memory than there is")
    assert all(not reason and str(own_id) not in result for _, result, reason in outcomes if result)
    assert done.stderr.count("Traceback") == 1
    assert done.stderr.startswith("\nbug\nTraceback") and done.stderr.endswith("ZeroDivisionError: a fault of ours\n")
    assert left_running == []


def test_a_death_that_the_pool_cannot_place_does_not_end_the_run(monkeypatch):
    """A worker that dies before its pool has heard which task it took: pebble gives the whole pool up."""
    original, lost = process.PoolManager.find_expired_task, []

    def find(self: process.PoolManager, worker_id: int) -> object:
        lost.append(worker_id)
        if len(lost) == 1:
            raise BrokenProcessPool("All workers expired")
        return original(self, worker_id)

    monkeypatch.setattr(process.PoolManager, "find_expired_task", find)
    outcomes = list(run_tasks(act, ["a", "killed", "b", "c"], 2, 5))
    assert lost and [outcome.task for outcome in outcomes] == ["a", "killed", "b", "c"]
    assert [bool(outcome.reason) for outcome in outcomes] == [False, True, False, False]


def test_without_workers_errors_are_told_the_same_way(capsys):
    outcomes = list(run_tasks(act, ["a", "user error", "bug", "memory"], 0, 60))
    assert outcomes[0].result == f"a, of {os.getpid()}"
    assert [outcome.reason.split(";")[0] for outcome in outcomes[1:]] == [
        "song.mid: no notes", "an error of ours (ZeroDivisionError: a fault of ours)",
        "needs more memory than there is"]
    errors = capsys.readouterr().err
    assert errors.count("Traceback") == 1 and errors.startswith("\nbug\n")


@pytest.mark.parametrize("n_workers", [0, 2])
def test_a_full_disk_ends_the_run(n_workers):
    before = children()
    outcomes = run_tasks(act, ["a", "b", "disk", *"cdefgh"], n_workers, 60)
    assert [next(outcomes).task for _ in range(2)] == ["a", "b"]
    with pytest.raises(OSError) as error:
        list(outcomes)
    assert (error.value.errno, error.value.filename) == (28, "out/song.json")
    assert children() == before  # nothing is left running


def test_an_error_of_whoever_takes_the_outcomes_stops_the_workers():
    before = children()
    began = time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        for outcome in run_tasks(act, ["a", *["sleep"] * 50], 2, 60):
            assert outcome.task == "a"
            raise KeyboardInterrupt
    assert time.monotonic() - began < 10
    assert children() == before  # nothing is left running


@given(st.integers(0, 64), st.integers(0, 10**7))
def test_a_few_tasks_start_few_workers(n_workers, n_tasks):
    started = workers.worker_count(n_workers, n_tasks)
    assert min(n_workers, 1) <= started <= n_workers
    assert started == n_workers or started <= max(1, n_tasks)
    assert workers.worker_count(n_workers, n_tasks + 1) >= started
    assert workers.worker_count(n_workers, 10**9) == n_workers


# ---------------------------------------------------------------- options


def parsed(*argv: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    workers.add_options(parser)
    args = parser.parse_args(argv)
    workers.check_options(args)
    return args


def test_a_worker_for_each_core_unless_said_otherwise(monkeypatch):
    monkeypatch.setattr(workers, "available_cores", lambda: 7)
    assert (parsed().jobs, parsed().time_limit) == (7, 60)
    assert (parsed("-j", "0").jobs, parsed("--jobs", "3", "--time-limit", "0.5").time_limit) == (0, 0.5)


@pytest.mark.parametrize(("argv", "message"), [
    (["-j", "-1"], "-j -1: a number of worker processes"), (["--time-limit", "0"], "--time-limit 0: must be more than"),
    (["--time-limit", "-3"], "--time-limit -3: must be more"), (["--time-limit", "nan"], "--time-limit nan: must be")])
def test_options_that_make_no_sense_are_an_error(argv, message):
    with pytest.raises(UserError, match=message):
        parsed(*argv)


def test_cores_are_those_this_process_may_use(monkeypatch):
    monkeypatch.undo()  # of the fixture that switches workers off
    expected = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    assert workers.available_cores() == expected >= 1
