"""Learn from raw MIDI how the songs of a model are played, and put that into the model's file.

Input    a model .safetensors; the folders of raw MIDI that its songs were made of (searched
         recursively), with the velocities that clean_midi.py leaves out
Output   the same file with a table of velocities in it, by which generate.py plays what it makes
         (--dynamics); its weights keep their bytes
Example  python dynamics.py mine.safetensors my_midi

Songs held out from the model's training are left out, and so are files struck all at one velocity:
they say nothing of dynamics. (Details: backline/music/dynamics.py.)
"""

from __future__ import annotations

import argparse
import functools
import json
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from backline.common.errors import Parser, UserError, reports_user_errors
from backline.common.files import check_file, check_writable
from backline.engine.model_file import ADAPTED, held_out_names, read_model_file, write_fact
from backline.folders import workers
from backline.folders.inputs import Listing, song_of_piece
from backline.music.choices import DROP, Choices
from backline.music.dynamics import FACT, dynamics_fact
from backline.music.dynamics_learning import Played, learn, played
from backline.music.midi_chunks import MIDI_SUFFIXES
from backline.music.midi_tracks import read_tracks, song_of_tracks
from backline.music.note_velocities import row_velocities, strikes_of_parts
from backline.music.parts import assign_parts
from backline.music.percussion import split_tracks
from backline.music.vocab import Vocabulary
from tokenizer import tokenize

FLAT = "struck at one velocity"
UNREAD = "not in the model's bars and parts, or damaged"
HELD_OUT = "held out from training"


def build_parser() -> argparse.ArgumentParser:
    """The options of the command."""
    parser = Parser(__doc__)
    parser.add_argument("model", type=Path, help="model .safetensors; gets the table")
    parser.add_argument("inputs", type=Path, nargs="+", help="MIDI files and folders of them")
    parser.add_argument("--force",
                        action="store_true",
                        help="replace a table that the model already has")
    workers.add_options(parser)
    return parser


# ---------------------------------------------------------------- songs


def midi_files(inputs: Sequence[Path]) -> Iterator[tuple[str, str]]:
    """(name, path) of each file; the name with its folders, without its suffix."""
    nowhere = Path("dynamics-writes-no-folder")
    for item in Listing(inputs, MIDI_SUFFIXES, nowhere, ""):
        yield item.name, item.source


def held_out_by_name(metadata: dict[str, Any]) -> set[str]:
    """Names, without suffix, of the songs that a model was not trained on; all pieces of a song."""
    return {song_of_piece(name) for name in held_out_names(metadata)}


def is_among(name: str, names: set[str]) -> bool:
    """Whether a file's `name`, or its end from some folder on, is one of `names`.

    A dataset names its songs from the folder on that it was prepared from.
    """
    folders = name.split("/")
    ends = ("/".join(folders[i:]) for i in range(len(folders)))
    return any(end in names for end in ends)


def read_played(path: str, vocabulary: Vocabulary) -> tuple[np.ndarray, np.ndarray]:
    """(N, F) rows of a raw song, and the velocities (N,) they are struck with; 0 where unknown.

    Raises UserError about a song that the vocabulary does not hold.
    """
    midi = split_tracks(read_tracks(path), vocabulary, path)
    song, voices = song_of_tracks(midi, path)
    rows, = tokenize(song, vocabulary, Choices(ranges=DROP), path).rows
    strikes = strikes_of_parts(midi, voices, assign_parts(song, vocabulary))
    return rows, row_velocities(rows, strikes, song.ticks_per_quarter, vocabulary)


def observe(path: str, vocabulary: Vocabulary) -> Played | None:
    """A song to learn from; None if it is struck at one velocity. Raises UserError."""
    rows, velocities = read_played(path, vocabulary)
    return played(rows, velocities, vocabulary)


def observe_all(paths: Sequence[str],
                vocabulary: Vocabulary,
                args: argparse.Namespace) -> tuple[list[Played], Counter[str]]:
    """The songs to learn from, and how many were left out, by reason."""
    job = functools.partial(observe, vocabulary=vocabulary)
    n_workers = workers.worker_count(args.jobs, len(paths))
    outcomes = workers.run_tasks(job, paths, n_workers, args.time_limit)
    songs = []
    left_out: Counter[str] = Counter()
    for outcome in tqdm(outcomes, total=len(paths), unit="song", disable=None):
        if outcome.reason:
            left_out[UNREAD] += 1
        elif outcome.result is None:
            left_out[FLAT] += 1
        else:
            songs.append(outcome.result)
    return songs, left_out


# ---------------------------------------------------------------- command


@reports_user_errors
def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; returns its exit code."""
    args = build_parser().parse_args(argv)
    workers.check_options(args)
    check_file(args.model)
    check_writable(args.model.parent)

    if args.model.suffix != ".safetensors":
        raise UserError(f"{args.model}: not a .safetensors; make one of it with release.py")
    stored = read_model_file(args.model)
    vocabulary, metadata = stored.vocabulary, stored.facts
    if dynamics_fact(metadata) and not args.force:
        raise UserError(f"{args.model}: already has a table of dynamics; --force replaces it")
    held_out = held_out_by_name(metadata)
    files = list(midi_files(args.inputs))
    paths = [path for name, path in files if not is_among(name, held_out)]
    songs, left_out = observe_all(paths, vocabulary, args)
    left_out[HELD_OUT] = len(files) - len(paths)
    counts = ", ".join(f"{n} {reason}" for reason, n in left_out.most_common() if n)
    if not songs:
        raise UserError(f"{args.inputs[0]}: no song to learn dynamics from ({counts}); give raw "
                        "MIDI with velocities")
    table = learn(songs, vocabulary)
    if held_out and not left_out[HELD_OUT] and ADAPTED not in metadata:
        print(f"notice: none of the {len(held_out)} songs held out from {args.model} is among these "
              "files; are they what its songs were made of?", file=sys.stderr)
    write_fact(args.model, FACT, table.to_dict())
    size = len(json.dumps(table.to_dict()))
    print(f"{args.model}: dynamics of {table.n_songs} songs ({', '.join(table.parts)}), "
          f"{size / 1000:.1f} kB" + (f"; left out: {counts}" if counts else ""))
    return 0


if __name__ == "__main__":
    sys.exit(main())
