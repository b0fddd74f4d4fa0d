"""Training in processes of their own: several together, and ones that something happens to.

They are forked from a server that has imported torch already, so that each begins at once; torchrun, which takes
seconds, gives them the same environment. The picture, which is slow, is not drawn.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import socket
import sys
import threading
from collections.abc import Callable, Sequence
from multiprocessing import forkserver
from multiprocessing.process import BaseProcess
from pathlib import Path

import pytest
import torch
from tqdm import tqdm

import train_pool
from backline.training import loss_picture, run_folder
from backline.training import run as training

CONTEXT = multiprocessing.get_context("forkserver")
SECONDS = 120  # after which a process hangs

Fault = Callable[[int], None]


def begin(number: int, count: int, port: int, argv: Sequence[object], fault: Fault | None = None) -> BaseProcess:
    """Start process `number` of `count` in the current folder; its output goes to out0, out1, … there."""
    with pytest.MonkeyPatch.context() as patch:  # Python 3.11's server looks for what it shall import only there
        patch.setenv("PYTHONPATH", os.pathsep.join(sys.path))
        CONTEXT.set_forkserver_preload(["several", "torch.nn.parallel", "torch._dynamo"])
        forkserver.ensure_running()
    process = CONTEXT.Process(target=_train, args=(number, count, port, [str(arg) for arg in argv], str(Path.cwd()),
                                                   fault))
    process.start()
    return process


def run_together(count: int, argv: Sequence[object], fault: Fault | None = None) -> list[int]:
    """Exit codes of `count` processes that train together; `fault` gets the number of each as it begins."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    processes = [begin(number, count, port, argv, fault) for number in range(count)]
    for process in processes:
        process.join(SECONDS)
    hanging = [process for process in processes if process.is_alive()]
    for process in hanging:
        process.kill()
    assert not hanging, said(count)
    return [process.exitcode for process in processes]


def said(count: int) -> list[str]:
    """What each process wrote to stdout and stderr."""
    return [Path(f"out{number}").read_text() for number in range(count)]


def _train(number: int, count: int, port: int, argv: list[str], folder: str, fault: Fault | None) -> None:
    os.chdir(folder)
    out = os.open(f"out{number}", os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    os.dup2(out, 1)
    os.dup2(out, 2)
    if count > 1:
        os.environ.update(RANK=str(number), LOCAL_RANK=str(number), WORLD_SIZE=str(count), LOCAL_WORLD_SIZE=str(count),
                          MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port))
    torch.set_num_threads(1)
    loss_picture.loss_curves = lambda _rows: b"picture"
    tqdm.set_lock(threading.RLock())  # not one between processes, which would be left behind by those that are killed
    if fault:
        fault(number)
    sys.exit(train_pool.main(argv))


# ---------------------------------------------------------------- what happens to them


def at_step(step: int, happens: Callable[[], None]) -> None:
    """Let `happens` happen while the step of this number is computed."""
    plain = training.Run._losses

    def losses(self, rows, heard=None):
        if self.progress.step == step - 1 and torch.is_grad_enabled():
            happens()
        return plain(self, rows, heard)

    training.Run._losses = losses


def asked_to_stop(number: int) -> None:
    """One of them is, in the middle of a step; and twice, as torchrun may do."""
    if number == 1:
        at_step(2, lambda: (signal.raise_signal(signal.SIGINT), signal.raise_signal(signal.SIGTERM)))


def killed(number: int) -> None:
    if number == 1:
        at_step(4, lambda: os.kill(os.getpid(), signal.SIGKILL))


def out_of_memory(number: int) -> None:
    def happens() -> None:
        raise torch.OutOfMemoryError("CUDA out of memory")

    if number == 1:
        at_step(4, happens)


def disk_full(number: int) -> None:
    def save(*_args) -> None:
        raise OSError(28, "No space left on device", "run/last.pth")

    if number == 0:
        at_step(2, lambda: setattr(run_folder, "save_checkpoint", save))
