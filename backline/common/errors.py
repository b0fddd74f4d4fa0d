"""How every command tells its user what went wrong: one line and exit code 2."""

from __future__ import annotations

import argparse
import functools
import os
import sys
from collections.abc import Callable, Sequence
from typing import Any, NoReturn

EXIT_USER_ERROR = 2
EXIT_BROKEN_PIPE = 141  # 128 + SIGPIPE
EXIT_INTERRUPTED = 130  # 128 + SIGINT, as shells report it


class UserError(Exception):
    """Something the user can fix: its text is the whole message (what, where, remedy)."""


class Parser(argparse.ArgumentParser):
    """Parser of a command line.

    The script's docstring is its help, options are not abbreviated, and an error is a UserError.
    """

    def __init__(self, description: str = "", **settings: Any) -> None:
        defaults: dict[str, Any] = {
            "description": description,
            "allow_abbrev": False,
            "formatter_class": argparse.RawDescriptionHelpFormatter,
        }
        super().__init__(**defaults | settings)

    def error(self, message: str) -> NoReturn:
        """Say what is wrong in one line, without the whole usage before it."""
        raise UserError(f"{message}; --help says what there is")


def reports_user_errors(main: Callable[..., int]) -> Callable[..., int]:
    """Wrap a command's `main`: what its user can fix is one line on stderr, never a traceback.

    An `OSError` counts as the user's (a full disk, a folder without write permission). Every other
    exception is a bug of ours and keeps its traceback.
    """

    @functools.wraps(main)
    def wrapper(argv: Sequence[str] | None = None) -> int:
        """The exit code of `main`, or that of the error it ended with."""
        try:
            return main(argv)
        except UserError as err:
            print(f"error: {err}", file=sys.stderr)
            return EXIT_USER_ERROR
        except BrokenPipeError:  # whoever read our output wants no more: `| head`
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, sys.stdout.fileno())
            return EXIT_BROKEN_PIPE
        except OSError as err:
            where = f"{err.filename}: " if err.filename else ""
            what = err.strerror or err
            print(f"error: {where}{what}", file=sys.stderr)
            return EXIT_USER_ERROR
        except KeyboardInterrupt as err:
            print(str(err) or "interrupted", file=sys.stderr)
            return EXIT_INTERRUPTED

    return wrapper
