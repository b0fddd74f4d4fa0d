"""Write new music as MIDI: from scratch, after a song, parts to other parts, bars in the middle.

Input    a model (.safetensors or .pth; default: the one in this repository); optionally a song,
         .mid or token .json
Output   in the output folder, for each song: 0.mid and its stems 0-drums.mid, 0-bass.mid,
         0-piano.mid (one for each part of the model's vocabulary); 0-prompt.mid with -sp, 0.png
         with --png, 0.wav with --wav. For all songs: index.html, a page to see and hear them in a
         browser, and genconfigs.txt, which says how each was made
Example  python generate.py -o generated -n 3
         python generate.py -p prompt.mid -o generated -n 3
         python generate.py -p song.mid --given bass,piano --make drums
         python generate.py -p song.mid --fill 5-8
         python generate.py --watch drop_here --missing
         python generate.py --bars 8 --loop --key A --scale minor --best-of 16 -n 4
         python generate.py --check-copies --max-copy 40
         python generate.py --reproduce generated/0.mid
         python generate.py --reproduce stars.json

Each song carries its recipe, and so do the stars that index.html exports. From a recipe,
--reproduce makes the same bytes again, on the same machine and with the same versions.
"""

from __future__ import annotations

import argparse
import dataclasses
import functools
import secrets
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from backline.common.errors import Parser, UserError, reports_user_errors
from backline.common.files import check_writable, make_folder
from backline.common.hub import fetched
from backline.common.installed import INSTALL_ALL, is_installed
from backline.generation.config_options import gen_config
from backline.generation.options import (
    SEEDS,
    add_options,
    check_arguments,
    make_wish,
)
from backline.generation.prompt import Prompt, open_prompt, read_prompt
from backline.generation.recipes import read_originals
from backline.generation.reproduce import make_again, open_job
from backline.generation.run_log import RunLog
from backline.generation.session import (
    LoadedModel,
    Session,
    best_songs,
)
from backline.generation.setup import Setup, open_setup
from backline.generation.watch import Watcher, folder_beside, watch
from backline.listening.outputs import Outputs
from backline.listening.wav import find_synthesizer
from backline.music import choices as song_choices

REPRODUCE_TAKES = ("reproduce", "prompt", "model_path", "output", "device", "page")


# ---------------------------------------------------------------- options


def build_parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = Parser(f"{__doc__}\n{song_choices.OPTIONS}")
    add_options(parser)
    return parser


# ---------------------------------------------------------------- command


@reports_user_errors
def main(argv: Sequence[str] | None = None) -> int:
    """Returns the exit code."""
    args = build_parser().parse_args(argv)
    if args.output is None:
        args.output = Path("generated")
        if args.watch:
            args.output = folder_beside(args.watch, "-generated")
    if args.reproduce:
        return reproduce(args)
    check_arguments(args)
    outputs = outputs_of(args)
    config = gen_config(args)
    opened = open_prompt(args.prompt) if args.prompt else None
    loaded = LoadedModel(fetched(args.model_path), args.device, args.dtype)
    setup = open_setup(args, config, loaded)
    if args.watch:
        return watch_folder(setup, outputs)
    prompt = read_prompt(opened, args.prompt, setup.asked, setup.loaded.tokenizer)
    return play(setup, prompt, outputs)


def outputs_of(args: argparse.Namespace) -> Outputs:
    """Raises UserError if sound is asked for and nothing can play it."""
    synthesizer = None
    if args.png and not is_installed("matplotlib"):
        raise UserError(f"--png needs matplotlib, which is not installed; {INSTALL_ALL}, "
                        "or leave it out")
    if args.wav:
        synthesizer = find_synthesizer(args.soundfont)
        synthesizer.try_out()
    return Outputs(
        args.output,
        png=args.png,
        wav=synthesizer,
        page=args.page,
        save_prompt=args.save_prompt,
        print_events=args.print_events,
        force=args.force,
    )


def watch_folder(setup: Setup, outputs: Outputs) -> int:
    """Make the songs of each file that comes to the folder; returns the exit code."""
    args = setup.args
    loaded = setup.loaded
    nothing = read_prompt(None, Path(), setup.asked, loaded.tokenizer)
    wish = make_wish(args, nothing, loaded.vocabulary)
    loaded.check(wish, setup.config)  # holds for any file
    check_writable(outputs.folder)
    make_folder(args.watch)

    def play_to(path: Path, folder: Path) -> None:
        """Make the songs of one file."""
        opened = open_prompt(path)
        prompt = read_prompt(opened, path, setup.asked, loaded.tokenizer)
        outputs_there = dataclasses.replace(outputs, folder=folder)
        play(setup, prompt, outputs_there)

    watcher = Watcher(args.watch, outputs.folder, play_to)
    return watch(watcher, again=outputs.force)


def play(setup: Setup, prompt: Prompt, outputs: Outputs) -> int:
    """Make the songs of one prompt, or from scratch; returns the exit code."""
    args = setup.args
    session, notices = setup.session(prompt)
    outputs.check()
    if not args.quiet:
        for notice in notices:
            print(f"notice: {notice}", file=sys.stderr)
    return write_songs(args, session, outputs)


def write_songs(args: argparse.Namespace,
                session: Session,
                outputs: Outputs) -> int:
    """Make and write the songs, log them, write the page; returns the exit code.

    Raises UserError, after all that, if fewer songs than wanted do not copy.
    """
    seed = args.seed
    if seed is None:
        seed = secrets.randbelow(SEEDS)
    n_made = args.best_of or args.num_samples
    log = RunLog(session, seed, args.device)
    try:
        songs = session.songs(seed, n_made)
        if args.best_of:
            songs = iter(best_songs(list(songs), args.num_samples, session))
        for i, song in enumerate(songs):
            number = outputs.write(song, session, i)
            log.add(song, number)
    finally:  # also when interrupted: what is written can be made again
        if log.songs:
            log.write(outputs.folder)
            print(f"seed {seed}; stems beside each song: {', '.join(log.first_stems())}")
            outputs.write_page(session.loaded.vocabulary)
    n_written = len(log.songs)
    if n_written < args.num_samples:
        session.check_enough(n_written, n_made)
    return 0


# ---------------------------------------------------------------- making a song again


def reproduce(args: argparse.Namespace) -> int:
    """Make songs again from their recipes; returns 0 if all bytes come out the same, else 1."""
    check_reproduce(args)
    outputs = Outputs(args.output, page=args.page)

    @functools.cache
    def open_once(dtype: str) -> LoadedModel:
        """Songs of one file may differ in the dtype of the weights."""
        return LoadedModel(fetched(args.model_path), args.device, dtype)

    originals = read_originals(args.reproduce)
    jobs = [open_job(original, args.prompt, open_once) for original in originals]
    outputs.check()
    batches: dict[str, Any] = {}
    same = [make_again(job, outputs.folder, batches) for job in jobs]
    outputs.write_page(jobs[0].session.loaded.vocabulary)
    return 0 if all(same) else 1


def check_reproduce(args: argparse.Namespace) -> None:
    """Raise UserError about options that --reproduce would ignore."""
    parser = build_parser()
    defaults = vars(parser.parse_args([]))
    changed = {name
               for name, value in defaults.items()
               if getattr(args, name) != value}
    ignored = changed - set(REPRODUCE_TAKES)
    options = [action.option_strings[0]
               for action in parser._actions
               if action.dest in ignored]
    if options:
        raise UserError("--reproduce takes these settings from the recipe; "
                        f"leave out {', '.join(options)}")


if __name__ == "__main__":
    sys.exit(main())
