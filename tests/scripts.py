"""Running scripts as `python script.py …` does, but without waiting for torch and others to be imported each time.

A server imports these libraries once, and nothing of this project; each script then runs in a child that it forks.
"""

from __future__ import annotations

import contextlib
import json
import os
import runpy
import subprocess
import sys
import traceback
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

CAN_FORK = hasattr(os, "fork")


@dataclass(frozen=True)
class Done:
    """How a script ended, and what it printed."""

    returncode: int
    output: str


class Scripts:
    """Runs scripts in the server `server`."""

    def __init__(self, server: subprocess.Popen[str], log: Path) -> None:
        self.server, self.log = server, log

    def run(self, folder: Path, argv: Sequence[str]) -> Done:
        """`python argv[0] argv[1:]` in `folder`, where the script is too."""
        assert self.server.stdin is not None and self.server.stdout is not None
        print(json.dumps({"folder": str(folder), "argv": list(argv), "log": str(self.log)}), file=self.server.stdin,
              flush=True)
        code = int(self.server.stdout.readline())
        return Done(code, self.log.read_text(encoding="utf-8"))


def started(folder: Path, argv: Sequence[str]) -> Done:
    """`python argv[0] argv[1:]` in `folder`, in a process of its own."""
    done = subprocess.run([sys.executable, *argv], cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                          text=True, check=False)
    return Done(done.returncode, done.stdout)


@contextlib.contextmanager
def script_server(log: Path) -> Iterator[Scripts]:
    """A server, as long as the block lasts; what its scripts print goes through the file `log`."""
    with subprocess.Popen([sys.executable, __file__], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                          text=True) as server:
        yield Scripts(server, log)


def _run(folder: str, argv: list[str], log: str) -> int:
    """In the child: run the script; its exit status."""
    output = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    os.dup2(os.open(os.devnull, os.O_RDONLY), sys.stdin.fileno())
    os.dup2(output, sys.stdout.fileno())
    os.dup2(output, sys.stderr.fileno())
    os.chdir(folder)
    sys.argv, sys.path[0] = argv, folder
    try:
        runpy.run_path(argv[0], run_name="__main__")
    except SystemExit as end:
        if not isinstance(end.code, int | None):
            print(end.code, file=sys.stderr)
            return 1
        return end.code or 0
    except BaseException:
        traceback.print_exc()
        return 1
    return 0


def _serve() -> None:
    """Run the scripts that lines of stdin name, one after another; print the exit status of each."""
    import matplotlib.figure  # noqa: F401
    import symusic  # noqa: F401
    import torch  # noqa: F401

    for line in sys.stdin:
        child = os.fork()
        if not child:
            status = _run(**json.loads(line))
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(status)
        _, status = os.waitpid(child, 0)
        print(os.waitstatus_to_exitcode(status), flush=True)


if __name__ == "__main__":
    _serve()
