"""Running a command's `main` in a test."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import pytest

from errors import EXIT_USER_ERROR


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
