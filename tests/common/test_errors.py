"""Errors of command lines: one line, with the nearest option or choice there is."""

from __future__ import annotations

import pytest

from backline.common.errors import Parser, UserError, suggestion


def parser() -> Parser:
    made = Parser("A command.")
    made.add_argument("file", nargs="?")
    made.add_argument("-t", "--temperature", type=float)
    made.add_argument("--ending", choices=("yes", "no"))
    made.add_argument("--feel", choices=("safer", "wilder"))
    made.add_argument("-n", "--number", type=int, required=True)
    return made


@pytest.mark.parametrize(("arguments", "message"), [
    (["--temprature", "1.1"], "unknown option --temprature; did you mean '--temperature'?"),
    (["--Temperature=1.1"], "unknown option --Temperature; did you mean '--temperature'?"),
    (["-n", "1", "--feel", "wild"], "invalid choice: 'wild' (choose from 'safer', 'wilder'); did you mean 'wilder'?"),
    (["-n", "1", "--ending", "maybe"], "invalid choice: 'maybe' (choose from 'yes', 'no'); --help says what there is"),
    (["-n", "1", "--zzz"], "unrecognized arguments: --zzz; --help says what there is"),
    (["-n", "x"], "argument -n/--number: invalid int value: 'x'; --help"), ([], "required: -n/--number"),
])
def test_a_wrong_command_line_is_one_line(arguments, message):
    with pytest.raises(UserError) as error:
        parser().parse_args(arguments)
    assert message in str(error.value) and "\n" not in str(error.value)


def test_what_is_right_is_read():
    read = parser().parse_args(["-n", "2", "--temperature=0.9", "--feel", "safer", "--", "--temprature"])
    assert (read.number, read.temperature, read.feel, read.file) == (2, 0.9, "safer", "--temprature")


def test_commands_of_a_command_look_at_their_own_options():
    outer = Parser("Commands.")
    commands = outer.add_subparsers(required=True)
    commands.add_parser("train").add_argument("--steps", type=int)
    assert outer.parse_args(["train", "--steps", "3"]).steps == 3
    with pytest.raises(UserError, match="unknown option --stepss; did you mean '--steps'"):
        outer.parse_args(["train", "--stepss", "3"])


def test_a_suggestion_is_near_in_any_letter_case_or_none():
    assert suggestion("DORAIN", ["dorian", "major"]) == "; did you mean 'dorian'?"
    assert suggestion("xyz", ["dorian", "major"]) == "" == suggestion("major", [])
