"""Show the songs of a folder on one page, to see, hear and choose from in a browser.

Input    a folder of numbered songs 0.mid, 1.mid, …, as generate.py writes them; with --blind two folders of any .mid
Output   index.html in that folder: one file that needs no network; with --blind the page named by -o
Example  python page.py generated
         python page.py --blind generated cleaned --ask real -o blind.html

generate.py writes the page itself. The page exports starred songs as stars.json, which generate.py --reproduce makes
again; a blind page exports votes.csv, which evaluate.py --votes reads.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from backline.common.errors import Parser, UserError, reports_user_errors
from backline.common.files import check_new, check_writable, write_bytes
from backline.listening.blind_page import BLIND_BARS, QUESTIONS, blind_page
from backline.listening.ideas_page import write_page
from backline.music.vocab import Vocabulary, load_vocabulary

BLIND_NAME = "blind.html"
BESIDE = ("prompt",)  # what generate.py -sp writes beside songs, named like a stem


def build_parser() -> argparse.ArgumentParser:
    """The options of the command.

    Those of --blind have no default here, so that it shows when one is given in vain.
    """
    parser = Parser(__doc__)
    parser.add_argument("folders", type=Path, nargs="+", metavar="FOLDER",
                        help="folder of songs; with --blind two folders, to compare the first with the second")
    parser.add_argument("--vocab", type=Path, help="vocabulary JSON (default: configs/vocab.json)")
    blind = parser.add_argument_group("blind comparison of two folders")
    blind.add_argument("--blind",
                       action="store_true",
                       help="play pairs of songs, ask about each, export votes as CSV")
    blind.add_argument("--ask", choices=QUESTIONS,
                       help=f"ask which song you prefer, or which is real (default: {QUESTIONS[0]})")
    blind.add_argument("--bars",
                       type=int,
                       metavar="N",
                       help=f"play the first N bars of each song (default: {BLIND_BARS})")
    blind.add_argument("--seed", type=int, help="sets every order (default: 0)")
    blind.add_argument("-o", "--output",
                       type=Path,
                       metavar="HTML",
                       help=f"page to write (default: {BLIND_NAME})")
    blind.add_argument("--force", action="store_true", help="overwrite a page that exists")
    return parser


@reports_user_errors
def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; returns its exit code."""
    args = build_parser().parse_args(argv)
    check_arguments(args)
    vocabulary = load_vocabulary(args.vocab)
    if not args.blind:
        (folder,) = args.folders
        check_folder(folder)
        if unknown := unknown_parts(folder, vocabulary):
            print(f"notice: {folder} has stems of {', '.join(unknown)}, which are parts of another vocabulary: shown "
                  "as tracks of their own; --vocab names that of the model", file=sys.stderr)
        print(write_page(folder, vocabulary))
        return 0
    out = args.output or Path(BLIND_NAME)
    check_new([out], args.force)
    question = args.ask or QUESTIONS[0]
    most_bars = args.bars or BLIND_BARS
    seed = args.seed or 0
    page = blind_page(args.folders, question, most_bars, seed, vocabulary)
    write_bytes(out, page)
    print(out)
    return 0


def check_arguments(args: argparse.Namespace) -> None:
    """Raise UserError about options that do not go together."""
    for name in ("ask", "bars", "seed", "output", "force"):
        value = getattr(args, name)
        if not args.blind and value is not None and value is not False:
            raise UserError(f"--{name} is for --blind; leave it out")
    if len(args.folders) != 1 + args.blind:
        raise UserError(f"{len(args.folders)} folders: give two with --blind, and one without")
    if args.blind:
        first, second = args.folders
        if first.resolve() == second.resolve():
            raise UserError(f"{first}: compared with itself; give two folders")
    if args.bars is not None and args.bars < 1:
        raise UserError(f"--bars {args.bars} must be at least 1")


def unknown_parts(folder: Path, vocabulary: Vocabulary) -> list[str]:
    """Names in stems of a folder's songs, 0-guitar.mid of 0.mid, that are no part of the vocabulary."""
    names: set[str] = set()
    for path in folder.glob("*-*.mid"):
        song, _, name = path.stem.partition("-")
        if song.isdigit() and (folder / f"{song}.mid").exists():
            names.add(name)
    return sorted(names.difference((*vocabulary.part_names, *BESIDE)))


def check_folder(folder: Path) -> None:
    """Raise UserError if `folder` is no folder, or one that no page can be written to."""
    if not folder.is_dir():
        raise UserError(f"{folder}: no such folder; give one of songs, as generate.py writes them")
    check_writable(folder)


if __name__ == "__main__":
    sys.exit(main())
