"""What a folder run says of each file (`report.jsonl`, and `logs.txt` for people), and has done.

While a run goes on, its rows lie in a small SQLite file in the output folder. So a run that is
killed goes on where it was, one that is repeated does only what is new, two at once do not mix, and
a million rows need no memory.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import orjson

from backline.common.errors import UserError
from backline.common.files import replacing, size_and_mtime
from backline.folders.inputs import WHOLE, Input, Listing, Shard, piece_path
from backline.folders.store import Store

KEPT, DROPPED = "kept", "dropped"
NO_RESULT = "no_result"  # marks the row of a file that no worker brought to an end
# `place` orders the rows. It is an input's number in this run. Rows that are no input of it come
# first, with negative places: those of a finished run, then those of this run when it was stopped.
FINISHED = 1 << 40
STOPPED = 1 << 30
PLANNED = b""  # the row of an input that is still to do
TABLES = """
CREATE TABLE about (settings TEXT NOT NULL, forced INTEGER NOT NULL);
CREATE TABLE rows (source BLOB PRIMARY KEY, place INTEGER NOT NULL, mtime_ns INTEGER NOT NULL,
                   row BLOB NOT NULL);
"""
INSERT = "INSERT OR REPLACE INTO rows VALUES (?, ?, ?, ?)"


class Report:
    """The rows of one folder; use it in a `with` block, which holds the folder's lock."""

    def __init__(self,
                 folder: Path,
                 verb: str,
                 settings: dict[str, Any],
                 shard: Shard = WHOLE,
                 force: bool = False) -> None:
        """`settings`: all that decides what becomes of a file.

        `force`: files of other runs may be overwritten.
        """
        self.folder = folder
        self.verb = verb
        self.shard = shard
        self.force = force
        ordered = orjson.dumps(settings, option=orjson.OPT_SORT_KEYS)
        self.settings = hashlib.sha256(ordered).hexdigest()[:12]
        self.path, self.log, self.store_path = report_paths(folder, shard)
        self.n_done = 0
        self._continues = False  # an unfinished run
        self._is_planned = False
        self._is_finished = False

    # ------------------------------------------------ the store

    def __enter__(self) -> Report:
        self._store = Store(self.store_path, self.folder, TABLES)
        try:
            self._begin()
        except BaseException as err:
            self.__exit__(type(err))
            raise
        return self

    def _begin(self) -> None:
        """Continue an unfinished run, or begin one, knowing what a finished one left."""
        if not self._store.is_new:
            settings, forced = self._store.one("SELECT settings, forced FROM about")
            self._continues = True
            if settings == self.settings:
                self.force = bool(forced)
                return
            if not self.force:
                raise UserError(f"{self.folder}: an unfinished run with other settings lies here; "
                                f"repeat its command to finish it, give another folder, or --force "
                                f"to begin again")
            self._store.execute("DELETE FROM about")
            self._store.execute("DELETE FROM rows")
        self._store.execute("INSERT INTO about VALUES (?, ?)", (self.settings, self.force))
        if self.path.is_file():
            self._import_finished()

    def _import_finished(self) -> None:
        """Take over the rows of a finished run."""
        finished_ns = self.path.stat().st_mtime_ns
        with open(self.path, "rb") as file:
            try:
                self._store.execute_many(INSERT, _finished_rows(file, finished_ns))
            except (orjson.JSONDecodeError, KeyError, TypeError):
                raise UserError(f"{self.path}: not a report of an earlier run; move it away, or "
                                f"give another folder for the output") from None

    def __exit__(self, kind: type | None, *exc: object) -> None:
        """Keep what was done. A run that was refused by `plan` leaves things as they were."""
        is_refused = not (self._is_planned or self._continues)
        self._store.close(self._is_planned,
                          remove=self._is_finished or is_refused,
                          quiet=kind is not None)

    # ------------------------------------------------ a run

    def plan(self, listing: Listing) -> int:
        """Find out which inputs are done, before work begins; returns how many there are in all.

        Raises UserError if the run would replace a file that is not its own.
        """
        self._store.execute("UPDATE rows SET place = place - ? WHERE place > 0", (STOPPED,))
        total = 0
        stale: list[Path] = []  # pieces that a changed song may not have any more
        for total, item in enumerate(self.shard.of_inputs(listing), 1):
            key = os.fsencode(item.source)
            found = self._store.first(
                "SELECT place, mtime_ns, row FROM rows WHERE source = ?", (key,))
            place, finished_ns, line = found or (0, 0, PLANNED)
            row = orjson.loads(line) if line else {}
            is_new = place >= -STOPPED
            if row and self._is_done(item,
                                     row,
                                     is_new=is_new,
                                     finished_ns=finished_ns):
                self._store.execute("UPDATE rows SET place = ? WHERE source = ?", (total, key))
                self.n_done += 1
                continue
            was_planned = found is not None and not row  # its file may be written, and its row not
            outputs = row.get("outputs", ())
            own = outputs if row.get("settings") == self.settings else ()
            self._check_outputs(item, listing, own, may_overwrite=self.force or was_planned)
            stale += [self.folder / name for name in outputs[1:]]
            self._store.execute(INSERT, (key, total, 0, PLANNED))
        self._store.commit()
        self._is_planned = True
        for path in stale:
            path.unlink(missing_ok=True)
        return total

    def _is_done(self,
                 item: Input,
                 row: dict[str, Any],
                 is_new: bool,
                 finished_ns: int) -> bool:
        """Whether a row still holds: same settings, input unchanged since, outputs there."""
        if row.get("settings") != self.settings or NO_RESULT in row:
            return False
        if self.force and not is_new:
            return False
        size, changed_ns = size_and_mtime(item.source)
        if changed_ns > finished_ns or size != row["bytes"]:
            return False
        n_outputs = len(row.get("outputs", ()))
        outputs = [piece_path(item.output, k) for k in range(n_outputs)]
        return all(map(os.path.isfile, outputs))

    def _check_outputs(self,
                       item: Input,
                       listing: Listing,
                       own: Sequence[str],
                       may_overwrite: bool) -> None:
        """Raise UserError if an output is there that may not be written.

        `own` are the outputs made of an older version of the input.
        """
        names = [item.name]
        if listing.keep_pieces_free:
            while os.path.lexists(piece_path(item.output, len(names))):
                names.append(piece_path(item.name, len(names)))
        for name in names:
            output = self.folder / name
            if not os.path.lexists(output):
                continue
            if listing.holds(output):
                raise UserError(f"{output} would replace the file it is made of, or another input; "
                                f"give another folder for the output")
            if output.is_dir():
                raise UserError(f"{output}: a folder, where a file is to be written; give another "
                                f"place")
            if not (may_overwrite or name in own):
                raise UserError(f"{output} exists already, and not made from this path with these "
                                f"settings; repeat the earlier command, give another place, or "
                                f"--force to overwrite")

    def pending(self, listing: Listing) -> Iterator[tuple[int, Input]]:
        """The inputs that are still to do, with their places."""
        for place, item in enumerate(self.shard.of_inputs(listing), 1):
            key = os.fsencode(item.source)
            found = self._store.first("SELECT row FROM rows WHERE source = ?", (key,))
            if found == (PLANNED,):
                yield place, item

    def add(self,
            place: int,
            source: str,
            row: bytes,
            mtime_ns: int) -> None:
        """Record what became of an input; `mtime_ns` is when it was last changed."""
        self._store.execute(INSERT, (os.fsencode(source), place, mtime_ns, row))
        self.n_done += 1
        if self._store.is_due():
            self._store.commit()

    # ------------------------------------------------ the end

    def rows(self) -> Iterator[tuple[bool, bytes]]:
        """Every row in order, and whether it is of this run's inputs."""
        found = self._store.all(
            "SELECT place, row FROM rows WHERE row != ? ORDER BY place", (PLANNED,))
        for place, row in found:
            yield place > 0, row

    def finish(self) -> Summary:
        """Write the two files; returns what they say in all."""
        summary = write_report(self.path, self.log, self.rows(), self.folder, self.verb)
        self._is_finished = True
        return summary


def _finished_rows(lines: Iterable[bytes],
                   finished_ns: int) -> Iterator[tuple[bytes, int, int, bytes]]:
    """Rows of the store, from the lines of a report."""
    for number, line in enumerate(lines):
        row = line.rstrip(b"\n")
        yield _source_bytes(orjson.loads(row)), number - FINISHED, finished_ns, row


def _source_bytes(row: dict[str, Any]) -> bytes:
    """The path of an input as the file system has it, which may be no Unicode."""
    if "source_bytes" in row:
        return bytes.fromhex(row["source_bytes"])
    return os.fsencode(row["source"])


# ---------------------------------------------------------------- the report


class Summary:
    """Counts over the rows of a report.

    Of rows that runs before left there, of other inputs, only the kept ones count, apart.
    """

    def __init__(self, folder: Path, verb: str) -> None:
        self.folder = folder
        self.verb = verb
        self.n_rows = 0
        self.n_kept = 0
        self.n_others = 0
        self.first_reason = ""
        self.reasons: Counter[str] = Counter()
        self.notes: Counter[str] = Counter()  # kept, and lost by reason

    def add(self, row: dict[str, Any]) -> None:
        """Count a row of this run's inputs."""
        self.n_rows += 1
        self.notes.update(row.get("lost", {}))
        if row["verdict"] == KEPT:
            self.n_kept += 1
            self.notes[KEPT] += row["notes"]
        else:
            self.reasons[reason_kind(row["reason"])] += 1
            if not self.first_reason:
                self.first_reason = f"{row['source']}: {row['reason']}"

    def text(self) -> str:
        """Files kept, files left out by reason, most frequent first, and where the notes went."""
        lines = [f"{self.n_kept:,} of {self.n_rows:,} files {self.verb} into {self.folder}"]
        for kind, count in self.reasons.most_common():
            lines.append(f"{count:12,d}  {count / self.n_rows:6.1%}  left out: {kind}")
        total = self.notes.total()
        if total:
            lines.append(f"{self.notes[KEPT]:,} of {total:,} notes kept")
            for kind, count in self.notes.most_common():
                if count and kind != KEPT:
                    lines.append(f"{count:12,d}  {count / total:6.1%}  {kind}")
        if self.n_others:
            lines.append(f"beside them {self.folder} holds {self.n_others:,} {self.verb} before, "
                         f"from other files; remove what you do not want read on")
        return "\n".join(lines)

    def finish(self) -> int:
        """Print the table; returns the run's exit code. Raises UserError if nothing was kept."""
        if not self.n_kept and self.n_rows == 1:
            raise UserError(self.first_reason)
        if not self.n_kept:
            raise UserError(f"none of {self.n_rows} files could be {self.verb}; reasons are in "
                            f"{report_paths(self.folder)[1]}, the first: {self.first_reason}")
        print(self.text())
        return 0


def report_paths(folder: Path, shard: Shard = WHOLE) -> tuple[Path, Path, Path]:
    """Report, log and store of a run, or of one shard of it."""
    of_shard = "" if shard.of == 1 else f"-{shard.number}-of-{shard.of}"
    return (folder / f"report{of_shard}.jsonl",
            folder / f"logs{of_shard}.txt",
            folder / f".report{of_shard}.sqlite")


def merge_shards(folder: Path,
                 verb: str,
                 of: int,
                 listing: Listing) -> Summary | None:
    """Join the reports of `of` shards into that of the whole run, rows in the order of the inputs.

    Returns None while a shard has not finished.
    """
    shards = [Shard(number, of) for number in range(1, of + 1)]
    paths = [report_paths(folder, shard) for shard in shards]
    if any(store.exists() or not report.is_file() for report, _, store in paths):
        return None
    report, log, _ = report_paths(folder)
    with contextlib.ExitStack() as stack:
        lines: dict[Shard, Iterator[bytes]] = {}
        for shard, (of_shard, _, _) in zip(shards, paths, strict=True):
            file = stack.enter_context(open(of_shard, "rb"))
            lines[shard] = (line.rstrip(b"\n") for line in file)
        return write_report(report, log, _in_order_of_inputs(listing, lines), folder, verb)


def _in_order_of_inputs(listing: Listing,
                        lines: dict[Shard, Iterator[bytes]]) -> Iterator[tuple[bool, bytes]]:
    """The shards' rows; those of inputs that are gone come along, and do not count."""
    for item in listing:
        of_shard = next(rows
                        for shard, rows in lines.items()
                        if shard.has(item))
        for line in of_shard:
            counts = _source_bytes(orjson.loads(line)) == os.fsencode(item.source)
            yield counts, line
            if counts:
                break


def write_report(path: Path,
                 log: Path,
                 rows: Iterable[tuple[bool, bytes]],
                 folder: Path,
                 verb: str) -> Summary:
    """Write `report.jsonl` and `logs.txt` of (counted or not, row) pairs."""
    summary = Summary(folder, verb)
    with replacing(log) as log_file, replacing(path) as file:
        for counted, line in rows:
            row = orjson.loads(line)
            file.write(line + b"\n")
            what = row.get("reason") or f"{verb}, {row['notes']} notes"
            log_file.write(f"{row['source']}: {what}\n".encode("utf-8", "replace"))
            if counted:
                summary.add(row)
            else:
                outputs = row.get("outputs", ())
                summary.n_others += any((folder / name).is_file() for name in outputs)
        log_file.write(f"{summary.text()}\n".encode("utf-8", "replace"))
    return summary


def reason_kind(reason: str) -> str:
    """A reason without place, remedy and details in brackets, so that equal ones count together."""
    text = re.sub(r"^bar \d+: ", "", reason)
    text = re.split(r"[;:(]", text)[0].strip()
    return re.sub(r"\b(bar|pitch|quarter) \d+", r"\1 N", text)
