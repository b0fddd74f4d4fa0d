"""Make songs of the vocabulary's parts (drums, bass, piano) out of arbitrary multitrack MIDI.

Input    .mid, .midi, .kar and .rmi files, and folders of them (searched recursively)
Output   in the output folder: one .mid per song kept, named as its input was, with one track per part and
         nothing else; report.jsonl with a row per input and logs.txt
Example  python clean_midi.py -o cleaned corpus

A song is kept if all its bars are four quarters long, it fits into the vocabulary's bars, and every part is
there. Notes outside a part's pitch range (--ranges):
  drop   leave the notes out, and the song if a part would lose more than --max-lost of its notes (default)
  octave move bass and piano notes into the range by octaves, drums as with drop
  skip   leave the song out, as the published cleaning did
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from errors import UserError, reports_user_errors
from files import MIDI_SUFFIXES, check_new, check_writable, distinct_outputs, find_files, write_bytes
from midi_reader import read_song
from reports import Report
from songs import assign_parts, check_playable, parts_to_bytes
from tokenizer import MidiTokenizerPooled, describe_tracks
from vocab import Part, Vocabulary, load_vocabulary

RANGES = ("drop", "octave", "skip")
SEMITONES = 12


def fit_range(notes: np.ndarray, part: Part, ranges: str, max_lost: float, where: str) -> tuple[np.ndarray, int]:
    """Bring (N, 3) notes of one part into its pitch range, by the policy `ranges`.

    Returns the notes and how many were left out. Raises UserError if the policy leaves the song out.
    """
    pitch = notes[:, 2]
    outside = (pitch < part.lowest_pitch) | (pitch > part.highest_pitch)
    if ranges == "octave" and not part.is_drum and part.n_pitches >= SEMITONES:
        up = -((pitch - part.lowest_pitch) // SEMITONES) * (pitch < part.lowest_pitch)
        down = -((part.highest_pitch - pitch) // SEMITONES) * (pitch > part.highest_pitch)
        moved = notes.copy()
        moved[:, 2] += SEMITONES * (up - down)
        return moved, 0
    lost = int(outside.sum())
    if ranges == "skip" and lost:
        raise UserError(f"{where}: {part.name} has notes outside pitches {part.lowest_pitch} to "
                        f"{part.highest_pitch} ({lost} of {len(notes)}); --ranges drop leaves out the notes alone")
    if lost > max_lost * len(notes):
        raise UserError(f"{where}: {part.name} has too many notes outside pitches {part.lowest_pitch} to "
                        f"{part.highest_pitch} ({lost} of {len(notes)}); raise --max-lost to keep the song")
    return notes[~outside], lost


def check_parts(parts: list[np.ndarray], vocabulary: Vocabulary, allow_missing: bool, where: str) -> None:
    """Raise UserError if a part has no notes; where that is allowed, if none has."""
    missing = [name for name, notes in zip(vocabulary.part_names, parts, strict=True) if not len(notes)]
    if missing and (not allow_missing or len(missing) == len(parts)):
        raise UserError(f"{where}: no {' and no '.join(missing)}; name or set the programs of such tracks, "
                        f"or --allow-missing")


def clean_file(path: Path, out: Path, vocabulary: Vocabulary, args: argparse.Namespace) -> dict[str, Any]:
    """Clean one song into `out`; returns what the report says of it. Raises UserError if it is left out."""
    song = read_song(path)
    check_playable(song, str(path))
    parts, chosen = assign_parts(song, vocabulary)
    check_parts(parts, vocabulary, args.allow_missing, str(path))  # a part that is missing has no range to report
    fitted = [fit_range(notes, part, args.ranges, args.max_lost, str(path))
              for notes, part in zip(parts, vocabulary.parts, strict=True)]
    parts = [notes for notes, _ in fitted]
    check_parts(parts, vocabulary, args.allow_missing, str(path))
    rows = MidiTokenizerPooled(vocabulary).parts_to_rows(parts, song.ticks_per_quarter, str(path))
    write_bytes(out, parts_to_bytes(parts, vocabulary, song.ticks_per_quarter, song.main_tempo()))
    return {"output": str(out), "notes": len(rows), "tempo": song.main_tempo(),
            "tempo_changes": max(len(song.tempos) - 1, 0),
            "out_of_range": {part.name: lost for part, (_, lost) in zip(vocabulary.parts, fitted, strict=True)},
            **describe_tracks(song, chosen)}


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, allow_abbrev=False,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("inputs", type=Path, nargs="+", metavar="MIDI", help="files and folders to clean")
    parser.add_argument("-o", "--output", type=Path, default=Path("cleaned"),
                        help="folder for the songs (default: %(default)s)")
    parser.add_argument("--ranges", choices=RANGES, default="drop",
                        help="what to do with notes outside a part's range, see above (default: %(default)s)")
    parser.add_argument("--max-lost", type=float, default=0.2,
                        help="largest share of a part's notes that may be left out (default: %(default)s)")
    parser.add_argument("--allow-missing", action="store_true", help="keep songs that lack some of the parts")
    parser.add_argument("--vocab", type=Path, help="vocabulary JSON (default: configs/vocab.json)")
    parser.add_argument("--force", action="store_true", help="overwrite files that exist")
    return parser


@reports_user_errors
def main(argv: Sequence[str] | None = None) -> int:
    args = build_parser().parse_args(argv)
    if not 0 <= args.max_lost <= 1:
        raise UserError(f"--max-lost {args.max_lost} must be a share from 0 to 1")
    vocabulary = load_vocabulary(args.vocab)
    found = find_files(args.inputs, MIDI_SUFFIXES, args.output)
    outputs = [args.output / path for path in distinct_outputs((relative for _, relative in found), ".mid")]
    check_new(outputs, args.force, (path for path, _ in found))
    check_writable(args.output)
    with Report(args.output, "cleaned") as report:
        for (path, _), out in zip(tqdm(found, unit="song", disable=None), outputs, strict=True):
            try:
                report.kept(path, **clean_file(path, out, vocabulary, args))
            except UserError as err:
                report.dropped(path, err)
                out.unlink(missing_ok=True)  # of an earlier run, under --force
    return report.finish()


if __name__ == "__main__":
    sys.exit(main())
