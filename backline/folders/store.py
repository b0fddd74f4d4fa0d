"""What a long run has done so far: an SQLite file that outlives a killed run.

One run holds it at a time.
"""

from __future__ import annotations

import contextlib
import sqlite3
import time
from collections.abc import Generator, Iterable, Iterator
from pathlib import Path
from typing import Any

from backline.common.errors import UserError

ROWS_AT_ONCE = 1000
SECONDS_PER_COMMIT = 0.3


class Store:
    """A locked SQLite file.

    Whatever goes wrong with it is a UserError that names `place`, the folder it serves.
    """

    def __init__(self, path: Path, place: Path, tables: str) -> None:
        """Open `path`, make it with `tables` (SQL) where it is new, and begin a transaction."""
        self.path = path
        self.place = place
        self.is_new = True
        with self._errors():
            self._db = sqlite3.connect(path, timeout=0, isolation_level=None)
            try:
                self._db.execute("PRAGMA locking_mode = EXCLUSIVE")
                self._db.execute("BEGIN EXCLUSIVE")
                self.is_new = not self._db.execute("SELECT 1 FROM sqlite_master").fetchone()
                if self.is_new:
                    for statement in tables.split(";")[:-1]:
                        self._db.execute(statement)
            except BaseException:
                self._db.close()
                raise
        self._committed = time.monotonic()

    def execute(self, sql: str, values: tuple = ()) -> None:
        """Run a statement, in a transaction that `commit` ends."""
        with self._errors():
            if not self._db.in_transaction:
                self._db.execute("BEGIN")
            self._db.execute(sql, values)

    def execute_many(self, sql: str, rows: Iterable[tuple]) -> None:
        """Run a statement with the values of each row."""
        with self._errors():
            self._db.executemany(sql, rows)

    def first(self, sql: str, values: tuple = ()) -> tuple[Any, ...] | None:
        """The first row of a query's result; None if there is none."""
        with self._errors():
            return self._db.execute(sql, values).fetchone()

    def one(self, sql: str, values: tuple = ()) -> tuple[Any, ...]:
        """The first row of what cannot be empty, such as a count."""
        row = self.first(sql, values)
        assert row is not None
        return row

    def all(self, sql: str, values: tuple = ()) -> Generator[tuple[Any, ...], None, None]:
        """All rows of a query's result, ROWS_AT_ONCE in memory; `close` it to stop early."""
        with self._errors():
            cursor = self._db.execute(sql, values)
        while True:
            with self._errors():
                rows = cursor.fetchmany(ROWS_AT_ONCE)
            if not rows:
                return
            yield from rows

    def is_due(self) -> bool:
        """Whether the last commit was a while ago."""
        return time.monotonic() - self._committed > SECONDS_PER_COMMIT

    def commit(self) -> None:
        """Make what was done survive a kill. Raises UserError if the file was removed meanwhile."""
        with self._errors():
            if self._db.in_transaction:
                self._db.execute("COMMIT")
        self._committed = time.monotonic()
        if not self.path.is_file():
            raise UserError(f"{self.place}: was removed while the run wrote into it; repeat the "
                            f"command")

    def close(self, keep_changes: bool, remove: bool, quiet: bool) -> None:
        """Commit or undo what is open, and remove the file if it is not needed any more.

        `quiet`: another error is on its way, and matters more than one of this.
        """
        ignored = contextlib.suppress(UserError) if quiet else contextlib.nullcontext()
        try:
            with ignored, self._errors():
                if self._db.in_transaction:
                    self._db.execute("COMMIT" if keep_changes else "ROLLBACK")
        finally:
            self._db.close()
            if remove:
                self.path.unlink(missing_ok=True)

    @contextlib.contextmanager
    def _errors(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.Error as err:
            if "locked" in str(err):
                raise UserError(f"{self.place}: another run is writing here; wait for it, or give "
                                f"another place"
                                ) from None
            raise UserError(f"{self.path}: {err}; see that the disk is writable and not full, then "
                            f"repeat the command"
                            ) from None
