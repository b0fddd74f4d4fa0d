"""Numbers of songs: many processes in one folder, killed at random, and files of people among theirs."""

from __future__ import annotations

import contextlib
import os
import random
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import claimers
import pytest
from claimers import ENDINGS, files_of
from commands import ROOT

from backline.generation import claims
from backline.generation.claims import claim_of, next_number, song_of, write_new, write_over
from backline.generation.output_files import write_song
from backline.generation.run_log import log_run

SONG = {"-bass.mid": b"bass", ".wav": b"sound", ".mid": b"song"}


@pytest.fixture(params=["links", "old-disk"])
def disk(request, monkeypatch) -> str:
    """A file system with hard links, and one without."""
    if request.param == "old-disk":
        monkeypatch.setattr(os, "link", claimers.no_links)
    return request.param


def content(folder: Path) -> dict[str, bytes]:
    """All files of a folder; a folder in it counts as an empty one."""
    return {path.name: b"" if path.is_dir() else path.read_bytes() for path in folder.iterdir()}


def put(folder: Path, *names: str) -> dict[str, bytes]:
    """Files of a person, and what is in the folder now."""
    for name in names:
        (folder / name).write_bytes(f"my {name}".encode())
    return content(folder)


# ---------------------------------------------------------------- which number


@pytest.mark.parametrize(("names", "number"), [
    ([], 0), (["0.mid", "2.mid"], 3), (["4-bass.mid"], 5), (["0-my_idea.mid"], 1), (["0.wav"], 1), (["0.png"], 1),
    (["0-my idea.mid"], 1), (["0 take.mid", "1.mp3", "2_b.mid"], 3), (["0.MID"], 1), (["3.Wav"], 4), (["0"], 1),
    (["2024-05-01 sketch.mid", "5th.mid", "a0.mid", "index.html"], 0), ([".7.unfinished"], 8),
    (["1.mid", "2 take.mid", "3.txt", "5.txt"], 4), (["007.mid"], 8)])
def test_the_next_number_is_above_all_songs_and_nobody_has_it(tmp_path, names, number):
    put(tmp_path, *names)
    assert next_number(tmp_path) == number


def test_the_song_of_a_stem():
    assert song_of(Path("a/3-bass.mid")) == Path("a/3.mid")
    for name in ("3.mid", "best.mid", "my-bass.mid", "3-my idea.mid"):
        assert song_of(Path("a") / name) == Path("a") / name


# ---------------------------------------------------------------- one process


def test_a_song_is_its_files_and_nothing_else(tmp_path, disk):
    folder = tmp_path / "new"
    assert [write_new(folder, SONG) for _ in range(2)] == [0, 1]
    assert content(folder) == {f"{number}{ending}": data for number in range(2) for ending, data in SONG.items()}


def test_the_whole_song_comes_last(tmp_path, monkeypatch, disk):
    seen = []

    def put_new(part: Path, place: Path) -> None:
        plain(part, place)
        seen.append(place.name)

    plain = claims.put_new
    monkeypatch.setattr(claims, "put_new", put_new)
    path = write_song(tmp_path, None, {"": b"song", "-drums": b"drums", "-bass": b"bass"}, {".png": b"picture"})
    assert path == tmp_path / "0.mid" and seen == ["0.png", "0-bass.mid", "0-drums.mid", "0.mid"]


@pytest.mark.parametrize("name", ["0-bass.mid", "0.wav", "0.mid"])
def test_a_file_that_is_put_there_meanwhile_is_kept(tmp_path, monkeypatch, disk, name):
    """A person saves it, or unpacks it, after the run found the number free."""

    def write(claim: Path, number: int, files: dict[str, bytes]) -> None:
        plain(claim, number, files)
        if number == 0:
            put(tmp_path, name)

    plain = claims._write
    monkeypatch.setattr(claims, "_write", write)
    assert write_new(tmp_path, SONG) == 1
    assert content(tmp_path) == {f"1{ending}": data for ending, data in SONG.items()} | {name: f"my {name}".encode()}


def test_a_song_that_got_the_number_between_look_and_claim_is_kept(tmp_path, monkeypatch):
    monkeypatch.setattr(claims, "next_number", lambda folder: 0)
    for number in range(3):
        assert write_new(tmp_path, SONG) == number
    assert len(content(tmp_path)) == 9


def test_a_number_that_a_person_took_between_look_and_claim_is_theirs(tmp_path, monkeypatch):
    put(tmp_path, "0-my_idea.mid")
    monkeypatch.setattr(claims, "next_number", lambda folder: 0)
    assert write_new(tmp_path, SONG) == 1
    assert {name for name in content(tmp_path) if name.startswith("0")} == {"0-my_idea.mid"}


def interrupted_at(step: int, function: Callable[..., None], after: bool) -> Callable[..., None]:
    """`function`, with Ctrl-C before or after its call number `step`."""
    calls = []

    def call(*arguments: object) -> None:
        calls.append(arguments)
        if len(calls) == step + 1 and not after:
            raise KeyboardInterrupt
        function(*arguments)
        if len(calls) == step + 1:
            raise KeyboardInterrupt

    return call


@pytest.mark.parametrize("after", [False, True])
@pytest.mark.parametrize("step", range(len(SONG)))
def test_ctrl_c_leaves_the_folder_as_it_was(tmp_path, monkeypatch, disk, step, after):
    before = put(tmp_path, "0-my_idea.mid", "0.mid", "take.wav")
    monkeypatch.setattr(claims, "put_new", interrupted_at(step, claims.put_new, after))
    with pytest.raises(KeyboardInterrupt):
        write_new(tmp_path, SONG)
    assert content(tmp_path) == before


def test_a_full_disk_is_told_with_the_song_and_leaves_nothing(tmp_path, monkeypatch):
    def write_bytes(path: Path, data: bytes) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", write_bytes)
    with pytest.raises(OSError, match="No space") as error:
        write_new(tmp_path, SONG)
    assert error.value.filename == str(tmp_path / "0-bass.mid") and content(tmp_path) == {}


# ---------------------------------------------------------------- --force


def test_replacing_a_song_replaces_its_files_and_no_other(tmp_path):
    theirs = put(tmp_path, "0-my_idea.mid", "0-lead.mid", "0.mp3", "00.mid", "0 take.mid", "01.wav", "1.mid", "10.mid")
    old = ["0.mid", "0-bass.mid", "0-drums.mid", "0-prompt.mid", "0.png", "0.wav"]
    put(tmp_path, *old)
    write_song(tmp_path, 0, {"": b"song", "-drums": b"drums", "-bass": b"bass"}, {".wav": b"sound"})
    assert content(tmp_path) == theirs | {"0.mid": b"song", "0-bass.mid": b"bass", "0-drums.mid": b"drums",
                                          "0.wav": b"sound"}


@pytest.mark.parametrize("step", range(len(SONG)))
def test_ctrl_c_while_replacing_leaves_no_mixed_song(tmp_path, monkeypatch, step):
    write_new(tmp_path, SONG)
    put(tmp_path, "0-my_idea.mid")
    monkeypatch.setattr(os, "replace", interrupted_at(step, os.replace, after=True))
    with pytest.raises(KeyboardInterrupt):
        write_over(tmp_path, 0, dict.fromkeys(SONG, b"new"))
    left = content(tmp_path)
    assert "0.mid" not in left and b"new" not in left.values() and "0-my_idea.mid" in left


def test_what_a_killed_run_left_is_passed_over_and_does_not_stop_force(tmp_path, monkeypatch):
    claim = claim_of(tmp_path, 0)
    claim.mkdir()
    put(claim, ".mid.part")
    assert write_new(tmp_path, SONG) == 1
    assert claim.exists()
    monkeypatch.setattr(claims, "SECONDS_UNCHANGED", 0.05)
    write_over(tmp_path, 0, SONG)
    assert content(tmp_path) == {f"{number}{ending}": data for number in range(2) for ending, data in SONG.items()}


# ---------------------------------------------------------------- many processes


class Crowd:
    """Processes that write songs into one folder, each under a name of its own."""

    def __init__(self, folder: Path, *options: str) -> None:
        self.folder = folder
        self.options = options
        self.running: dict[str, subprocess.Popen[str]] = {}
        self.n_begun = 0
        self.reported: dict[int, tuple[str, int]] = {}  # by number: who wrote the song, and its how manieth it is

    def begin(self) -> None:
        name = f"writer{self.n_begun}"
        self.n_begun += 1
        command = [sys.executable, claimers.__file__, str(self.folder), name, *self.options]
        paths = os.pathsep.join([str(ROOT), str(ROOT / "tests")])
        self.running[name] = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
                                              env=os.environ | {"PYTHONPATH": paths})

    def kill(self, name: str) -> None:
        """Kill one, and note what it reported: whole lines."""
        process = self.running.pop(name)
        process.kill()
        out, err = process.communicate()
        assert not err
        for count, line in enumerate(out.splitlines(keepends=True)):
            if line.endswith("\n"):
                assert int(line) not in self.reported
                self.reported[int(line)] = (name, count)

    def kill_all(self) -> None:
        for name in list(self.running):
            self.kill(name)


def put_in_the_way(folder: Path, dice: random.Random) -> dict[str, bytes]:
    """Files that a person puts where the next songs go, unless there is one already: name and content."""
    number = next_number(folder) + dice.randrange(8)
    theirs = {}
    for name in (f"{number}-my_idea.mid", f"{number}{dice.choice(ENDINGS)}"):
        with contextlib.suppress(FileExistsError), open(folder / name, "xb") as file:
            theirs[name] = b"mine"
            file.write(b"mine")
    return theirs


def crowded(folder: Path, kills: int, n_at_once: int, option: str, seed: int) -> Crowd:
    """Let processes write, kill so many of them, put a person's files between theirs; check all that is there."""
    dice = random.Random(seed)
    crowd = Crowd(folder, option)
    theirs: dict[str, bytes] = {}
    try:
        for _ in range(n_at_once):
            crowd.begin()
        until = time.monotonic() + 60
        while next_number(folder) < n_at_once and time.monotonic() < until:
            time.sleep(0.01)
        for _ in range(kills):
            theirs |= put_in_the_way(folder, dice)
            time.sleep(dice.uniform(0, 0.1))
            crowd.kill(dice.choice(list(crowd.running)))
            crowd.begin()
    finally:
        crowd.kill_all()
    check_songs(crowd, theirs)
    return crowd


def check_songs(crowd: Crowd, theirs: dict[str, bytes]) -> None:
    """Each song that was reported is there with its stems, as are a person's files; nothing there is half a file."""
    found = content(crowd.folder)
    assert {name: found.get(name) for name in theirs} == theirs
    for number, (name, count) in crowd.reported.items():
        for ending, data in files_of(name, count).items():
            assert found.pop(f"{number}{ending}") == data, (number, ending, name)
    for name, data in found.items():  # of the killed
        if name in theirs or name.endswith(".unfinished"):
            continue
        if not data and "old-disk" in crowd.options:  # killed between making a file and filling it
            continue
        number, ending = name.split(".")[0].split("-")[0], name.lstrip("0123456789")
        writer, count = data.split()[:2]
        expected = files_of(writer.decode(), int(count))
        assert data == expected[ending], name
        if ending == ".mid":
            assert all(found[f"{number}{other}"] == expected[other] for other in ENDINGS)


@pytest.mark.parametrize("option", ["links", "old-disk"])
def test_eight_processes_killed_at_random_lose_nothing(tmp_path, option):
    crowd = crowded(tmp_path, 8, 8, option, seed=0)
    assert len(crowd.reported) >= 8 and len({name for name, _ in crowd.reported.values()}) >= 4


@pytest.mark.slow
@pytest.mark.parametrize("option", ["links", "old-disk"])
def test_eight_processes_killed_hundreds_of_times_lose_nothing(tmp_path, option):
    n_songs = n_left = 0
    for seed in range(15):
        (tmp_path / str(seed)).mkdir()
        crowd = crowded(tmp_path / str(seed), 20, 8, option, seed)
        n_songs += len(crowd.reported)
        n_left += sum(name.endswith(".unfinished") for name in content(crowd.folder))
    print(f"\n{option}: {n_songs} songs reported, {n_left} unfinished ones left by kills", end="")
    assert n_songs > 1000 and n_left > 0


def test_processes_that_replace_each_others_songs_never_mix_them(tmp_path):
    crowd = Crowd(tmp_path, "2")
    for _ in range(4):
        crowd.begin()
    for process in crowd.running.values():
        assert process.communicate(timeout=60)[1] == "" and process.returncode == 0
    found = content(tmp_path)
    assert len(found) == 2 * len(ENDINGS)
    for number in range(2):
        writer, count = found[f"{number}.mid"].split()[:2]
        expected = files_of(writer.decode(), int(count))
        assert {ending: found[f"{number}{ending}"] for ending in ENDINGS} == expected


def test_entries_of_the_log_do_not_mix(tmp_path):
    code = ("from backline.generation.run_log import log_run; import sys; from pathlib import Path\n"
            "for i in range(40): log_run(Path(sys.argv[1]), {'songs': [sys.argv[2]] * 2000})")
    writers = [subprocess.Popen([sys.executable, "-c", code, tmp_path, str(i)], cwd=ROOT) for i in range(3)]
    assert [writer.wait(60) for writer in writers] == [0, 0, 0]
    found = (tmp_path / "genconfigs.txt").read_text().split("=" * 80 + "\n")[2::2]
    (tmp_path / "genconfigs.txt").unlink()
    log_run(tmp_path, {"songs": ["1"] * 2000})
    one = (tmp_path / "genconfigs.txt").read_text().split("=" * 80 + "\n")[2]
    assert len(found) == 120
    assert set(found) == {one.replace('"1"', f'"{i}"') for i in range(3)}
