"""Join stems, one MIDI file per part, into one song that tokenizer.py and generate.py read.

Input    .mid files with a word for a part in their name ("My Bass 2.mid", "Rhodes.mid"), in any
         letter case; a part may have no file, or several
Output   OUT_DIR/NAME: one Type-1 .mid in whole bars. It holds every event of every stem, in tracks
         and on channels of their own (drums on channel 10); its tempo, meter and key are those of
         the first stem that has one
Example  python merge_midi.py OUT_DIR drums.mid bass.mid piano.mid -n merged.mid
         python merge_midi.py OUT_DIR 808.mid lead.mid --part bass=808.mid --part piano=lead.mid

All tracks of a stem count, whatever their names and programs. Ranges, long songs and other meters
need no choice here, as nothing is left out: tokenizer.py and generate.py have --ranges,
--long-songs and --meters for what they hear of the song. Nothing is written unless every stem can
be read.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from backline.common.errors import Parser, UserError, reports_user_errors
from backline.common.files import check_new, check_writable, write_bytes
from backline.music.midi_chunks import MIDI_SUFFIXES
from backline.music.midi_tracks import tracks_to_bytes
from backline.music.song import check_tempo
from backline.music.stems import asked_parts, find_part, merge, read_stem
from backline.music.vocab import load_vocabulary


def output_path(folder: Path, name: str) -> Path:
    """`folder`/`name`, with `.mid` added where `name` has no suffix of MIDI.

    Raises UserError if it is no file name.
    """
    if name in ("", "..") or Path(name).name != name:
        raise UserError(f"-n {name}: must be a file name alone; the folder comes first on the "
                        f"command line")
    if Path(name).suffix.lower() not in MIDI_SUFFIXES:
        name = f"{name}.mid"
    return folder / name


def build_parser() -> argparse.ArgumentParser:
    """The command's options."""
    parser = Parser(__doc__)
    parser.add_argument("out_dir",
                        type=Path,
                        metavar="OUT_DIR",
                        help="folder for the song, created if missing")
    parser.add_argument("stems",
                        type=Path,
                        nargs="+",
                        metavar="STEM",
                        help="MIDI files to join")
    parser.add_argument("-n", "--name",
                        default="merged.mid",
                        help="file name of the song (default: %(default)s)")
    parser.add_argument("--part",
                        action="append",
                        default=[],
                        dest="parts",
                        metavar="PART=STEM",
                        help="the part of a stem, by its file name or a pattern ('*lead*'), in "
                             "place of what its name says; once for each")
    parser.add_argument("--tempo",
                        type=float,
                        metavar="BPM",
                        help="in place of the stems' tempos and their changes")
    parser.add_argument("--vocab", type=Path, help="vocabulary JSON (default: configs/vocab.json)")
    parser.add_argument("--quiet",
                        action="store_true",
                        help="no notices: of what was read as what, and what people may not expect")
    parser.add_argument("--force", action="store_true", help="overwrite a song that exists")
    return parser


@reports_user_errors
def main(argv: Sequence[str] | None = None) -> int:
    """Join stems; returns the exit code."""
    args = build_parser().parse_args(argv)
    vocabulary = load_vocabulary(args.vocab)
    out = output_path(args.out_dir, args.name)
    if args.tempo is not None:
        check_tempo(args.tempo, "--tempo")
    asked = asked_parts(args.parts, args.stems, vocabulary)
    stems = []
    for path in args.stems:
        part = asked[path] if path in asked else find_part(path, vocabulary)
        stems.append(read_stem(path, part))
    merged = merge(stems, vocabulary, out.name, args.tempo)
    check_new([out], args.force, args.stems)
    check_writable(args.out_dir)
    for line in [] if args.quiet else merged.notices:
        print(f"notice: {line}", file=sys.stderr)
    write_bytes(out, tracks_to_bytes(merged.midi))
    counts = []
    for part, name in enumerate(vocabulary.part_names):
        n_notes = sum(stem.song.n_notes for stem in stems if stem.part == part)
        counts.append(f"{name} {n_notes}")
    print(f"{out}: {', '.join(counts)} notes")
    return 0


if __name__ == "__main__":
    sys.exit(main())
