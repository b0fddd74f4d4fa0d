"""Running a command's `main` in a test."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from backline.common.errors import EXIT_USER_ERROR

ROOT = Path(__file__).parents[1]


def succeeds(main: Callable[..., int], argv: Sequence[object]) -> None:
    assert main([str(arg) for arg in argv]) == 0


def fails(main: Callable[..., int], argv: Sequence[object], capsys: pytest.CaptureFixture[str]) -> str:
    """Run a command whose user made a mistake: exit code 2 and, on stderr, one line, which is returned."""
    capsys.readouterr()
    assert main([str(arg) for arg in argv]) == EXIT_USER_ERROR
    captured = capsys.readouterr()
    lines = captured.err.splitlines()
    assert captured.out == ""
    assert len(lines) == 1, captured.err
    assert lines[0].startswith("error: ")
    return lines[0]


def help_without(script: str, *modules: str) -> str:
    """What `script`.py --help prints, in a process of its own; it must import none of `modules`."""
    code = (f"import sys, {script}\ntry: {script}.main(['--help'])\nexcept SystemExit: pass\n"
            f"assert not {set(modules)} & set(sys.modules)")
    done = subprocess.run([sys.executable, "-W", "error", "-c", code], cwd=ROOT, capture_output=True, text=True,
                          check=False)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    return done.stdout
