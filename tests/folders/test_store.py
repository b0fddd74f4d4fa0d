"""The locked SQLite file that outlives a killed run."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from commands import ROOT

from backline.common.errors import UserError
from backline.folders import store
from backline.folders.store import Store

TABLES = "CREATE TABLE t (x INTEGER PRIMARY KEY); CREATE TABLE u (y);"


def opened(folder: Path) -> Store:
    return Store(folder / "s.sqlite", folder, TABLES)


def numbers(of: Store) -> list[int]:
    return [x for x, in of.all("SELECT x FROM t ORDER BY x")]


def test_what_is_committed_is_there_the_next_time(tmp_path):
    first = opened(tmp_path)
    assert first.is_new and numbers(first) == []
    first.execute("INSERT INTO t VALUES (?)", (1,))
    first.commit()
    first.execute_many("INSERT INTO t VALUES (?)", ((x,) for x in (2, 3)))
    assert first.first("SELECT max(x) FROM t WHERE x < ?", (3,)) == (2,)
    assert first.first("SELECT x FROM t WHERE x > 9") is None
    first.close(keep_changes=True, remove=False, quiet=False)
    second = opened(tmp_path)
    assert not second.is_new and numbers(second) == [1, 2, 3]
    second.close(keep_changes=True, remove=True, quiet=False)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("committed", [False, True])
def test_what_is_not_kept_is_undone_since_the_last_commit(tmp_path, committed):
    first = opened(tmp_path)
    if committed:
        first.execute("INSERT INTO t VALUES (1)")
        first.commit()
        first.execute("INSERT INTO t VALUES (2)")
    first.close(keep_changes=False, remove=False, quiet=False)
    second = opened(tmp_path)
    assert second.is_new != committed  # its tables are of the first transaction
    assert numbers(second) == [1] * committed
    second.close(keep_changes=False, remove=True, quiet=False)


@pytest.mark.parametrize("committed", [False, True])
def test_a_second_one_is_refused_in_one_line_and_disturbs_nothing(tmp_path, committed):
    first = opened(tmp_path)
    if committed:  # the lock outlives a transaction
        first.commit()
    with pytest.raises(UserError) as error:
        opened(tmp_path)
    assert str(error.value) == f"{tmp_path}: another run is writing here; wait for it, or give another place"
    first.execute("INSERT INTO t VALUES (1)")
    first.close(keep_changes=True, remove=False, quiet=False)
    second = opened(tmp_path)
    assert numbers(second) == [1]
    second.close(keep_changes=True, remove=True, quiet=False)


def test_a_killed_process_leaves_what_it_committed_and_no_lock(tmp_path):
    code = (f"import os, sys; sys.path.insert(0, {str(ROOT)!r})\n"
            f"from pathlib import Path; from backline.folders.store import Store\n"
            f"store = Store(Path('s.sqlite'), Path('.'), {TABLES!r})\n"
            f"store.execute('INSERT INTO t VALUES (1)'); store.commit(); store.execute('INSERT INTO t VALUES (2)')\n"
            f"os.kill(os.getpid(), {int(signal.SIGTERM)})")
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, check=False)
    assert done.returncode == -signal.SIGTERM
    left = opened(tmp_path)
    assert numbers(left) == [1]
    left.execute("INSERT INTO t VALUES (3)")
    left.close(keep_changes=True, remove=True, quiet=False)
    assert list(tmp_path.iterdir()) == []


@pytest.fixture
def removed(tmp_path) -> Store:
    """A store whose folder is removed after its last commit."""
    (tmp_path / "out").mkdir()
    opened_store = opened(tmp_path / "out")
    opened_store.commit()
    shutil.rmtree(tmp_path / "out")
    return opened_store


def test_a_removed_folder_is_noticed_at_the_next_commit(removed):
    with pytest.raises(UserError, match=rf"^{removed.place}: was removed while the run wrote into it; repeat") as error:
        removed.commit()
    assert "\n" not in str(error.value)
    removed.close(keep_changes=True, remove=True, quiet=False)
    assert not removed.place.exists()


def test_changes_in_a_removed_folder_are_an_error_of_one_line_to_the_end(removed):
    """Closing is what a run does last, with the error that ended it on the way: it adds none of its own."""
    with pytest.raises(UserError):  # SQLite cannot write its journal, or the file is gone
        removed.execute("INSERT INTO t VALUES (1)")
        removed.commit()
    removed.close(keep_changes=True, remove=False, quiet=True)


@pytest.mark.parametrize("content", [b"no database, but longer than the header that SQLite looks for" * 20])
def test_a_file_that_is_no_database_is_named(tmp_path, content):
    (tmp_path / "s.sqlite").write_bytes(content)
    with pytest.raises(UserError, match=r"s\.sqlite: file is not a database; see that the disk is writable"):
        opened(tmp_path)
    assert (tmp_path / "s.sqlite").read_bytes() == content


@pytest.mark.skipif(not hasattr(os, "getuid"), reason="folders without permission are those of POSIX")
def test_a_folder_that_is_not_there_is_an_error_of_one_line(tmp_path):
    with pytest.raises(UserError, match=r"s\.sqlite: unable to open database file; ") as error:
        opened(tmp_path / "absent")
    assert "\n" not in str(error.value)


def test_a_commit_is_due_after_a_while(tmp_path, monkeypatch):
    now = 100.0
    monkeypatch.setattr(store.time, "monotonic", lambda: now)
    opened_store = opened(tmp_path)
    assert not opened_store.is_due()
    now += store.SECONDS_PER_COMMIT * 1.01
    assert opened_store.is_due()
    opened_store.commit()
    assert not opened_store.is_due()
    opened_store.close(keep_changes=True, remove=True, quiet=False)
