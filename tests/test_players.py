"""What `requirements-play.txt` is enough for: these commands run where the rest of the toolkit is not installed."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest
from commands import ROOT
from playing import given_path, song_file  # noqa: F401 (a fixture)

from backline.common.installed import NOT_FOR_PLAYING
from backline.common.paths import BUNDLED_MODEL
from backline.music.midi_reader import read_song

BLOCKING = """
import sys
class Without:
    def __init__(self, finder):
        self.finder = finder
    def find_spec(self, name, path=None, target=None):
        return None if name.partition(".")[0] in MODULES else self.finder.find_spec(name, path, target)
    def __getattr__(self, name):
        return getattr(self.finder, name)
sys.meta_path[:] = map(Without, sys.meta_path)
sys.argv = ARGV
import COMMAND
sys.exit(COMMAND.main())
"""
# What an installation of the whole toolkit has, by the names that are imported.
ALL = ["torch", "matplotlib", "datasketch", "sklearn", "scipy"]
PIP_NAMES = {"scikit-learn": "sklearn"}


def run(folder: Path, command: str, *arguments: object, missing: list[str] = ALL) -> subprocess.CompletedProcess:
    """A command of the toolkit in a process in which `missing` are not installed."""
    argv = [f"{command}.py", *map(str, arguments)]
    code = BLOCKING.replace("MODULES", repr(missing)).replace("ARGV", repr(argv)).replace("COMMAND", command)
    return subprocess.run([sys.executable, "-c", code], cwd=folder, env={"PYTHONPATH": str(ROOT), "PATH": ""},
                          capture_output=True, text=True, check=False)


def requirements(name: str) -> set[str]:
    lines = (ROOT / name).read_text(encoding="utf-8").splitlines()
    return {line.partition("==")[0] for line in lines if re.match(r"[a-z]", line)}


def test_the_list_of_what_is_not_installed_is_that_of_the_requirements():
    rest = requirements("requirements.txt")
    assert {PIP_NAMES.get(name, name) for name in rest} == set(ALL) - {"scipy"}  # that comes with scikit-learn
    assert set(NOT_FOR_PLAYING) == set(ALL) - {"scipy"}
    assert not rest & requirements("requirements-play.txt")


def test_songs_their_page_and_songs_to_given_ones_need_no_torch(tmp_path, given_path):  # noqa: F811
    song_file(tmp_path / "song.mid")
    (tmp_path / "short.json").write_text('{"max_steps": 24, "all_parts": false, "go_on": false}')
    short = ["-mp", given_path, "--genconfig", "short.json", "-o", "out", "--seed", 1]
    for arguments in (["-n", 2], ["-p", "song.mid", "--given", "bass", "--dtype", "int8"],
                      ["-p", "song.mid", "--fill", "2"], ["--key", "Am", "--check-copies"]):
        done = run(tmp_path, "generate", *arguments, *short)
        if "--check-copies" in arguments:
            assert done.returncode in (0, 2), done.stderr  # this model has no index of copies
            continue
        assert done.returncode == 0, done.stderr
        assert "Traceback" not in done.stderr
    assert len(list((tmp_path / "out").glob("?.mid"))) >= 4
    assert (tmp_path / "out/index.html").exists()
    done = run(tmp_path, "generate", "--reproduce", "out/0.mid", "-o", "again", "-mp", given_path)
    assert done.returncode == 0 and "the same bytes" in done.stdout, done.stderr
    assert run(tmp_path, "page", "out").returncode == 0


def test_the_studio_needs_no_torch(tmp_path):
    """It comes as far as the model, which is not there."""
    done = run(tmp_path, "studio", "ideas", "-mp", "none.safetensors", "--no-browser", "--port", 0)
    assert (done.returncode, done.stderr.count("\n")) == (2, 1) and "none.safetensors" in done.stderr


def test_the_bundled_model_plays_chords_without_torch(tmp_path):
    (tmp_path / "short.json").write_text('{"max_steps": 4, "all_parts": false, "whole_bars": false}')
    done = run(tmp_path, "generate", "--chords", "Am F C G", "--genconfig", "short.json", "--seed", 1, "-o", "out")
    assert done.returncode == 0, done.stderr
    assert "notice" not in done.stderr  # it holds its logits
    assert BUNDLED_MODEL.exists()
    assert read_song(tmp_path / "out/0.mid")


def test_stems_are_joined_and_folders_tokenized_without_torch(tmp_path):
    for part in ("drums", "bass"):
        song_file(tmp_path / f"{part}.mid", (part,))
    assert run(tmp_path, "merge_midi", "joined.mid", "drums.mid", "bass.mid").returncode == 0
    done = run(tmp_path, "tokenizer", "-td", "tokens", "joined.mid")
    assert done.returncode == 0, done.stderr
    assert list((tmp_path / "tokens").rglob("*.json"))


@pytest.mark.parametrize(("arguments", "what"), [
    (["-mp", "best.pth"], "best.pth needs PyTorch, which is not installed; pip install -r requirements.txt"),
    (["-d", "cuda"], "device 'cuda' needs PyTorch, which is not installed; pip install -r requirements.txt")])
def test_what_needs_torch_says_so_in_a_line(tmp_path, monkeypatch, arguments, what):
    (tmp_path / "best.pth").write_bytes(b"PK")
    monkeypatch.chdir(tmp_path)
    done = run(tmp_path, "generate", *arguments, "-o", "out")
    assert done.returncode == 2 and "Traceback" not in done.stderr, done.stderr
    assert done.stderr.splitlines() == [f"error: {what}"]


@pytest.mark.parametrize("arguments", [
    ["train_pool", "--dataset_path", "dataset.pt"], ["evaluate", "--dataset_path", "dataset.pt"],
    ["release", "best.pth", "out.safetensors"], ["copies", "out.safetensors", "--dataset_path", "dataset.pt"],
    ["diagram", "-o", "model.png"]])
def test_the_rest_of_the_toolkit_says_in_a_line_what_it_needs(tmp_path, arguments):
    for name in ("dataset.pt", "best.pth"):
        (tmp_path / name).write_bytes(b"PK")
    done = run(tmp_path, *arguments)
    assert done.returncode == 2
    assert done.stderr == "error: this command needs PyTorch, which is not installed; pip install -r requirements.txt\n"


def test_pictures_need_matplotlib_and_say_so_before_anything_is_made(tmp_path, given_path):  # noqa: F811
    done = run(tmp_path, "generate", "-mp", given_path, "--png", "-o", "out")
    assert done.returncode == 2, done.stderr
    assert done.stderr == ("error: --png needs matplotlib, which is not installed; pip install -r requirements.txt, "
                           "or leave it out\n")
    assert not (tmp_path / "out").exists()


def test_without_onnx_runtime_a_line_says_what_installs_it(tmp_path, given_path):  # noqa: F811
    done = run(tmp_path, "generate", "-mp", given_path, "-o", "out", missing=["onnxruntime"])
    assert done.returncode == 2, done.stderr
    assert done.stderr.startswith("error: ONNX Runtime, which plays models on a CPU, cannot be imported")
    assert done.stderr.endswith("pip install -r requirements-play.txt\n") and done.stderr.count("\n") == 1
