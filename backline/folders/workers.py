"""The same job on many files, in worker processes: one that dies or hangs costs only its file.

pebble starts the processes and replaces those that are killed; results come back in the order of
the tasks, whatever the number of workers. Jobs are pickled, so that it works under every start
method (spawn on macOS and Windows).
"""

from __future__ import annotations

import argparse
import collections
import itertools
import multiprocessing
import os
import sys
import traceback
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future
from concurrent.futures.process import BrokenProcessPool
from typing import TYPE_CHECKING, Any, NamedTuple

from backline.common.errors import UserError

if TYPE_CHECKING:
    from pebble import ProcessPool

TASKS_WORTH_A_WORKER = 8
# Tasks handed out per worker before the oldest must be done: a slow file holds nobody up for long.
AHEAD = 64
# How reasons begin that do not come from a reader.
TOO_LONG = "took longer than"
KILLED = "killed the process that read it"


class Outcome(NamedTuple):
    """What became of a task: the job's `result`, or the reason why there is none."""

    task: Any
    result: Any = None
    reason: str = ""


def available_cores() -> int:
    """Cores this process may use."""
    if not hasattr(os, "sched_getaffinity"):
        return os.cpu_count() or 1
    cores = os.sched_getaffinity(0)
    return len(cores)


def worker_count(n_workers: int, n_tasks: int) -> int:
    """How many of `n_workers` are worth starting for `n_tasks`."""
    return min(n_workers, max(1, n_tasks // TASKS_WORTH_A_WORKER))


def start_method() -> str:
    """forkserver on Linux, where a worker starts in milliseconds; elsewhere spawn."""
    return "forkserver" if sys.platform.startswith("linux") else "spawn"


def add_options(parser: argparse.ArgumentParser) -> None:
    """The options of every command that has workers."""
    parser.add_argument("-j", "--jobs",
                        type=int,
                        default=available_cores(),
                        metavar="N",
                        help="worker processes (default: one per core, here %(default)s; 0: none, "
                             "for debuggers)")
    parser.add_argument("--time-limit",
                        type=float,
                        default=60,
                        metavar="SECONDS",
                        help="give up on a file after this long (default: %(default)s)")


def check_options(args: argparse.Namespace) -> None:
    """Raise UserError for values that make no sense."""
    if args.jobs < 0:
        raise UserError(f"-j {args.jobs}: a number of worker processes, or 0 to work without")
    if not args.time_limit > 0:
        raise UserError(f"--time-limit {args.time_limit:g}: must be more than 0 seconds")


def run_tasks(job: Callable[[Any], Any],
              tasks: Iterable[Any],
              n_workers: int,
              time_limit: float,
              method: str | None = None) -> Iterator[Outcome]:
    """Apply `job` to each task, and yield the outcomes in the order of the tasks.

    Args:
        job: picklable; called as job(task). A UserError it raises is the reason of that task's
            outcome, and so is an error of ours, whose traceback goes to stderr; an OSError (a full
            disk) ends the run.
        n_workers: processes; 0 works in this one, with neither isolation nor time limit (for
            debuggers).
        time_limit: seconds after which a task's worker is killed.
        method: how processes start, as `multiprocessing` names it (default: `start_method`).
    """
    if not n_workers:
        yield from (Outcome(task, *_result(job, task)) for task in tasks)
        return
    tasks = iter(tasks)
    waiting: collections.deque[tuple[Any, Future | None]] = collections.deque()
    suspect = None
    while True:
        pool = _new_pool(job, n_workers, method)
        try:
            for number, (task, future) in enumerate(waiting):
                if future is None or not future.done() or future.exception():
                    waiting[number] = task, _schedule(pool, task, time_limit)
            yield from _drain(pool, tasks, waiting, n_workers * AHEAD, time_limit)
            return
        except BrokenProcessPool:  # a worker died, and the pool does not know of which task
            task, _ = waiting[0]  # if it happens again, the oldest is to blame
            if task is suspect:
                waiting.popleft()
                yield Outcome(task, reason=f"{KILLED}; export it again")
            suspect = task
        finally:
            pool.stop()
            pool.join()


def _new_pool(job: Callable[[Any], Any],
              n_workers: int,
              method: str | None) -> ProcessPool:
    from pebble import ProcessPool

    context = multiprocessing.get_context(method or start_method())
    return ProcessPool(n_workers,
                       initializer=_install,
                       initargs=(job,),
                       context=context)


def _drain(pool: ProcessPool,
           tasks: Iterator[Any],
           waiting: collections.deque,
           n_ahead: int,
           time_limit: float) -> Iterator[Outcome]:
    """Hand out `tasks`, at most `n_ahead` waiting, and yield outcomes until there are no more."""
    while True:
        for task in itertools.islice(tasks, n_ahead - len(waiting)):
            waiting.append((task, None))  # first: to schedule it fails if the pool is broken
            waiting[-1] = task, _schedule(pool, task, time_limit)
        if not waiting:
            pool.close()  # gently: one that was killed last may have a successor just starting
            pool.join()
            return
        task, future = waiting[0]
        assert future is not None  # all that wait are scheduled
        outcome = _outcome(task, future, time_limit)
        waiting.popleft()
        yield outcome


def _schedule(pool: ProcessPool, task: Any, time_limit: float) -> Future:
    try:
        return pool.schedule(_work, args=(task,), timeout=time_limit)
    except RuntimeError as err:  # how pebble says here what elsewhere it says as follows
        raise BrokenProcessPool(str(err)) from err


def _outcome(task: Any, future: Future, time_limit: float) -> Outcome:
    """Wait for what becomes of a task."""
    from pebble import ProcessExpired

    try:
        return Outcome(task, *future.result())
    except TimeoutError:  # of pebble; a job's own, of a network disk, is as good as one
        return Outcome(task, reason=f"{TOO_LONG} {time_limit:g} seconds; if it is a song, raise "
                                    f"--time-limit")
    except ProcessExpired as err:
        return Outcome(task, reason=f"{KILLED} (exit code {err.exitcode}); export it again")


def _result(job: Callable[[Any], Any], task: Any) -> tuple[Any, str]:
    """The job's result and "", or None and the reason. Raises OSError, which ends the run."""
    try:
        return job(task), ""
    except UserError as err:
        return None, str(err)
    except OSError:
        raise
    except MemoryError:
        return None, "needs more memory than there is; export it again"
    except Exception as err:  # our own fault: shown, but a night's run does not end for one file
        print(f"\n{task}", file=sys.stderr)
        traceback.print_exc()
        return None, (f"an error of ours ({type(err).__name__}: {err}); please report it with the "
                      f"file")


_of_this_worker: dict[str, Callable[[Any], Any]] = {}


def _install(job: Callable[[Any], Any]) -> None:
    _of_this_worker["job"] = job


def _work(task: Any) -> tuple[Any, str]:
    return _result(_of_this_worker["job"], task)
