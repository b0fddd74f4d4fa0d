from __future__ import annotations

import shutil
import subprocess

import pytest
import torch

from backline.common import surroundings


def test_surroundings_are_plain_data():
    found = surroundings.run_surroundings(("train_pool.py", "-d", "cpu"), torch.device("cpu"), 2)
    assert found["command"] == ["train_pool.py", "-d", "cpu"]
    assert (found["device"], found["processes"], found["threads"]) == ("cpu", 2, torch.get_num_threads())
    assert found["versions"]["torch"] == torch.__version__
    assert type(found["versions"]["torch"]) is str


def test_commit_is_that_of_the_folder_itself_and_says_if_files_differ(tmp_path):
    assert surroundings.commit(tmp_path) is None
    if not shutil.which("git"):
        pytest.skip("git is not installed")

    def git(*args: str) -> str:
        return subprocess.run(["git", "-c", "user.name=a", "-c", "user.email=a@b", *args], cwd=tmp_path, check=True,
                              capture_output=True, text=True).stdout.strip()

    git("init")
    assert surroundings.commit(tmp_path) is None  # no commit yet
    (tmp_path / "file").write_text("1")
    git("add", "file")
    git("commit", "-m", "first")
    git("tag", "v1")
    assert surroundings.commit(tmp_path) == git("rev-parse", "HEAD")
    (tmp_path / "file").write_text("2")
    assert surroundings.commit(tmp_path) == git("rev-parse", "HEAD") + "-dirty"
    (tmp_path / "inside").mkdir()
    assert surroundings.commit(tmp_path / "inside") is None  # another project's


def test_without_git_there_is_no_commit(monkeypatch):
    monkeypatch.setattr(shutil, "which", lambda _name: None)
    assert surroundings.commit() is None
