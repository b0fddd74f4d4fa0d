"""Turn any multitrack MIDI into songs of the vocabulary's parts (drums, bass, piano).

Input    .mid, .midi, .kar and .rmi files, and folders of them (searched recursively)
Output   in the output folder: one .mid per kept song, named like its input, with one track per
         part and nothing else; report.jsonl with a row per input, and logs.txt
Example  python clean_midi.py -o cleaned corpus

A song is kept if all its bars are four quarters long, it fits into the vocabulary's bars, every
part is there, and it meets the limits of --config (configs/cleaning.json holds the defaults; null
turns a limit off).
"""

from __future__ import annotations

import argparse
import dataclasses
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from backline.common.errors import Parser, UserError, reports_user_errors
from backline.common.settings import config_from_file
from backline.folders import convert
from backline.folders.convert import Converted
from backline.music import choices as song_choices
from backline.music.choices import DROP, Choices, choices_of
from backline.music.midi_writer import parts_to_bytes
from backline.music.parts import STRUCK_TWICE, Piece, arrange
from backline.music.song import Song
from backline.music.vocab import QUARTERS_PER_BAR, Vocabulary, load_vocabulary
from tokenizer import parts_to_rows

PIECES_LEFT_OUT = "in stretches left out"
TRIPLETS_PER_BAR = 48  # steps of sixteenth triplets; sheet music uses them beside the plain grid
STEP_SHARE = 12  # an onset counts as on the grid if it is at most 1/12 of a step away
COMPLAINTS = {  # by the limit that a song is outside of
    "min_onsets_on_grid": "too few onsets on the grid",
    "min_bars": "too few bars",
    "min_notes_per_part": "too few notes in a part",
    "max_empty_bars": "too many empty bars",
    "max_same_drum": "drums are one repeated hit",
    "min_sounding_bars": "a part is silent most of the time",
}


@dataclasses.dataclass(frozen=True)
class Cleaning(Choices):
    """What is kept: `Choices`, and a limit for each measure; `null` in JSON turns a limit off."""

    ranges: str = DROP
    allow_missing: bool = False  # keep songs that lack some of the parts
    min_onsets_on_grid: float | None = 0.6
    min_bars: int | None = 4
    min_notes_per_part: int | None = 4
    max_empty_bars: float | None = 0.25
    max_same_drum: float | None = 0.95
    min_sounding_bars: float | None = 0.1

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("min_onsets_on_grid", "max_empty_bars", "max_same_drum", "min_sounding_bars"):
            value = getattr(self, name)
            if value is not None and not 0 <= value <= 1:
                raise UserError(f"{name} must be a share from 0 to 1, or null, not {value}")
        for name in ("min_bars", "min_notes_per_part"):
            value = getattr(self, name)
            if value is not None and value < 0:
                raise UserError(f"{name} must be 0 or more, or null, not {value}")


# ---------------------------------------------------------------- is a piece worth learning from?


def measure_quality(parts: Sequence[np.ndarray],
                    ticks_per_quarter: int,
                    vocabulary: Vocabulary) -> dict[str, float | int]:
    """The measures of a song with at least one note.

    bars: from the song's first note to its last.
    onsets_on_grid: share of onsets on the vocabulary's grid or on sixteenth triplets; about a third
        in a performance that was never quantized.
    notes_per_part: of the part that has fewest, of those that play.
    empty_bars: share of the bars in which nothing begins.
    same_drum: share of the notes of all drum parts that are the most frequent one.
    sounding_bars: share of the bars in which the melodic part that plays least begins a note.

    Args:
        parts: the (N, 3) onsets, ends and pitches of each part.
    """
    bar_ticks = QUARTERS_PER_BAR * ticks_per_quarter
    with_notes = [p for p in range(len(parts)) if len(parts[p])]
    drums = [p for p in with_notes if vocabulary.is_drum[p]]
    melodic = [p for p in with_notes if not vocabulary.is_drum[p]]

    onsets_of_parts = [parts[p][:, 0] for p in with_notes]
    onsets = np.concatenate(onsets_of_parts)  # (N,)
    bars = np.unique(onsets // bar_ticks)
    n_bars = int(bars[-1] - bars[0]) + 1
    tolerance = STEP_SHARE * vocabulary.steps_per_bar
    is_on_grid = _is_on_grid(onsets, bar_ticks, vocabulary.steps_per_bar, tolerance)
    is_on_grid |= _is_on_grid(onsets, bar_ticks, TRIPLETS_PER_BAR, tolerance)

    same_drum = 0.0
    if drums:  # together: a shaker alone may play one sound throughout
        counts = np.bincount(np.concatenate([parts[p][:, 2] for p in drums]))
        same_drum = int(counts.max()) / int(counts.sum())
    sounding = []
    for p in melodic:
        bars_of_part = np.unique(parts[p][:, 0] // bar_ticks)
        sounding.append(len(bars_of_part) / n_bars)
    return {
        "bars": n_bars,
        "onsets_on_grid": round(float(is_on_grid.mean()), 4),
        "notes_per_part": min(len(parts[p]) for p in with_notes),
        "empty_bars": round(1 - len(bars) / n_bars, 4),
        "same_drum": round(same_drum, 4),
        "sounding_bars": round(min(sounding, default=1.0), 4),
    }


def _is_on_grid(onsets: np.ndarray,
                bar_ticks: int,
                steps: int,
                tolerance: int) -> np.ndarray:
    """(N,) bool: which onsets are on a grid of `steps` per bar, or almost.

    Almost: within 1/`tolerance` of a bar, or half a tick.
    """
    away = onsets * steps % bar_ticks  # from the step before, in 1/steps of a tick
    away = np.minimum(away, bar_ticks - away)
    half_tick = steps // 2
    share_of_bar = bar_ticks * steps // tolerance
    return away <= max(half_tick, share_of_bar)


def check_quality(measures: dict[str, float | int],
                  limits: Cleaning,
                  where: str) -> None:
    """Raise UserError naming the first measure that is outside its limit."""
    for name, complaint in COMPLAINTS.items():
        kind, _, measure = name.partition("_")
        value = measures[measure]
        limit = getattr(limits, name)
        if limit is None:
            continue
        is_outside = value < limit if kind == "min" else value > limit
        if is_outside:
            raise UserError(f"{where}: {complaint} ({value:g}, {name} is {limit:g}); set {name} in "
                            f"--config to keep it")


def check_parts(parts: Sequence[np.ndarray],
                vocabulary: Vocabulary,
                allow_missing: bool,
                where: str) -> None:
    """Raise UserError if a part has no notes; where that is allowed, if none has."""
    missing = [name
               for name, notes in zip(vocabulary.part_names, parts, strict=True)
               if not len(notes)]
    is_empty = len(missing) == len(parts)
    if missing and (is_empty or not allow_missing):
        names = " and no ".join(missing)
        raise UserError(f"{where}: no {names}; name or set the programs of such "
                        f"tracks, choose them with --part, or --allow-missing")


# ---------------------------------------------------------------- one song


class Kept(NamedTuple):
    """A piece of a song that is worth learning from."""

    piece: Piece
    n_notes: int  # once tokenized
    measures: dict[str, float | int]


@dataclasses.dataclass(frozen=True)
class CleanSong:
    """The job on one song of a folder: its MIDI files to write, and what the report says."""

    vocabulary: Vocabulary
    cleaning: Cleaning

    def __call__(self, song: Song, source: str) -> Converted:
        """Clean a song. Raises UserError if none of its pieces is to be kept."""
        pieces, lost, about_song = arrange(song, self.vocabulary, self.cleaning, source)
        kept: list[Kept] = []
        left_out = []
        for piece in pieces:
            try:
                good = self._check(piece, song, source)
                kept.append(good)
            except UserError as err:
                if piece is pieces[-1] and not kept:
                    raise
                reason = str(err).removeprefix(f"{source}: ")
                left_out.append({"first_bar": piece.first_bar, "reason": reason})
                lost[PIECES_LEFT_OUT] += piece.n_notes
        tempo = song.main_tempo()  # looks at every note: once
        files = [parts_to_bytes(each.piece.parts, self.vocabulary, song.ticks_per_quarter, tempo)
                 for each in kept]
        n_notes = sum(each.n_notes for each in kept)
        n_struck = sum(each.piece.n_notes for each in kept)
        lost[STRUCK_TWICE] = n_struck - n_notes
        about_files: dict[str, Any] = {
            "first_bars": [each.piece.first_bar for each in kept],
            "quality": [each.measures for each in kept],
        }
        if left_out:
            about_files["pieces_left_out"] = left_out
        return Converted(files, n_notes, about_files, dict(lost), about_song)

    def _check(self, piece: Piece, song: Song, source: str) -> Kept:
        """Measure a piece. Raises UserError if it is to be left out."""
        check_parts(piece.parts, self.vocabulary, self.cleaning.allow_missing, source)
        rows = parts_to_rows(piece.parts, song.ticks_per_quarter, self.vocabulary, source)
        measures = measure_quality(piece.parts, song.ticks_per_quarter, self.vocabulary)
        check_quality(measures, self.cleaning, source)
        return Kept(piece, len(rows), measures)


# ---------------------------------------------------------------- command


def build_parser() -> argparse.ArgumentParser:
    """The command's options."""
    parser = Parser(f"{__doc__}\n{song_choices.OPTIONS}")
    parser.add_argument("inputs",
                        type=Path,
                        nargs="+",
                        metavar="MIDI",
                        help="files and folders to clean")
    parser.add_argument("-o", "--output",
                        type=Path,
                        default=Path("cleaned"),
                        help="folder for the songs (default: %(default)s)")
    parser.add_argument("--config",
                        type=Path,
                        help="JSON with limits and choices; options override it "
                             "(default: those of configs/cleaning.json)")
    parser.add_argument("--allow-missing",
                        action="store_true",
                        help="keep songs that lack some of the parts")
    parser.add_argument("--vocab", type=Path, help="vocabulary JSON (default: configs/vocab.json)")
    song_choices.add_options(parser, Cleaning())
    convert.add_options(parser)
    return parser


@reports_user_errors
def main(argv: Sequence[str] | None = None) -> int:
    """Clean files and folders; returns the exit code."""
    args = build_parser().parse_args(argv)
    vocabulary = load_vocabulary(args.vocab)
    config = config_from_file(Cleaning, args.config) if args.config else Cleaning()
    cleaning = choices_of(args, config, vocabulary)
    if args.allow_missing:
        cleaning = dataclasses.replace(cleaning, allow_missing=True)
    output = convert.Output(args.output, ".mid", "cleaned")
    job = CleanSong(vocabulary, cleaning)
    return convert.run(args, output, job, cleaning, {"vocabulary": vocabulary.to_dict()})


if __name__ == "__main__":
    sys.exit(main())
