"""What the page asks for, in the words of generate.py: a form becomes its command line.

So the studio has the command's options, checks and errors, and can show the line that does the
same. A form names the song it is about by an id; paths come from the folder alone.
"""

from __future__ import annotations

import secrets
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from backline.common.errors import Parser, UserError
from backline.generation.config_options import gen_config
from backline.generation.options import SEEDS, add_options, check_arguments
from backline.generation.prompt import open_prompt, read_prompt
from backline.generation.session import BATCH, LoadedModel, Session
from backline.generation.setup import open_setup

# Fields of a form, and the options of generate.py that they are. Those that are missing here name
# files of the machine (--genconfig, -mp, --soundfont), or are about what a command prints or writes.
# Nor is --draws there: a song that one watches is one draw, and best_of draws several.
TEXTS = {
    "bars": "--bars",
    "given": "--given",
    "make": "--make",
    "fill": "--fill",
    "prompt_bars": "--prompt-bars",
    "tempo": "--tempo",
    "dynamics": "--dynamics",
    "feel": "--feel",
    "temperature": "--temperature",
    "chords": "--chords",
    "density": "--density",
    "rests": "--rests",
    "repeats": "--repeats",
    "ending": "--ending",
    "key": "--key",
    "scale": "--scale",
    "mono": "--mono",
    "n": "-n",
    "best_of": "--best-of",
    "max_copy": "--max-copy",
    "seed": "--seed",
}
LISTS = {"pitches": "--pitches", "part": "--part"}  # given once for each of their lines
SWITCHES = {
    "loop": "--loop",
    "missing": "--missing",
    "same_parts": "--same-parts",
    "no_empty_bars": "--no-empty-bars",
    "check_copies": "--check-copies",
}
PROMPT = "prompt"  # the field with the id of the song that the form is about
LONGEST_FIELD = 1000  # characters
MOST_SONGS = BATCH  # of one wish: they grow together


class FormError(UserError):
    """A fault of a form. `field`: the one to correct; "" where it is not one alone."""

    def __init__(self, message: str, field: str = "") -> None:
        super().__init__(message)
        self.field = field


class Asking(NamedTuple):
    """A wish that was understood: ready to be made.

    best_of: how many songs are drawn to choose from; 0: all that are drawn are kept.
    redraws: whether songs may be drawn anew, or not chosen: then none is shown while it grows.
    command: the line that does the same.
    notices: what became of prompt and options, a line each.
    """

    session: Session
    seed: int
    n: int
    best_of: int
    redraws: bool
    command: str
    notices: tuple[str, ...]


# ---------------------------------------------------------------- command lines


def arguments_of(form: dict[str, Any]) -> list[str]:
    """The options that a form stands for, without prompt and output. Raises FormError."""
    arguments: list[str] = []
    for field, value in form.items():
        if field == PROMPT or value is None or value is False or value in ("", []):
            continue  # but 0 is a value
        if field in SWITCHES:
            if value is not True:
                raise FormError(f"{field}: must be true or false", field)
            arguments.append(SWITCHES[field])
        elif field in TEXTS:
            arguments += _option(TEXTS[field], _text(value, field))
        elif field in LISTS:
            if not isinstance(value, list):
                raise FormError(f"{field}: must be a list of texts", field)
            for line in value:
                arguments += _option(LISTS[field], _text(line, field))
        else:
            raise FormError(f"{field:.40}: is no field; they are "
                            f"{', '.join([PROMPT, *TEXTS, *LISTS, *SWITCHES])}")
    return arguments


def _text(value: object, field: str) -> str:
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    if not isinstance(value, str) and not is_number:
        raise FormError(f"{field}: must be a text or a number", field)
    text = str(value).strip()
    if len(text) > LONGEST_FIELD or not text.isprintable():
        raise FormError(f"{field}: at most {LONGEST_FIELD} characters, on one line", field)
    return text


def _option(option: str, text: str) -> list[str]:
    """An option and its value, so that a value such as "-" is not taken for an option."""
    if text.startswith("-") and option.startswith("--"):
        return [f"{option}={text}"]
    return [option, text]


def command_line(arguments: Sequence[str], folder: Path) -> str:
    """What to type in a shell."""
    return shlex.join(["python", "generate.py", *arguments, "-o", str(folder)])


# ---------------------------------------------------------------- what they ask for


def understand(form: dict[str, Any],
               prompt: Path | None,
               folder: Path,
               loaded: LoadedModel) -> Asking:
    """What a form asks for.

    Args:
        form: see `TEXTS`, `LISTS` and `SWITCHES`.
        prompt: the song that it is about.
        folder: where the songs go.
    Raises:
        FormError: in the command's own words, with the field at fault.
    """
    try:
        return _understand(form, prompt, folder, loaded)
    except UserError as err:
        field = getattr(err, "field", "") or _field_at_fault(form, prompt, folder, loaded, str(err))
        raise FormError(str(err), field) from None


def _field_at_fault(form: dict[str, Any],
                    prompt: Path | None,
                    folder: Path,
                    loaded: LoadedModel,
                    message: str) -> str:
    """The first field without which the form has another fault, or none."""
    for field in form:
        rest = {name: value for name, value in form.items() if name != field}
        try:
            _understand(rest, prompt, folder, loaded)
        except UserError as err:
            if str(err) == message:
                continue
        return field
    return ""


def _understand(form: dict[str, Any],
                prompt: Path | None,
                folder: Path,
                loaded: LoadedModel) -> Asking:
    arguments = arguments_of(form)
    if prompt:
        arguments = ["-p", str(prompt), *arguments]
    if form.get("seed") in ("", None):
        arguments += ["--seed", str(secrets.randbelow(SEEDS))]
    if loaded.critic and not prompt and not form.get("best_of"):
        arguments += ["--draws", "1"]
    parser = Parser()
    add_options(parser)
    args = parser.parse_args(arguments)
    check_arguments(args)
    if max(args.num_samples, args.best_of or 0) > MOST_SONGS:
        raise UserError(f"at most {MOST_SONGS} songs at a time; ask for fewer, and then again")
    config = gen_config(args)
    opened = open_prompt(args.prompt) if args.prompt else None
    setup = open_setup(args, config, loaded)
    read = read_prompt(opened, args.prompt or Path(), setup.asked, loaded.tokenizer)
    session, notices = setup.session(read)
    return Asking(
        session,
        args.seed,
        args.num_samples,
        args.best_of or 0,
        bool(args.best_of or args.max_copy),
        command_line(arguments, folder),
        tuple(notices),
    )
