"""Watching a folder: what is played to, and when; bad and changed files, Ctrl-C; and the command."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from commands import ROOT, fails
from midi_bytes import meta, midi_file
from pages import page_data
from playing import PARTS, notes, of_parts, part_of, song_file

import generate
from backline.common.errors import UserError
from backline.generation import watch as watching
from backline.generation.recipes import read_recipe
from backline.generation.watch import Watcher, folder_beside, watch


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "in").mkdir()
    return Path("in")


@pytest.fixture
def watcher(folder):
    """What it plays it notes in `played`, as (file, output, bytes); `bad` bytes are a UserError."""

    def play(path: Path, output: Path) -> None:
        data = path.read_bytes()
        if data == b"bad":
            raise UserError(f"{path}: no song")
        watcher.played.append((path.name, output.as_posix(), data))

    watcher = Watcher(folder, Path("out"), play)
    watcher.played = []
    return watcher


def put(path: Path, data: bytes, second: int = 0) -> Path:
    """Write a file, last changed so many seconds after a fixed time."""
    path.write_bytes(data)
    os.utime(path, (10**9 + second, 10**9 + second))
    return path


# ---------------------------------------------------------------- looks


def test_a_file_is_played_to_once_when_two_looks_find_it_the_same(watcher, folder):
    watcher.look()
    put(folder / "loop.mid", b"song")
    watcher.look()
    assert watcher.played == []
    watcher.look()
    assert watcher.played == [("loop.mid", "out/loop", b"song")]
    watcher.look()
    assert len(watcher.played) == 1


@pytest.mark.parametrize("grow", [lambda i: (b"M" * i, 0), lambda i: (b"song", i)], ids=["size", "time"])
def test_a_file_that_is_still_being_written_waits(watcher, folder, grow):
    for i in range(1, 5):
        put(folder / "loop.mid", *grow(i))
        watcher.look()
    assert watcher.played == []
    watcher.look()
    assert watcher.played == [("loop.mid", "out/loop", grow(4)[0])]


class Clock:
    """Stands still unless a test lets seconds pass."""

    now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock(watcher) -> Clock:
    watcher.clock = Clock()
    return watcher.clock


WHOLE = midi_file([(0, meta(3, b"song"))], [(0, b"\x90\x3c\x40"), (96, b"\x80\x3c\x40")], [(0, b"\x91\x24\x40")])
TWO_OF_THREE = WHOLE[:WHOLE.rindex(b"MTrk")]


@pytest.mark.parametrize("begun", [b"", WHOLE[:9], WHOLE[:14], WHOLE[:-5], TWO_OF_THREE])
def test_a_file_without_all_promised_tracks_is_given_time(watcher, folder, clock, capsys, begun):
    put(folder / "loop.mid", begun)
    for _ in range(3):
        watcher.look()
        clock.now += 3
    put(folder / "loop.mid", WHOLE, 1)
    watcher.look()
    watcher.look()
    assert watcher.played == [("loop.mid", "out/loop", WHOLE)] and capsys.readouterr().err == ""


def test_a_file_that_goes_on_growing_has_time_for_each_step(watcher, folder, clock, capsys):
    for second in range(4):
        put(folder / "loop.mid", TWO_OF_THREE, second)
        watcher.look()
        watcher.look()
        clock.now += 8
    assert watcher.played == [] and capsys.readouterr().err == ""


@pytest.mark.parametrize(("begun", "text"), [
    (TWO_OF_THREE, "in/loop.mid: holds 2 of the 3 tracks that its header promises; save it again, or give it with -p"),
    (WHOLE[:-5], "in/loop.mid: truncated MIDI file (2 whole tracks, where its header promises 3); export it again"),
    (b"", "in/loop.mid: an empty file, not MIDI; export it again")])
def test_a_file_that_never_gets_its_tracks_is_one_line(watcher, folder, clock, capsys, begun, text):
    put(folder / "loop.mid", begun)
    for _ in range(6):
        watcher.look()
        clock.now += 4
    assert watcher.played == []
    assert capsys.readouterr().err.replace(os.sep, "/") == f"error: {text}\n"
    put(folder / "loop.mid", WHOLE, 1)
    watcher.look()
    watcher.look()
    assert [data for _, _, data in watcher.played] == [WHOLE]


def test_no_time_is_given_to_what_is_no_midi_file_or_holds_more_tracks(watcher, folder, clock):
    put(folder / "a.mid", b"no song at all, but as long as a header")
    put(folder / "b.mid", WHOLE[:11] + b"\x01" + WHOLE[12:])
    watcher.look()
    watcher.look()
    assert [name for name, _, _ in watcher.played] == ["a.mid", "b.mid"]


def test_a_changed_file_is_played_to_again(watcher, folder):
    for second in range(2):
        put(folder / "loop.mid", b"take %d" % second, second)
        watcher.look()
        watcher.look()
    assert [data for _, _, data in watcher.played] == [b"take 0", b"take 1"]


def test_a_bad_file_is_one_line_and_the_others_are_played_to(watcher, folder, capsys):
    put(folder / "a.mid", b"bad")
    put(folder / "b.mid", b"good")
    for _ in range(4):
        watcher.look()
    assert capsys.readouterr().err.replace(os.sep, "/") == "error: in/a.mid: no song\n"
    assert [name for name, *_ in watcher.played] == ["b.mid"]
    put(folder / "a.mid", b"whole", 1)
    watcher.look()
    watcher.look()
    assert [name for name, *_ in watcher.played] == ["b.mid", "a.mid"]


def test_an_error_that_names_no_file_gets_its_name_and_a_vanished_file_is_one_line(watcher, folder, capsys):
    def play(path: Path, output: Path) -> None:
        if path.stem == "a":
            raise UserError("it has no bass")
        path.unlink()
        path.read_bytes()

    watcher.play = play
    put(folder / "a.mid", b"1")
    put(folder / "b.mid", b"2")
    for _ in range(3):
        watcher.look()
    assert capsys.readouterr().err.replace(os.sep, "/").splitlines() == [
        "error: in/a.mid: it has no bass", "error: in/b.mid: No such file or directory"]


def test_a_file_that_goes_and_comes_back_is_played_to_again(watcher, folder):
    for _ in range(2):
        put(folder / "loop.mid", b"song")
        watcher.look()
        watcher.look()
        (folder / "loop.mid").unlink()
        watcher.look()
    assert len(watcher.played) == 2


def test_only_midi_files_of_the_folder_itself_that_are_not_hidden(watcher, folder):
    (folder / "inside").mkdir()
    (folder / "folder.mid").mkdir()
    for name in ("inside/a.mid", "._a.mid", ".mid", "a.json", "a.wav", "a.mid.part", "B.MIDI", "a b.mid"):
        put(folder / name, b"song")
    watcher.look()
    watcher.look()
    assert [(name, output) for name, output, _ in watcher.played] == [("B.MIDI", "out/B"), ("a b.mid", "out/a b")]


def test_songs_never_go_into_the_watched_folder(watcher, folder, capsys):
    watcher.output = Path()
    put(folder / "in.mid", b"song")
    watcher.look()
    watcher.look()
    assert watcher.played == [] and "another -o" in capsys.readouterr().err


def test_a_folder_that_is_taken_away_ends_the_watch(watcher, folder):
    folder.rmdir()
    with pytest.raises(UserError, match="in: no such folder"):
        watch(watcher, again=False, sleep=lambda seconds: None)


def test_ctrl_c_ends_it_well(watcher, folder, capsys):
    def sleep(seconds: float) -> None:
        slept.append(seconds)
        if len(slept) == 3:
            raise KeyboardInterrupt

    slept: list[float] = []
    put(folder / "loop.mid", b"song")
    assert watch(watcher, again=False, sleep=sleep) == 0
    assert len(watcher.played) == 1 and max(slept) < 1
    first, last = capsys.readouterr().out.splitlines()
    assert first == "watching in: songs for each .mid in it go to out; Ctrl-C ends" and last == "no longer watching in"


@pytest.mark.parametrize(("given", "beside"), [("in", "in-out"), ("in/", "in-out"), ("a/in", "a/in-out")])
def test_the_folder_beside(given, beside):
    assert folder_beside(Path(given), "-out") == Path(beside)


def test_the_folder_beside_one_that_is_named_by_dots(folder, monkeypatch, tmp_path):
    monkeypatch.chdir(folder)
    assert folder_beside(Path(), "-out") == tmp_path.resolve() / "in-out"


# ---------------------------------------------------------------- through the command


@pytest.fixture
def watching_for(given_path, folder, monkeypatch):
    """Call generate.py --watch in with the tiny model; `steps` run between its looks, then comes Ctrl-C."""
    Path("free.json").write_text(json.dumps({"temperature": [1, 1, 1, 1], "sampling_fn": "none", "num_bars": 6}))

    def call(*arguments: object, steps=(lambda: None,) * 2) -> int:
        waiting = iter(steps)

        def sleep(seconds: float) -> None:
            try:
                next(waiting)()
            except StopIteration:
                raise KeyboardInterrupt from None

        monkeypatch.setattr(generate, "watch", lambda watcher, again: watching.watch(watcher, again, sleep))
        return generate.main(["--watch", "in", "-mp", str(given_path), "--genconfig", "free.json", "-d", "cpu",
                              *map(str, arguments)])

    return call


def nothing() -> None:
    pass


def test_each_file_gets_its_songs_in_a_folder_beside(watching_for, capsys):
    song_file(Path("in/one.mid"))
    steps = (nothing, nothing, lambda: song_file(Path("in/two.mid"), ("drums", "bass")), nothing, nothing)
    assert watching_for("-n", 2, "--bars", 2, "--seed", 3, steps=steps) == 0
    assert "error" not in capsys.readouterr().err
    for name in ("one", "two"):
        output = Path("in-generated") / name
        for number in range(2):
            song, whole = notes(f"in/{name}.mid"), notes(output / f"{number}.mid")
            assert whole[:len(song)] == song and len(whole) > len(song)
            assert read_recipe(output / f"{number}.mid").seed == 3 + number
        assert len(page_data(output / "index.html")["ideas"]) == 2
    assert sorted(path.name for path in Path("in").iterdir()) == ["one.mid", "two.mid"]


def test_missing_parts_are_made_to_those_that_are_there(watching_for, capsys):
    song_file(Path("in/duo.mid"), ("drums", "bass"))
    song_file(Path("in/full.mid"))
    assert watching_for("--missing", "-o", "out", "--quiet") == 0
    song, whole = notes("in/duo.mid"), notes("out/duo/0.mid")
    assert of_parts(whole, ("drums", "bass")) == song
    assert {part_of(row) for row in whole} == set(PARTS)
    lines = capsys.readouterr().err.replace(os.sep, "/").splitlines()
    errors = [line for line in lines if line.startswith("error")]
    assert len(errors) == 1 and errors[0].startswith("error: in/full.mid: --missing: the prompt has all")
    assert not Path("out/full").exists()


def test_missing_parts_of_a_prompt(given_path, folder):
    song_file(Path("duo.mid"), ("bass", "piano"))
    assert generate.main(["-p", "duo.mid", "--missing", "-mp", str(given_path), "-o", "out", "-d", "cpu"]) == 0
    assert of_parts(notes("out/0.mid"), ("bass", "piano")) == notes("duo.mid")
    assert read_recipe(Path("out/0.mid")).wish.given == ("bass", "piano")


def test_bad_and_half_written_files_are_survived_and_a_changed_one_is_done_again(watching_for, capsys):
    whole = song_file(Path("song.mid")).read_bytes()
    put(Path("in/bad.mid"), b"no song")
    put(Path("in/half.mid"), whole[:len(whole) // 2])
    steps = (nothing, lambda: put(Path("in/half.mid"), whole, 1), nothing,
             lambda: put(Path("in/half.mid"), whole, 2), nothing)
    assert watching_for("--bars", 1, "-o", "out", steps=steps) == 0
    lines = capsys.readouterr().err.replace(os.sep, "/").splitlines()
    assert lines[0].startswith("error: in/bad.mid: ") and not any("bad.mid" in line for line in lines[1:])
    assert len(list(Path("out/half").glob("?.mid"))) >= 2
    assert notes("out/half/1.mid")[:len(notes("song.mid"))] == notes("song.mid")
    assert not Path("out/bad").exists()


def test_a_second_watch_does_what_is_new_or_changed_and_force_does_all(watching_for, capsys):
    song_file(Path("in/same.mid"))
    song_file(Path("in/other.mid"), ("drums",))
    assert watching_for("--bars", 1) == 0
    song_file(Path("in/other.mid"), ("bass",))
    capsys.readouterr()
    assert watching_for("--bars", 1) == 0
    assert ", but for 1 that have theirs; " in capsys.readouterr().out
    songs = {name: len(list(Path("in-generated", name).glob("?.mid"))) for name in ("same", "other")}
    assert songs == {"same": 1, "other": 2}
    before = Path("in-generated/same/0.mid").read_bytes()
    assert watching_for("--bars", 1, "--force") == 0
    assert Path("in-generated/same/0.mid").read_bytes() != before
    assert not Path("in-generated/same/1.mid").exists()


def test_a_stem_that_a_killed_run_left_is_no_song(watching_for):
    song_file(Path("in/a.mid"))
    assert watching_for("--bars", 1) == 0
    Path("in-generated/a/0.mid").unlink()
    assert watching_for("--bars", 1) == 0
    assert Path("in-generated/a/1.mid").exists()
    assert watching_for("--bars", 1) == 0
    assert not Path("in-generated/a/2.mid").exists()


def test_a_folder_that_is_not_there_is_made(watching_for, folder):
    folder.rmdir()
    assert watching_for("--bars", 1, steps=(lambda: song_file(folder / "a.mid"), lambda: None, lambda: None)) == 0
    assert Path("in-generated/a/0.mid").is_file()


@pytest.mark.parametrize(("arguments", "text"), [
    (["--watch", "song.mid"], "song.mid: a file stands where a folder is needed"),
    (["--watch", "in", "-p", "song.mid"], "--watch uses the files"), (["--missing"], "--missing works out the parts"),
    (["--watch", "in", "--missing", "--given", "bass"], "--missing works out"),
    (["-p", "song.mid", "--missing", "--make", "bass"], "--missing works out"),
    (["--watch", "in", "--missing", "--same-parts"], "--missing works out"),
    (["--watch", "in", "--missing", "--bars", "2"], "--missing works out"),
    (["--watch", "in", "--given", "banjo"], "unknown part"),
    (["--watch", "in", "-o", "song.mid"], "song.mid: a file"), (["--watch", "in", "--key", "H"], "key 'H'")])
def test_what_is_wrong_for_any_file_is_said_at_once(given_path, folder, capsys, arguments, text):
    song_file(Path("song.mid"))
    assert text in fails(generate.main, ["-mp", given_path, "-d", "cpu", *arguments], capsys)


def test_a_model_that_cannot_play_to_given_notes_is_found_at_once(model_path, folder, capsys):
    assert "not trained" in fails(generate.main, ["-mp", model_path, "-d", "cpu", "--watch", "in", "--given", "bass"],
                                  capsys)


def test_a_watch_in_a_process_of_its_own_until_ctrl_c(given_path, folder):
    source = song_file(Path("song.mid")).read_bytes()
    signal.signal(signal.SIGINT, signal.default_int_handler)  # tests in the background of a shell ignore it
    process = subprocess.Popen([sys.executable, ROOT / "generate.py", "--watch", "in", "-mp", given_path, "--bars", "1",
                                "--quiet", "-d", "cpu"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        assert process.stdout.readline().startswith("watching in: ")
        put(Path("in/bad.mid"), b"no song")
        put(Path("in/song.mid"), source)
        until = time.monotonic() + 60
        while not Path("in-generated/song/index.html").exists():
            assert process.poll() is None and time.monotonic() < until
            time.sleep(0.05)
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=30)
    finally:
        process.kill()
    assert process.returncode == 0
    errors = [line for line in err.splitlines() if not line.startswith("notice: ")]
    assert len(errors) == 1 and "bad.mid" in errors[0]
    assert "song/0.mid: " in out and out.endswith("no longer watching in\n")
    assert notes("in-generated/song/0.mid")[:len(notes("in/song.mid"))] == notes("in/song.mid")
