"""Models by their address on the hub, fetched from a stand-in on this machine."""

from __future__ import annotations

import hashlib
import http.server
import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from commands import ROOT
from midi_bytes import notes_of

from backline.common import hub
from backline.common.errors import UserError
from backline.common.hub import fetched
from backline.common.paths import BUNDLED_MODEL
from backline.music.midi_reader import read_song

COMMIT = "0123456789012345678901234567890123456789"


class Hub(http.server.BaseHTTPRequestHandler):
    """As much of the hub as a download takes: one repository with one file."""

    content = BUNDLED_MODEL.read_bytes()
    asked: list[str]

    def do_HEAD(self) -> None:
        self.answer(with_body=False)

    def do_GET(self) -> None:
        self.answer(with_body=True)

    def answer(self, with_body: bool) -> None:
        self.asked.append(f"{self.command} {self.path}")
        if not self.path.startswith(("/band/trio/resolve/main/model.safetensors", "/band/trio/resolve/v2/")):
            self.send_response(404)
            self.send_header("X-Error-Code", "RepoNotFound")
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        self.send_response(200)
        self.send_header("ETag", f'"{hashlib.sha256(self.content).hexdigest()}"')
        self.send_header("X-Repo-Commit", COMMIT)
        self.send_header("Content-Length", str(len(self.content)))
        self.end_headers()
        if with_body:
            self.wfile.write(self.content)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def served():
    """The environment of a process whose hub is the stand-in, and what that is asked for."""
    asked: list[str] = []
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), type("Served", (Hub,), {"asked": asked}))
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}", asked
    server.shutdown()
    thread.join()
    server.server_close()


def run(command: str, *arguments: object, cwd: Path, endpoint: str, **environment: str):
    env = {**os.environ, "HF_ENDPOINT": endpoint, "HF_HOME": str(cwd / "cache"), "HF_HUB_DISABLE_XET": "1",
           "NO_PROXY": "127.0.0.1", **environment}
    return subprocess.run([sys.executable, ROOT / f"{command}.py", *map(str, arguments)], cwd=cwd, env=env,
                          capture_output=True, text=True, check=False)


def test_a_model_is_fetched_once_and_then_played_without_a_network(tmp_path, served):
    endpoint, asked = served
    (tmp_path / "short.json").write_text('{"max_steps": 24, "all_parts": false, "go_on": false, "draws": 1}')
    options = ["-mp", "hf:band/trio", "--genconfig", "short.json", "--seed", 1, "-o"]
    done = run("generate", *options, "out", cwd=tmp_path, endpoint=endpoint)
    assert done.returncode == 0, done.stderr
    assert "GET /band/trio/resolve/main/model.safetensors" in asked
    asked.clear()
    again = run("generate", *options, "again", cwd=tmp_path, endpoint=endpoint, HF_HUB_OFFLINE="1")
    assert again.returncode == 0 and asked == []
    local = run("generate", "-mp", BUNDLED_MODEL, *options[2:], "local", cwd=tmp_path, endpoint=endpoint)
    assert local.returncode == 0
    songs = [read_song(tmp_path / folder / "0.mid") for folder in ("out", "again", "local")]
    assert notes_of(songs[0]) == notes_of(songs[1]) == notes_of(songs[2]) != []


def test_what_the_hub_does_not_have_is_one_line(tmp_path, served):
    endpoint, _ = served
    for address in ("hf:band/none", "hf:band/trio/other.safetensors"):
        done = run("generate", "-mp", address, cwd=tmp_path, endpoint=endpoint)
        assert done.returncode == 2 and done.stderr.count("\n") == 1, done.stderr
        assert done.stderr.startswith(f"error: {address}: cannot be fetched (") and "give its path" in done.stderr
    offline = run("generate", "-mp", "hf:band/trio", cwd=tmp_path, endpoint=endpoint, HF_HUB_OFFLINE="1")
    assert offline.returncode == 2 and offline.stderr.count("\n") == 1, offline.stderr
    assert not (tmp_path / "generated").exists()


@pytest.mark.parametrize(("text", "words"), [
    ("hf:trio", "not an address on the hub"), ("hf:", "not an address"), ("hf:a/b@", "not an address"),
    ("hf:../../etc", "not an address"),
    ("hf:band/trio/last.pth", "only .safetensors files are taken from the hub")])
def test_addresses_that_are_none(text, words):
    with pytest.raises(UserError, match=words):
        fetched(Path(text))


def test_paths_stay_paths_and_a_missing_library_is_named(monkeypatch):
    assert fetched(Path("models/hf.safetensors")) == Path("models/hf.safetensors")
    monkeypatch.setattr(hub, "is_installed", lambda _: False)
    with pytest.raises(UserError, match=r"needs huggingface_hub, .*requirements-hub\.txt"):
        fetched(Path("hf:band/trio"))


def test_a_file_and_a_revision_can_be_named(monkeypatch):
    asked = []
    monkeypatch.setattr(hub, "_downloaded", lambda *arguments: asked.append(arguments) or Path("there"))
    fetched(Path("hf:band/trio/small/model.safetensors@v2"))
    fetched(Path("hf:band/trio@refs/pr/1"))
    assert [arguments[1:] for arguments in asked] == [("band/trio", "small/model.safetensors", "v2"),
                                                      ("band/trio", "model.safetensors", "refs/pr/1")]
