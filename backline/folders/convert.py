"""Make something of every song in some folders: options, workers and report of such a command.

`clean_midi.py` and `tokenizer.py` are such commands. A run can be killed at any moment and
repeated: it goes on where it was, and ends with the same files, whatever the number of workers.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import errno
import hashlib
import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

from tqdm import tqdm

from backline.common.errors import UserError
from backline.common.files import (
    check_writable,
    file_hash,
    json_bytes,
    make_folder,
    read_input,
    size_and_mtime,
    write_bytes,
)
from backline.folders import workers
from backline.folders.inputs import WHOLE, Input, Listing, Shard, piece_path
from backline.folders.report import DROPPED, KEPT, NO_RESULT, Report, merge_shards
from backline.music.choices import Choices
from backline.music.midi_chunks import LARGEST_FILE, MIDI_SUFFIXES
from backline.music.midi_reader import read_song
from backline.music.song import Song

LEFT_OUT = "in files left out"
BAD_NAME = errno.ENAMETOOLONG, errno.EINVAL, errno.EILSEQ  # the fault of one file, not of the disk


class Converted(NamedTuple):
    """What a song became: the files to write, and what the report says."""

    files: list[bytes]  # one for each piece the song is cut into
    n_notes: int  # in all files together
    about_files: dict[str, Any]
    lost: dict[str, int]  # notes left out, by reason
    about_song: dict[str, Any]

    def row(self, names: list[str]) -> dict[str, Any]:
        """Its entries in the report; `names` are those of the files."""
        return {
            "verdict": KEPT,
            "outputs": names,
            "notes": self.n_notes,
            **self.about_files,
            "lost": self.lost,
            **self.about_song,
        }


# (song, its path for messages) → what it became. Raises UserError if the song is to be left out.
Convert = Callable[[Song, str], Converted]


class Output(NamedTuple):
    """Where a run writes, and the word for what it does."""

    folder: Path
    suffix: str  # of every file
    verb: str  # "tokenized"


# ---------------------------------------------------------------- one file


@dataclasses.dataclass(frozen=True)
class FileJob:
    """The job of a worker.

    It returns the report's row as JSON, and when the input was last changed, in nanoseconds.
    """

    convert: Convert
    settings: str

    def __call__(self, numbered: tuple[int, Input]) -> tuple[bytes, int]:
        """Read, convert and write one input."""
        _, item = numbered
        about_input: dict[str, Any] = {"bytes": None, "sha256": None}
        mtime_ns = 0
        files: list[bytes] = []
        lost: dict[str, int] = {}
        try:
            about_input["bytes"], mtime_ns = size_and_mtime(item.source)
            data = read_input(Path(item.source), LARGEST_FILE)
            about_input["sha256"] = hashlib.sha256(data).hexdigest()
            song = read_song(item.source, data)
            lost = {LEFT_OUT: song.n_notes}
            converted = self.convert(song, item.source)
            files = converted.files
            outputs = [piece_path(item.name, k) for k in range(len(files))]
            result = converted.row(outputs)
        except UserError as err:
            result = _dropped(item, str(err)) | {"lost": lost}
        try:
            for k, content in enumerate(files):
                write_bytes(Path(piece_path(item.output, k)), content, make_parents=False)
        except OSError as err:
            if err.errno not in BAD_NAME:
                raise  # a full disk, say: other files would fare no better
            reason = f"its output cannot have this name ({err.strerror}); rename the file"
            result = {"lost": lost} | _dropped(item, reason)
        if result["verdict"] == DROPPED:
            _remove_old(item)
        return self._row(item, about_input | result), mtime_ns

    def without_result(self, item: Input, reason: str) -> tuple[bytes, int]:
        """What `__call__` returns, for a file that no worker brought to an end.

        The next run tries it again.
        """
        _remove_old(item)
        try:
            size, mtime_ns = size_and_mtime(item.source)
            sha256 = file_hash(Path(item.source))
        except (UserError, OSError):  # the file is gone, too
            size, mtime_ns, sha256 = None, 0, None
        about_input = {"bytes": size, "sha256": sha256}
        return self._row(item, about_input | _dropped(item, reason) | {NO_RESULT: True}), mtime_ns

    def _row(self, item: Input, facts: dict[str, Any]) -> bytes:
        row = {"source": item.source, "settings": self.settings, **facts}
        if not _is_unicode(item.source):  # JSON cannot hold such a name
            row["source_bytes"] = os.fsencode(item.source).hex()
        return json_bytes(row)


def _is_unicode(text: str) -> bool:
    return text == text.encode("utf-8", "replace").decode("utf-8")


def _remove_old(item: Input) -> None:
    """Remove what an earlier run made of the same input, under --force."""
    with contextlib.suppress(OSError):
        Path(item.output).unlink()


def _dropped(item: Input, reason: str) -> dict[str, Any]:
    return {"verdict": DROPPED, "reason": reason.removeprefix(f"{item.source}: ")}


# ---------------------------------------------------------------- a run


def add_options(parser: argparse.ArgumentParser) -> None:
    """The options of every folder run."""
    workers.add_options(parser)
    parser.add_argument("--shard",
                        type=Shard.parse,
                        default=WHOLE,
                        metavar="K/N",
                        help="process the K-th of N parts, for N machines; the last to finish "
                             "joins the reports")
    parser.add_argument("--force", action="store_true", help="overwrite files that exist")


def run(args: argparse.Namespace,
        output: Output,
        convert: Convert,
        choices: Choices,
        settings: dict[str, Any]) -> int:
    """Convert every song of `args.inputs`; returns the exit code of the command.

    Args:
        args: parsed `add_options`, and `inputs`.
        settings: what decides, besides `choices`, what a file becomes. A folder holds the results
            of one set of them.
    """
    workers.check_options(args)
    listing = Listing(args.inputs,
                      MIDI_SUFFIXES,
                      output.folder,
                      output.suffix,
                      keep_pieces_free=choices.cuts)
    check_writable(output.folder)
    all_settings = settings | dataclasses.asdict(choices)
    with Report(output.folder, output.verb, all_settings, args.shard, args.force) as report:
        total = report.plan(listing)
        if report.n_done:
            print(f"notice: {report.n_done} of {total} files were {output.verb} before",
                  file=sys.stderr)
        with tqdm(total=total,
                  initial=report.n_done,
                  unit="song",
                  disable=None) as progress:
            try:
                _run(report, listing, FileJob(convert, report.settings), args, progress)
            except KeyboardInterrupt:
                raise KeyboardInterrupt(f"interrupted after {report.n_done} of {total} files; the "
                                        f"same command goes on from there") from None
        summary = report.finish()
    if args.shard.of == 1:
        return summary.finish()
    print(summary.text())
    whole = merge_shards(output.folder, output.verb, args.shard.of, listing)
    return whole.finish() if whole else 0


def _run(report: Report,
         listing: Listing,
         job: FileJob,
         args: argparse.Namespace,
         progress: tqdm) -> None:
    """Do what is pending, in order.

    Workers make no folders, so that one that is removed meanwhile is noticed.
    """
    made: set[str] = set()

    def pending() -> Iterator[tuple[int, Input]]:
        """Place and file of what is to be done; the folder of its output is there."""
        for place, item in report.pending(listing):
            folder = os.path.dirname(item.output)
            if folder not in made:
                make_folder(Path(folder))
                made.add(folder)
            yield place, item

    n_workers = workers.worker_count(args.jobs, progress.total - report.n_done)
    outcomes = workers.run_tasks(job, pending(), n_workers, args.time_limit)
    for (place, item), result, reason in outcomes:
        row, mtime_ns = result or job.without_result(item, reason)
        report.add(place, item.source, row, mtime_ns)
        progress.update()
