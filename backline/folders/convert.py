"""A command that makes something of every file in some folders: its options, its workers, its report.

`clean_midi.py` and `tokenizer.py` are such commands. A run can be killed at any moment and repeated: it goes on where
it was, and ends with the same files, whatever the number of workers.
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
from typing import Any

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
from backline.folders.inputs import WHOLE, Listing, Shard, Task, of_piece
from backline.folders.report import DROPPED, KEPT, NO_RESULT, Report, merge_shards
from backline.music.choices import Choices
from backline.music.midi_reader import LARGEST_FILE, MIDI_SUFFIXES, read_song
from backline.music.song import Song

LEFT_OUT = "in files left out"
BAD_NAME = errno.ENAMETOOLONG, errno.EINVAL, errno.EILSEQ  # the fault of one file, not of the disk

# What a song becomes: (song, its path for messages) → contents of the files, and facts for the report, `notes` and
# `lost` among them. Raises UserError if nothing is made of it.
Convert = Callable[[Song, str], tuple[list[bytes], dict[str, Any]]]


@dataclasses.dataclass(frozen=True)
class FileJob:
    """The job of a worker; returns the report's row as JSON, and when the input was last changed (ns)."""

    convert: Convert
    settings: str

    def __call__(self, numbered: tuple[int, Task]) -> tuple[bytes, int]:
        task = numbered[1]
        facts: dict[str, Any] = {"bytes": None, "sha256": None}
        mtime_ns, contents, lost = 0, [], {}
        try:
            facts["bytes"], mtime_ns = size_and_mtime(task.source)
            data = read_input(Path(task.source), LARGEST_FILE)
            facts["sha256"] = hashlib.sha256(data).hexdigest()
            song = read_song(task.source, data)
            lost = {LEFT_OUT: song.n_notes}
            contents, more = self.convert(song, task.source)
            facts |= {"verdict": KEPT, "outputs": [of_piece(task.name, k) for k in range(len(contents))], **more}
        except UserError as err:
            facts |= _dropped(task, str(err)) | {"lost": lost}
        try:
            for k, content in enumerate(contents):
                write_bytes(Path(of_piece(task.output, k)), content, make_parents=False)
        except OSError as err:
            if err.errno not in BAD_NAME:
                raise  # a full disk, say: the others would fare no better
            facts = {"bytes": facts["bytes"], "sha256": facts["sha256"], "lost": lost,
                     **_dropped(task, f"its output cannot have this name ({err.strerror}); rename the file")}
        if facts["verdict"] == DROPPED:
            _remove_old(task)
        return self._row(task, facts), mtime_ns

    def lost(self, task: Task, reason: str) -> tuple[bytes, int]:
        """The same for a file that no worker brought to an end; the next run tries it again."""
        _remove_old(task)
        try:
            (size, mtime_ns), sha256 = size_and_mtime(task.source), file_hash(Path(task.source))
        except (UserError, OSError):  # it is gone, too
            size, mtime_ns, sha256 = None, 0, None
        return self._row(task, {"bytes": size, "sha256": sha256, **_dropped(task, reason), NO_RESULT: True}), mtime_ns

    def _row(self, task: Task, facts: dict[str, Any]) -> bytes:
        row = {"source": task.source, "settings": self.settings, **facts}
        if _is_no_unicode(task.source):  # JSON cannot hold such a name
            row["source_bytes"] = os.fsencode(task.source).hex()
        return json_bytes(row)


def _is_no_unicode(text: str) -> bool:
    return text != text.encode("utf-8", "replace").decode("utf-8")


def _remove_old(task: Task) -> None:
    """Remove what an earlier run made of the same input, under --force."""
    with contextlib.suppress(OSError):
        Path(task.output).unlink()


def _dropped(task: Task, reason: str) -> dict[str, Any]:
    return {"verdict": DROPPED, "reason": reason.removeprefix(f"{task.source}: ")}


def add_options(parser: argparse.ArgumentParser) -> None:
    """The options of every folder run."""
    workers.add_options(parser)
    parser.add_argument("--shard", type=Shard.parse, default=WHOLE, metavar="K/N",
                        help="do the K-th of N parts, on one of N machines; the last to finish joins the reports")
    parser.add_argument("--force", action="store_true", help="overwrite files that exist")


def run(args: argparse.Namespace, folder: Path, new_suffix: str, verb: str, convert: Convert, choices: Choices,
        **settings: Any) -> int:
    """Convert every song of `args.inputs` into `folder`; returns the exit code of the command.

    Args:
        args: parsed `add_options`, and `inputs`.
        settings: what decides, besides `choices`, what a file becomes; a folder holds the results of one set of them.
    """
    workers.check_options(args)
    listing = Listing(args.inputs, MIDI_SUFFIXES, folder, new_suffix, keep_pieces_free=choices.cuts)
    check_writable(folder)
    with Report(folder, verb, settings | dataclasses.asdict(choices), args.shard, args.force) as report:
        total = report.plan(listing)
        if report.n_done:
            print(f"notice: {report.n_done} of {total} files were {verb} before", file=sys.stderr)
        with tqdm(total=total, initial=report.n_done, unit="song", disable=None) as progress:
            try:
                _run(report, listing, FileJob(convert, report.settings), args, progress)
            except KeyboardInterrupt:
                raise KeyboardInterrupt(f"interrupted after {report.n_done} of {total} files; the same command goes on "
                                        f"from there") from None
        summary = report.finish()
    if args.shard.of > 1:
        print(summary.text())
        summary = merge_shards(folder, verb, args.shard.of, listing)
    return summary.finish() if summary else 0


def _run(report: Report, listing: Listing, job: FileJob, args: argparse.Namespace, progress: tqdm) -> None:
    """Do what is pending, in order. Workers make no folders, so that one that is removed meanwhile is noticed."""
    made: set[str] = set()

    def pending() -> Iterator[tuple[int, Task]]:
        for place, task in report.pending(listing):
            folder = os.path.dirname(task.output)
            if folder not in made:
                make_folder(Path(folder))
                made.add(folder)
            yield place, task

    n_workers = workers.enough(args.jobs, progress.total - report.n_done)
    for (place, task), result, reason in workers.run(job, pending(), n_workers, args.time_limit):
        row, mtime_ns = result or job.lost(task, reason)
        report.add(place, task.source, row, mtime_ns)
        progress.update()
