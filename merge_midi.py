"""Join stems, one MIDI file per part, into one song that tokenizer.py and generate.py read.

Input    .mid files with the name of a part, or a word for it, in their own ("My Bass 2.mid",
         "Rhodes keys.mid"), in any letter case; a part may have no file, or several, which are
         joined
Output   OUT_DIR/NAME: one Type-1 .mid with a track for each part, at the tempo of the first stem
         that has one
Example  python merge_midi.py OUT_DIR drums.mid bass.mid piano.mid -n merged.mid

All tracks of a stem count, whatever their names and programs. Nothing is written unless every stem
can be read.
"""

from __future__ import annotations

import argparse
import math
import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from backline.common.errors import Parser, UserError, reports_user_errors
from backline.common.files import check_new, check_writable, write_bytes
from backline.music.bars import check_playable
from backline.music.midi_reader import MIDI_SUFFIXES, read_song
from backline.music.midi_writer import end_at_next_onset, parts_to_bytes
from backline.music.roles import names_other_instrument, parts_named
from backline.music.song import DEFAULT_TEMPO, MAX_TICKS_PER_QUARTER, NO_NOTES, Song
from backline.music.vocab import Vocabulary, load_vocabulary

MAX_TICK = 0xFFFFFFF  # 28 bits of a MIDI delta time: later notes could not be written


class Stem(NamedTuple):
    """A stem's song, and the index of its part in the vocabulary."""

    path: Path
    song: Song
    part: int


def find_part(path: Path, vocabulary: Vocabulary) -> int:
    """Index of the part that the file's name names, by its words and their synonyms.

    Where no word does, and none names another instrument, the part's name may stand inside a
    longer word; spaces and hyphens count as underscores. A name inside a longer one does not count
    ("synth_lead.mid" is no "lead"), but it does beside it.

    Raises:
        UserError: no part's name, or more than one, with the list of parts.
    """
    names = vocabulary.part_names
    found = sorted(names.index(name) for name in parts_named(path.stem, vocabulary))
    if not found and not names_other_instrument(path.stem, vocabulary):
        found = _parts_within(path.stem, names)
    if len(found) == 1:
        return found[0]
    holds = "no part's name"
    if found:
        holds = " and ".join(names[p] for p in found)
    raise UserError(f"{path}: its file name holds {holds}; rename it to hold one of the parts: "
                    f"{', '.join(names)}")


def _parts_within(text: str, names: Sequence[str]) -> list[int]:
    """Indices of the parts whose names occur in a text, not inside one another."""
    plain_names = [_plain(name) for name in names]
    places = _occurrences(_plain(text), plain_names)
    return sorted({place.part
                   for place in places
                   if not _is_inside_another(place, places)})


class Occurrence(NamedTuple):
    """Where in a text the name of a part stands: from `start` to before `end`."""

    start: int
    end: int
    part: int


def _occurrences(text: str, names: Sequence[str]) -> list[Occurrence]:
    """Every place of every name, also where they overlap."""
    found = []
    for part, name in enumerate(names):
        anywhere = f"(?={re.escape(name)})"
        for match in re.finditer(anywhere, text):
            start = match.start()
            found.append(Occurrence(start, start + len(name), part))
    return found


def _is_inside_another(place: Occurrence, places: Sequence[Occurrence]) -> bool:
    length = place.end - place.start
    around = [other
              for other in places
              if other.start <= place.start and place.end <= other.end]
    lengths = (other.end - other.start for other in around)
    return any(other > length for other in lengths)


def _plain(name: str) -> str:
    folded = name.casefold()
    return re.sub(r"[\s-]", "_", folded)


def read_stem(path: Path, vocabulary: Vocabulary) -> Stem:
    """Read one stem.

    Raises UserError: unreadable, without notes, bars that are not four quarters long, no part.
    """
    song = read_song(path)
    check_playable(song, str(path))
    part = find_part(path, vocabulary)
    return Stem(path, song, part)


def common_ticks_per_quarter(resolutions: Sequence[int]) -> int:
    """The least common multiple, in which every stem is exact, or else the finest.

    MIDI cannot hold every multiple.
    """
    multiple = math.lcm(*resolutions)
    if multiple > MAX_TICKS_PER_QUARTER:
        return max(resolutions)
    return multiple


def rescale(notes: np.ndarray, old: int, new: int) -> np.ndarray:
    """A copy of (N, 3) notes in `new` ticks per quarter instead of `old`.

    Times go to the nearest tick, a tie down. No note gets length zero as long as `new` is not the
    coarser one.
    """
    ticks = notes[:, :2]
    scaled = notes.copy()
    numerator = old - 2 * new * ticks
    scaled[:, :2] = -(numerator // (2 * old))
    return scaled


def join(stems: Sequence[Stem], vocabulary: Vocabulary) -> tuple[list[np.ndarray], int]:
    """Notes of each part, as a MIDI file can hold them, and their ticks per quarter.

    Raises UserError if a note would end later than a MIDI file can say.
    """
    resolutions = [stem.song.ticks_per_quarter for stem in stems]
    new = common_ticks_per_quarter(resolutions)
    of_parts = [[NO_NOTES] for _ in vocabulary.parts]
    for stem in stems:
        old = stem.song.ticks_per_quarter
        if stem.song.end_tick * new > MAX_TICK * old:
            last_quarter = stem.song.end_tick // old
            raise UserError(f"{stem.path}: its last note ends at quarter {last_quarter}, too late "
                            f"for a file with {new} ticks per quarter; cut the stem, or export all "
                            f"with the same ticks")
        of_parts[stem.part] += [rescale(track.notes, old, new)
                                for track in stem.song.tracks]
    joined = [np.concatenate(notes) for notes in of_parts]
    return [end_at_next_onset(notes) for notes in joined], new


def choose_tempo(stems: Sequence[Stem]) -> float:
    """Main tempo of the first stem that has one, in beats per minute."""
    for stem in stems:
        if stem.song.tempos:
            return stem.song.main_tempo()
    return DEFAULT_TEMPO


def notices(stems: Sequence[Stem],
            vocabulary: Vocabulary,
            tempo: float) -> list[str]:
    """What the user may not have meant: stems that share a part, or that have another tempo."""
    lines = []
    for p, name in enumerate(vocabulary.part_names):
        sharing = [str(stem.path) for stem in stems if stem.part == p]
        if len(sharing) > 1:
            paths = " and ".join(sharing)
            lines.append(f"{paths} are joined into one part, {name}")
    for stem in stems:
        own_tempo = stem.song.main_tempo()
        if stem.song.tempos and own_tempo != tempo:
            lines.append(f"{stem.path}: its tempo {own_tempo:g} is left out, the song's is "
                         f"{tempo:g}")
    return lines


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
    parser.add_argument("--vocab", type=Path, help="vocabulary JSON (default: configs/vocab.json)")
    parser.add_argument("--force", action="store_true", help="overwrite a song that exists")
    return parser


@reports_user_errors
def main(argv: Sequence[str] | None = None) -> int:
    """Join stems; returns the exit code."""
    args = build_parser().parse_args(argv)
    vocabulary = load_vocabulary(args.vocab)
    out = output_path(args.out_dir, args.name)
    stems = [read_stem(path, vocabulary) for path in args.stems]
    notes, ticks_per_quarter = join(stems, vocabulary)
    tempo = choose_tempo(stems)
    check_new([out], args.force, args.stems)
    check_writable(args.out_dir)
    for line in notices(stems, vocabulary, tempo):
        print(f"notice: {line}", file=sys.stderr)
    midi = parts_to_bytes(notes, vocabulary, ticks_per_quarter, tempo)
    write_bytes(out, midi)
    counts = [f"{name} {len(rows)}"
              for name, rows in zip(vocabulary.part_names, notes, strict=True)]
    print(f"{out}: {', '.join(counts)} notes")
    return 0


if __name__ == "__main__":
    sys.exit(main())
