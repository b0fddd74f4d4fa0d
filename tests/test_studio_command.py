"""studio.py itself: its address, its errors in one line, its end, and what a kill leaves."""

from __future__ import annotations

import contextlib
import random
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from commands import ROOT
from playing import song_file

import studio
from backline.common.files import file_hash
from backline.generation.recipes import read_recipe
from backline.listening.song_view import view_song
from backline.music.vocab import load_vocabulary

SECONDS = 60


@contextlib.contextmanager
def started(folder: Path, *arguments: object) -> Iterator[tuple[subprocess.Popen[str], httpx.Client]]:
    """The studio in a process, and a client that has its cookie."""
    options = ["--no-browser", "--port", "0", *map(str, arguments)]
    command = [sys.executable, str(ROOT / "studio.py"), str(folder), *options]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        try:
            address = process.stdout.readline().strip()
            origin = re.match(r"http://127\.0\.0\.1:\d+", address)[0]
            with httpx.Client(base_url=origin, headers={"Origin": origin}, trust_env=False, timeout=SECONDS) as client:
                client.get(address)
                yield process, client
        finally:
            process.kill()


@pytest.mark.parametrize(("arguments", "words"), [
    (["--port", "70000"], "--port 70000: must be from 0 to 65535"),
    (["--host", "no.such.host.invalid"], "--host no.such.host.invalid"),
    (["-mp", "none.safetensors"], "none.safetensors"),
    (["--prot", "1"], "did you mean '--port'?"),
])
def test_errors_are_one_line_with_a_remedy(tmp_path, capsys, arguments, words):
    port = [] if "--port" in arguments else ["--port", "0"]
    code = studio.main([str(tmp_path / "ideas"), "--no-browser", *port, *arguments])
    said = capsys.readouterr()
    assert code == 2 and not said.out
    assert said.err.startswith("error: ") and said.err.count("\n") == 1 and words in said.err


def test_a_port_in_use_is_one_line(tmp_path, capsys):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        assert studio.main([str(tmp_path), "--no-browser", "--port", str(port)]) == 2
    said = capsys.readouterr().err
    assert f"--port {port}" in said and "give --port 0 for a free one" in said and said.count("\n") == 1


def test_a_file_where_the_folder_should_be_is_one_line(tmp_path, capsys):
    (tmp_path / "ideas").write_text("")
    assert studio.main([str(tmp_path / "ideas"), "--no-browser", "--port", "0"]) == 2
    assert capsys.readouterr().err.count("\n") == 1


def test_other_machines_are_let_in_with_plain_words_alone(given_path, tmp_path, monkeypatch, capsys):
    from backline.studio import server

    class Nothing:
        def run(self, sockets):
            assert sockets

    monkeypatch.setattr(server, "made_server", lambda made, *_: made.close() or Nothing())
    for host, warned in (("127.0.0.1", False), ("localhost", False), ("0.0.0.0", True)):
        assert studio.main([str(tmp_path), "--no-browser", "--port", "0", "--host", host, "-mp", str(given_path)]) == 0
        said = capsys.readouterr()
        assert ("other machines of this network can reach the studio" in said.err) == warned
        assert re.match(r"http://[\w.]+:\d+/\?token=[\w-]{32}\n", said.out)
        assert ("from other machines: http://" in said.out) == warned


def test_ctrl_c_ends_it_with_a_page_open(given_path, tmp_path):
    with started(tmp_path, "-mp", given_path) as (process, client), client.stream("GET", "/api/events") as events:
        next(events.iter_lines())
        began = time.monotonic()
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=SECONDS)
        assert (process.returncode, errors) == (0, "")
        assert time.monotonic() - began < 30  # and not only when the page is closed


def check_folder(folder: Path, before: dict[str, str]) -> None:
    """Every song is whole, has its recipe and its stems; none of those from before is gone or changed."""
    for name, hash_ in before.items():
        assert file_hash(folder / name) == hash_
    hashes = []
    for path in folder.glob("*.mid"):
        if re.fullmatch(r"\d+\.mid", path.name):
            view_song(path, load_vocabulary())
            hashes.append(file_hash(path))
            if path.stem != "0":
                assert read_recipe(path)
                assert all((folder / f"{path.stem}-{part}.mid").is_file() for part in ("drums", "bass", "piano"))
    assert len(hashes) == len(set(hashes)), "nothing is doubled"


def kill_at_random(folder: Path, given_path: Path, chance: random.Random) -> None:
    """Ask for songs and edits, and kill the studio while it makes them."""
    with started(folder, "-mp", given_path) as (process, client):
        for seed in range(3):
            answer = client.post("/api/ask", json={"bars": 2, "n": 2, "seed": chance.randrange(2**31) + seed})
            assert answer.status_code == 202, answer.text
        given = client.post("/api/ask", json={"bars": 1, "seed": chance.randrange(2**31)})
        assert given.status_code == 202
        time.sleep(chance.random() * 0.4)
        process.kill()


@pytest.mark.parametrize("n_kills", [3, pytest.param(50, marks=pytest.mark.slow)])
def test_kills_at_random_lose_and_double_nothing(given_path, tmp_path, n_kills):
    song_file(tmp_path / "0.mid")
    chance = random.Random(n_kills)
    for _ in range(n_kills):
        whole = [path for path in tmp_path.glob("*.mid") if re.fullmatch(r"\d+\.mid", path.name)]
        before = {path.name: file_hash(path) for path in whole}
        kill_at_random(tmp_path, given_path, chance)
        check_folder(tmp_path, before)
    assert len(list(tmp_path.glob("?.mid"))) > 1, "some songs were written before a kill"
    with started(tmp_path, "-mp", given_path) as (_, client):
        assert client.get("/").status_code == 200
