"""Make songs of the vocabulary's parts (drums, bass, piano) out of arbitrary multitrack MIDI.

Input    .mid, .midi, .kar and .rmi files, and folders of them (searched recursively)
Output   in the output folder: one .mid per song kept, named as its input was, with one track per part and
         nothing else; report.jsonl with a row per input and logs.txt
Example  python clean_midi.py -o cleaned corpus

A song is kept if all its bars are four quarters long, it fits into the vocabulary's bars, every part is there, and it
is within the limits of --config (configs/cleaning.json holds the defaults; null turns a limit off).
"""

from __future__ import annotations

import argparse
import dataclasses
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from backline.common.errors import Parser, UserError, reports_user_errors
from backline.common.settings import config_from_file
from backline.folders import convert as folder_run
from backline.music import choices as song_choices
from backline.music.choices import choices_of
from backline.music.midi_writer import parts_to_bytes
from backline.music.parts import STRUCK_TWICE, Piece, arrange
from backline.music.quality import Cleaning, check_quality, measure
from backline.music.song import Song
from backline.music.vocab import Vocabulary, load_vocabulary
from tokenizer import MidiTokenizerPooled

PIECES_LEFT_OUT = "in stretches left out"


def check_parts(parts: Sequence[np.ndarray], vocabulary: Vocabulary, allow_missing: bool, where: str) -> None:
    """Raise UserError if a part has no notes; where that is allowed, if none has."""
    missing = [name for name, notes in zip(vocabulary.part_names, parts, strict=True) if not len(notes)]
    if missing and (not allow_missing or len(missing) == len(parts)):
        raise UserError(f"{where}: no {' and no '.join(missing)}; name or set the programs of such tracks, choose them "
                        f"with --part, or --allow-missing")


@dataclasses.dataclass(frozen=True)
class CleanSong:
    """The job on one song of a folder: its three-part songs as MIDI, and what the report says."""

    vocabulary: Vocabulary
    cleaning: Cleaning

    def __call__(self, song: Song, source: str) -> tuple[list[bytes], dict[str, Any]]:
        pieces, lost, facts = arrange(song, self.vocabulary, self.cleaning, source)
        kept, measures, n_notes, left_out = [], [], 0, []
        for piece in pieces:
            try:
                measured, notes = self._check(piece, song, source)
            except UserError as err:
                if piece is pieces[-1] and not kept:
                    raise
                lost[PIECES_LEFT_OUT] += piece.n_notes
                left_out.append({"first_bar": piece.first_bar, "reason": str(err).removeprefix(f"{source}: ")})
                continue
            kept.append(piece)
            measures.append(measured)
            n_notes += notes
        contents = [parts_to_bytes(piece.parts, self.vocabulary, song.ticks_per_quarter, song.main_tempo())
                    for piece in kept]
        lost[STRUCK_TWICE] = sum(piece.n_notes for piece in kept) - n_notes
        return contents, {"notes": n_notes, "first_bars": [piece.first_bar for piece in kept], "quality": measures,
                          **({"pieces_left_out": left_out} if left_out else {}), "lost": dict(lost), **facts}

    def _check(self, piece: Piece, song: Song, source: str) -> tuple[dict[str, Any], int]:
        """A piece's measures, and its notes once it is tokenized. Raises UserError if it is to be left out."""
        check_parts(piece.parts, self.vocabulary, self.cleaning.allow_missing, source)
        rows = MidiTokenizerPooled(self.vocabulary).parts_to_rows(piece.parts, song.ticks_per_quarter, source)
        measures = measure(piece.parts, song.ticks_per_quarter, self.vocabulary)
        check_quality(measures, self.cleaning, source)
        return measures, len(rows)


def build_parser() -> argparse.ArgumentParser:
    parser = Parser(f"{__doc__}\n{song_choices.OPTIONS}")
    parser.add_argument("inputs", type=Path, nargs="+", metavar="MIDI", help="files and folders to clean")
    parser.add_argument("-o", "--output", type=Path, default=Path("cleaned"),
                        help="folder for the songs (default: %(default)s)")
    parser.add_argument("--config", type=Path, help="JSON with limits and choices; options go before it "
                                                    "(default: those of configs/cleaning.json)")
    parser.add_argument("--allow-missing", action="store_true", help="keep songs that lack some of the parts")
    parser.add_argument("--vocab", type=Path, help="vocabulary JSON (default: configs/vocab.json)")
    song_choices.add_options(parser, Cleaning())
    folder_run.add_options(parser)
    return parser


@reports_user_errors
def main(argv: Sequence[str] | None = None) -> int:
    args = build_parser().parse_args(argv)
    vocabulary = load_vocabulary(args.vocab)
    config = config_from_file(Cleaning, args.config) if args.config else Cleaning()
    cleaning = choices_of(args, config, vocabulary)
    if args.allow_missing:
        cleaning = dataclasses.replace(cleaning, allow_missing=True)
    return folder_run.run(args, args.output, ".mid", "cleaned", CleanSong(vocabulary, cleaning), cleaning,
                          vocabulary=vocabulary.to_dict())


if __name__ == "__main__":
    sys.exit(main())
