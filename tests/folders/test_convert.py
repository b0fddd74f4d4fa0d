"""A run over folders: killed, interrupted, short of disk, in shards, with any number of workers, it ends the same."""

from __future__ import annotations

import builtins
import errno
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import orjson
import pytest
from commands import ROOT, fails, succeeds
from midi_bytes import DRUM_CHANNEL, midi_file, name, note, program, three_parts

import clean_midi
import tokenizer
from backline.common import files
from backline.common.errors import EXIT_INTERRUPTED, EXIT_USER_ERROR
from backline.common.files import file_hash
from backline.folders import report as reports
from backline.folders import store, workers
from backline.folders.convert import FileJob
from backline.folders.inputs import Listing
from backline.music.midi_chunks import MIDI_SUFFIXES
from backline.music.vocab import load_vocabulary

BARS = load_vocabulary().bars
COMMANDS = {"tokenizer": (tokenizer.main, "-td"), "clean_midi": (clean_midi.main, "-o")}


def song(n_bars: int = 4, pitch: int = 60) -> bytes:
    """Two notes in each part and bar."""
    def every(low: int, channel: int = 0) -> list:
        return [message for i in range(2 * n_bars) for message in note(192 * i, 192 * i + 96, low + i % 2, channel)]
    return midi_file([name("drums"), *every(36, DRUM_CHANNEL)], [name("bass"), program(38), *every(40)],
                     [name("piano"), *every(pitch)])


@pytest.fixture
def corpus(tmp_path) -> Path:
    """Songs, one of them longer than the vocabulary, files that are left out, in folders."""
    folder = tmp_path / "songs"
    (folder / "deep").mkdir(parents=True)
    for number, path in enumerate(["a.mid", "b.mid", "c.mid", "a.kar", "deep/a.mid", "deep/e.mid"]):
        (folder / path).write_bytes(song(pitch=60 + number))
    (folder / "bad.mid").write_bytes(b"no MIDI")
    (folder / "deep" / "d.mid").write_bytes(midi_file([name("piano")]))
    (folder / "long.mid").write_bytes(song(n_bars=2 * BARS + 8))
    return folder


N_FILES = 9
OUTPUTS = ["a", "a-2", "b", "c", "long", "long.part2", "long.part3", "deep/a", "deep/e"]


def content(folder: Path) -> dict[str, bytes]:
    """Every file of a folder, hidden ones too, but the reports of shards."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*"))
            if path.is_file() and "-of-" not in path.name}


@pytest.fixture(params=COMMANDS)
def command(request, corpus, tmp_path, monkeypatch) -> Callable[..., dict[str, bytes]]:
    """Run a command on the corpus, in the folder `place`, where it goes on if it was there; what it wrote."""
    main, option = COMMANDS[request.param]

    def run(place: str, *flags: object) -> dict[str, bytes]:
        (tmp_path / place).mkdir(exist_ok=True)
        monkeypatch.chdir(tmp_path / place)
        succeeds(main, [corpus, option, "out", "--long-songs", "cut", *flags])
        return content(tmp_path / place / "out")

    run.main, run.argv = main, [str(corpus), option, "out", "--long-songs", "cut"]
    run.suffix = ".json" if main is tokenizer.main else ".mid"
    run.name = request.param
    return run


# ---------------------------------------------------------------- the same, whatever the way


def test_the_same_bytes_for_every_number_of_workers_and_for_shards(command, corpus, capsys, monkeypatch):
    monkeypatch.setattr(workers, "TASKS_WORTH_A_WORKER", 1)
    expected = command("one by one")
    said = capsys.readouterr()
    assert sorted(expected) == sorted([f"{stem}{command.suffix}" for stem in OUTPUTS] + ["logs.txt", "report.jsonl"])
    for n_workers in (1, 3):
        assert command(f"{n_workers} workers", "-j", n_workers) == expected
        assert capsys.readouterr() == said
    for shard in (2, 3, 1):
        found = command("shards", "-j", "0", "--shard", f"{shard}/3")
    assert found == expected
    assert capsys.readouterr().out.endswith(said.out)
    assert command("shards") == expected  # and nothing is left to do for the whole
    assert capsys.readouterr().err == f"notice: {N_FILES} of {N_FILES} files were " \
        f"{'tokenized' if command.name == 'tokenizer' else 'cleaned'} before\n"


def test_rows_name_each_input_and_what_was_made_of_it(command, corpus):
    found = command("place")
    rows = [orjson.loads(line) for line in found["report.jsonl"].splitlines()]
    sources = [task.source for task in Listing([corpus], MIDI_SUFFIXES, Path("out"), "", keep_pieces_free=True)]
    assert [row["source"] for row in rows] == sources
    for row in rows:
        assert row["bytes"] == Path(row["source"]).stat().st_size
        assert row["sha256"] == file_hash(Path(row["source"]))
        assert (row["verdict"] == "kept") == ("outputs" in row) != ("reason" in row)
        assert "/" not in row.get("reason", "")  # the path is in the row already
        if row["verdict"] == "kept":
            read = sum(int(text.rpartition(", ")[2].split()[0]) for texts in row["parts"].values() for text in texts)
            assert row["notes"] + sum(row["lost"].values()) == read
    assert sorted(each for row in rows for each in row.get("outputs", ())) == sorted(
        f"{stem}{command.suffix}" for stem in OUTPUTS)
    long, = [row for row in rows if row["source"].endswith("long.mid")]
    assert long["first_bars"] == [0, BARS, 2 * BARS]


# ---------------------------------------------------------------- killed and continued

KILLED = """
import os, pathlib, signal, sys
sys.path.insert(0, {root!r})
import {module}
from backline.folders import store
store.SECONDS_PER_COMMIT = {seconds}
rename, left = pathlib.Path.replace, [{number}]
def replace(self, target):
    left[0] -= 1
    if not left[0] and {before}:
        os.kill(os.getpid(), signal.SIGKILL)
    rename(self, target)
    if not left[0]:
        os.kill(os.getpid(), signal.SIGKILL)
pathlib.Path.replace = replace
{module}.main({argv!r} + ["-j", "0"])
"""


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="no such signal here")
@pytest.mark.parametrize(("number", "before", "seconds"), [
    (1, True, 0), (4, False, 0), (7, True, 60), (len(OUTPUTS), False, 0), (len(OUTPUTS) + 1, True, 0),
    (len(OUTPUTS) + 2, False, 60)],
    ids=["first half written", "between two", "in the middle of pieces", "last song", "report", "log and report"])
def test_killed_at_any_moment_and_continued_equals_undisturbed(command, tmp_path, number, before, seconds):
    """`number`: the file that is being renamed into place; the report and the log come last."""
    (tmp_path / "killed").mkdir()
    code = KILLED.format(root=str(ROOT), module=command.name, argv=command.argv, number=number, before=before,
                         seconds=seconds)
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path / "killed", capture_output=True, text=True,
                          check=False)
    assert (done.returncode, done.stderr, done.stdout) == (-signal.SIGKILL, "", "")
    left = content(tmp_path / "killed" / "out")
    n_songs = sum(name.endswith(command.suffix) for name in left)
    assert n_songs == min(number - before, len(OUTPUTS))
    assert command("killed") == command("undisturbed")


@pytest.fixture(scope="module")
def many(tmp_path_factory) -> tuple[Path, dict[str, bytes]]:
    """Enough songs that a run takes a second, and what becomes of them."""
    folder = tmp_path_factory.mktemp("many")
    (folder / "songs").mkdir()
    (folder / "one.mid").write_bytes(song(20))
    for number in range(800):
        os.link(folder / "one.mid", folder / "songs" / f"{number}.mid")
    assert tokenizer.main([str(folder / "songs"), "-td", str(folder / "out"), "-j", "0"]) == 0
    return folder / "songs", content(folder / "out")


def stopped(many: Path, folder: Path, how: signal.Signals, after: int) -> tuple[int, str, str]:
    """Run with workers, in a process group, and send it a signal once so many files are there."""
    running = subprocess.Popen([sys.executable, ROOT / "tokenizer.py", many, "-td", folder, "-j", "2"],
                               stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True,
                               preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL))  # noqa: PLW1509 (a background job ignores it)
    while running.poll() is None and (not folder.is_dir() or len(os.listdir(folder)) < after):  # noqa: PTH208 (quick)
        time.sleep(0.005)
    if how is signal.SIGKILL:
        running.kill()  # the command alone: its workers must notice
    else:
        os.killpg(running.pid, how)  # as a terminal does
    out, err = running.communicate(timeout=30)
    deadline = time.monotonic() + 10
    while (alive := in_session(running.pid)) and time.monotonic() < deadline:
        time.sleep(0.02)
    assert not alive
    return running.returncode, out, err


def in_session(session: int) -> list[str]:
    """Processes of a session that still run, where the system tells."""
    found = []
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            state, _, _, own = path.read_text().rpartition(")")[2].split()[:4]
        except OSError:
            continue
        if int(own) == session and state != "Z":
            found.append(path.parent.name)
    return found


@pytest.mark.skipif(os.name != "posix", reason="process groups are those of POSIX")
@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGINT])
def test_a_run_with_workers_is_stopped_and_goes_on(many, tmp_path, how, capsys):
    folder, expected = many
    for attempt in range(5):  # on a busy machine the run may be done before the signal comes
        place = tmp_path / str(attempt)
        code, out, err = stopped(folder, place, how, 100)
        if not out:
            break
    assert out == ""
    if how is signal.SIGINT:
        assert code == EXIT_INTERRUPTED and err.count("\n") == 1, err
        assert err.startswith("interrupted after ")
        assert err.endswith(" of 800 files; the same command goes on from there\n")
    else:
        assert code == -how
    assert not (place / "report.jsonl").exists()
    succeeds(tokenizer.main, [folder, "-td", place])
    notice = capsys.readouterr().err
    assert how is signal.SIGKILL or (notice.startswith("notice: ") and notice.endswith("were tokenized before\n"))
    found = content(place)
    assert found.keys() == expected.keys()
    found.pop("logs.txt")  # it names the folder
    assert found == {key: data for key, data in expected.items() if key != "logs.txt"}


@pytest.mark.parametrize("seconds", [0, 60])
def test_ctrl_c_without_workers(command, tmp_path, monkeypatch, capsys, seconds):
    monkeypatch.setattr(store, "SECONDS_PER_COMMIT", seconds)
    stop_at(monkeypatch, command, 3, KeyboardInterrupt())
    (tmp_path / "place").mkdir()
    monkeypatch.chdir(tmp_path / "place")
    assert command.main(command.argv) == EXIT_INTERRUPTED
    assert capsys.readouterr().err == f"interrupted after 3 of {N_FILES} files; the same command goes on from there\n"
    monkeypatch.undo()
    assert command("place", "-j", 0) == command("undisturbed", "-j", 0)


def stop_at(monkeypatch: pytest.MonkeyPatch, command: Any, number: int, what: BaseException | Callable[[], None]
            ) -> None:
    """Raise or do something when the `number`-th file, from 0, is begun."""
    original, seen = FileJob.__call__, []

    def call(self: FileJob, numbered: tuple) -> tuple[bytes, int]:
        seen.append(numbered)
        if len(seen) == number + 1:
            if isinstance(what, BaseException):
                raise what
            what()
        return original(self, numbered)

    monkeypatch.setattr(FileJob, "__call__", call)


@pytest.mark.parametrize("seconds", [0, 60])
@pytest.mark.parametrize("number", [0, 3, N_FILES - 1])
def test_a_folder_that_is_removed_meanwhile_is_one_line(command, tmp_path, monkeypatch, capsys, number, seconds):
    monkeypatch.setattr(store, "SECONDS_PER_COMMIT", seconds)
    (tmp_path / "place").mkdir()
    monkeypatch.chdir(tmp_path / "place")
    stop_at(monkeypatch, command, number, lambda: shutil.rmtree("out"))
    assert "out" in fails(command.main, command.argv, capsys)
    assert not Path("out").exists()
    monkeypatch.undo()
    assert command("place", "-j", 0) == command("undisturbed", "-j", 0)


class Refusing:
    """A file that is full."""

    def __init__(self, file: Any) -> None:
        self.file = file

    def __enter__(self) -> Refusing:
        return self

    def __exit__(self, *exc: object) -> None:
        self.file.close()

    def write(self, data: bytes) -> int:
        self.file.write(data[:1])
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))  # names no file, as the real one does not


@pytest.mark.parametrize("n_written", [0, 3, len(OUTPUTS), len(OUTPUTS) + 1])
def test_a_full_disk_is_one_line_that_names_the_file(command, tmp_path, monkeypatch, capsys, n_written):
    """In a song, and in the report and the log, which come last."""
    (tmp_path / "place").mkdir()
    monkeypatch.chdir(tmp_path / "place")
    left = [n_written]

    def full(path: Path, mode: str = "r", **more: Any) -> Any:
        file = builtins.open(path, mode, **more)  # noqa: SIM115 (closed by whoever opens it)
        left[0] -= "w" in mode
        return Refusing(file) if left[0] < 0 and "w" in mode else file

    monkeypatch.setattr(files, "open", full, raising=False)
    message = fails(command.main, command.argv, capsys)
    assert os.strerror(errno.ENOSPC) in message
    expected = [f"out/{stem}{command.suffix}" for stem in OUTPUTS] + ["out/report.jsonl", "out/logs.txt"]
    assert any(path in message for path in expected), message
    assert not [path for path in content(Path("out")) if path.endswith(".part")]
    monkeypatch.undo()
    assert command("place", "-j", 0) == command("undisturbed", "-j", 0)


def test_a_full_disk_in_a_worker_is_one_line(tmp_path, monkeypatch):
    """The real thing, as far as a test can: a limit on the size of files."""
    resource = pytest.importorskip("resource")
    (tmp_path / "a.mid").write_bytes(song())
    (tmp_path / "b.mid").write_bytes(song(BARS))
    code = (f"import resource, signal, sys; sys.path.insert(0, {str(ROOT)!r})\n"
            f"signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
            f"resource.setrlimit(resource.RLIMIT_FSIZE, (60_000, 60_000))\n"
            f"import tokenizer; sys.exit(tokenizer.main(['a.mid', 'b.mid', '-j', '1', '-td', 'out']))")
    assert resource
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == EXIT_USER_ERROR
    assert done.stderr.count("\n") == 1 and os.strerror(errno.EFBIG) in done.stderr and "b.json" in done.stderr
    assert [path.name for path in sorted((tmp_path / "out").iterdir())] == [".report.sqlite", "a.json"]
    monkeypatch.chdir(tmp_path)
    succeeds(tokenizer.main, ["a.mid", "b.mid", "-td", "out"])


# ---------------------------------------------------------------- done again


@pytest.mark.parametrize("flags", [(), ("--force",)])
def test_pieces_that_a_song_no_longer_has_are_removed(command, corpus, tmp_path, flags):
    command("place")
    (corpus / "long.mid").write_bytes(song(n_bars=BARS + 8))
    later = time.time() + 5
    os.utime(corpus / "long.mid", (later, later))
    shutil.rmtree(tmp_path / "undisturbed", ignore_errors=True)
    assert command("place", *flags) == command("undisturbed")
    assert not (tmp_path / "place" / "out" / f"long.part3{command.suffix}").exists()
    (corpus / "long.mid").write_bytes(b"damaged")
    os.utime(corpus / "long.mid", (later + 5, later + 5))
    assert not any(name.startswith("long") for name in command("place", *flags))


def test_pieces_that_are_inputs_are_songs_like_any_other(tmp_path, monkeypatch):
    """What `--long-songs cut` writes is read by the next stage: `x` leaves the output of `x.part2` alone."""
    (tmp_path / "songs").mkdir()
    for stem in ("x", "x.part2", "x.part3"):
        (tmp_path / "songs" / f"{stem}.mid").write_bytes(song())
    monkeypatch.chdir(tmp_path)
    for _ in range(2):
        succeeds(tokenizer.main, ["songs", "-td", "out"])
        assert sorted(path.name for path in Path("out").glob("*.json")) == ["x.json", "x.part2.json", "x.part3.json"]
        later = time.time() + 5
        os.utime("songs/x.mid", (later, later))


def test_a_piece_never_replaces_a_file_of_somebody_else(tmp_path, monkeypatch, capsys):
    (tmp_path / "x.mid").write_bytes(song(n_bars=BARS + 8))
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "x.part2.json").write_text("mine")
    monkeypatch.chdir(tmp_path)
    message = fails(tokenizer.main, ["x.mid", "-td", "out", "--long-songs", "cut"], capsys)
    assert "x.part2.json exists already" in message
    assert Path("out/x.part2.json").read_text() == "mine"


def test_a_name_that_is_too_long_costs_its_file_alone(tmp_path, monkeypatch):
    for stem in ("a" * 251, "b"):
        (tmp_path / f"{stem}.mid").write_bytes(song())
    monkeypatch.chdir(tmp_path)
    succeeds(tokenizer.main, [".", "-td", "out"])
    rows = [orjson.loads(line) for line in Path("out/report.jsonl").read_bytes().splitlines()]
    assert [row["verdict"] for row in rows] == ["dropped", "kept"]
    assert rows[0]["reason"].endswith("; rename the file")


def test_songs_that_are_cut_no_more_leave_no_pieces(command, tmp_path):
    command("place")
    found = command("place", "--long-songs", "skip", "--force")
    assert not [name for name in found if "long" in name]
    assert len(found) == len(OUTPUTS) - 3 + 2


def test_what_no_worker_brought_to_an_end_has_a_row_and_no_output(tmp_path):
    (tmp_path / "a.mid").write_bytes(b"deadly")
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "a.json").write_bytes(b"old")
    task, = Listing([tmp_path / "a.mid"], (".mid",), tmp_path / "out", ".json")
    row, mtime_ns = FileJob(None, "settings").without_result(task, "took longer than 3 seconds; x")
    row = orjson.loads(row)
    facts = {"source": str(tmp_path / "a.mid"), "settings": "settings", "bytes": 6, "verdict": "dropped",
             "sha256": file_hash(tmp_path / "a.mid"), "reason": "took longer than 3 seconds; x", "no_result": True}
    assert {key: row[key] for key in facts} == facts
    assert mtime_ns == (tmp_path / "a.mid").stat().st_mtime_ns
    assert list((tmp_path / "out").iterdir()) == []


def test_a_name_that_is_no_unicode_is_known_again(tmp_path, capsys):
    (tmp_path / "songs").mkdir()
    try:
        (tmp_path / "songs" / "Fl\udcf6te.mid").write_bytes(three_parts())
    except (OSError, UnicodeError):
        pytest.skip("this file system takes no such name")
    for notice in ("", "notice: 1 of 1 files were tokenized before\n"):
        succeeds(tokenizer.main, [tmp_path / "songs", "-td", tmp_path / "out"])
        assert capsys.readouterr().err == notice
    assert len((tmp_path / "out" / "report.jsonl").read_bytes().splitlines()) == 1


# ---------------------------------------------------------------- options


@pytest.mark.parametrize(("flags", "message"), [
    (["-j", "-1"], "-j -1: a number of worker processes"), (["--time-limit", "0"], "--time-limit 0: must be more"),
    (["--shard", "0/3"], "--shard 0/3: must be NUMBER/OF"), (["--shard", "x"], "--shard x: must be NUMBER/OF"),
    (["--max-lost", "2"], "max_lost 2.0 must be a share"), (["--min-stretch-bars", "0"], "min_stretch_bars 0: at"),
    (["--max-lost", "1", "--ranges", "skip"], "--max-lost: has no effect with --ranges skip; give --ranges drop or oc"),
    (["--min-stretch-bars", "2"], "--min-stretch-bars: has no effect with --meters skip; give --meters cut"),
    (["--part", "lead=none"], "--part lead=none: must be NAME=TRACKS"), (["--part", "bass"], "--part bass=: must be"),
    (["--part", "bass=#0"], "must be a track's number"), (["--part", "bass=#x"], "must be a track's number")])
def test_mistakes_are_one_line_before_anything_is_written(command, tmp_path, monkeypatch, capsys, flags, message):
    monkeypatch.chdir(tmp_path)
    assert message in fails(command.main, [*command.argv, *flags], capsys)
    assert not (tmp_path / "out").exists()


def test_a_shard_that_keeps_nothing_is_no_error(corpus, tmp_path, capsys):
    """The others may keep some; the last says what became of all."""
    place = [str(task.source) for task in Listing([corpus], MIDI_SUFFIXES, tmp_path, "")].index(
        str(corpus / "bad.mid")) + 1
    for number in [place, *(other for other in range(1, N_FILES + 1) if other != place)]:
        succeeds(tokenizer.main, [corpus, "-td", tmp_path / "out", "--shard", f"{number}/{N_FILES}"])
    assert "6 of 9 files tokenized" in capsys.readouterr().out
    assert reports.report_paths(tmp_path / "out")[0].is_file()
