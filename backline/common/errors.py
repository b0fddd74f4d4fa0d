"""How every command tells its user what went wrong: one line and exit code 2."""

from __future__ import annotations

import argparse
import difflib
import functools
import os
import sys
from collections.abc import Callable, Iterable, Sequence
from typing import Any, NoReturn

from backline.common.installed import INSTALL_ALL, NOT_FOR_PLAYING
from backline.common.version import VERSION

EXIT_USER_ERROR = 2
EXIT_BROKEN_PIPE = 141  # 128 + SIGPIPE
EXIT_INTERRUPTED = 130  # 128 + SIGINT, as shells report it


class UserError(Exception):
    """Something the user can fix: its text is the whole message (what, where, remedy)."""


def suggestion(word: str, known: Iterable[str]) -> str:
    """The end of an error, such as "; did you mean 'minor'?"; "" if no known word is near.

    Letter case does not matter.
    """
    by_folded = {each.casefold(): each for each in known}
    close = difflib.get_close_matches(word.casefold(), by_folded, n=1)
    return f"; did you mean {by_folded[close[0]]!r}?" if close else ""


def counted(n: int, noun: str) -> str:
    """A number of things in a message: "1 track", "3 tracks"."""
    return f"{n} {noun}{'s' * (n != 1)}"


class Parser(argparse.ArgumentParser):
    """Parser of a command line.

    The script's docstring is its help, options are not abbreviated, and an error is a UserError.
    A misspelt option or choice is answered with the nearest one there is.
    """

    def __init__(self, description: str = "", **settings: Any) -> None:
        defaults: dict[str, Any] = {
            "description": description,
            "allow_abbrev": False,
            "formatter_class": argparse.RawDescriptionHelpFormatter,
        }
        super().__init__(**defaults | settings)
        self.add_argument("--version",
                          action="version",
                          version=f"Backline {VERSION}",
                          help="say which version this is")

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        """Look for misspelt options first: an unknown one may explain all other errors."""
        typed = list(sys.argv[1:] if args is None else args)
        if self._subparsers is None:  # else each of its commands looks at its own
            self._check_spelling(typed)
        return super().parse_known_args(typed, namespace)

    def _check_spelling(self, typed: Sequence[str]) -> None:
        """Raise UserError about the first long option that is not known, if one is near it."""
        known = [option for option in self._option_string_actions if option.startswith("--")]
        for text in typed:
            if text == "--":  # what follows are no options
                return
            option = text.partition("=")[0]
            if not option.startswith("--") or " " in option or option in known:
                continue
            if nearest := suggestion(option, known):
                raise UserError(f"unknown option {option}{nearest}")

    def _check_value(self, action: argparse.Action, value: Any) -> None:
        """Check a value as argparse does, and name the nearest choice in the error."""
        try:
            super()._check_value(action, value)
        except argparse.ArgumentError as err:
            err.message += suggestion(str(value), map(str, action.choices or ()))
            raise

    def error(self, message: str) -> NoReturn:
        """Say what is wrong in one line, without the whole usage before it."""
        remedy = "" if message.endswith("?") else "; --help says what there is"
        raise UserError(f"{message}{remedy}")


def reports_user_errors(main: Callable[..., int]) -> Callable[..., int]:
    """Wrap a command's `main`: what its user can fix is one line on stderr, never a traceback.

    An `OSError` counts as the user's (a full disk, a folder without write permission), and so does a
    library that only the whole toolkit needs. Every other exception is a bug of ours and keeps its
    traceback.
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
        except ModuleNotFoundError as err:
            library = str(err.name).partition(".")[0]
            if library not in NOT_FOR_PLAYING:
                raise
            print(f"error: this command needs {NOT_FOR_PLAYING[library]}, which is not installed; {INSTALL_ALL}",
                  file=sys.stderr)
            return EXIT_USER_ERROR
        except KeyboardInterrupt as err:
            print(str(err) or "interrupted", file=sys.stderr)
            return EXIT_INTERRUPTED

    return wrapper
