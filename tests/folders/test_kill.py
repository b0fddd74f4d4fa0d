"""Folder runs over a real corpus, killed at random moments and repeated: `make slow` runs it, `make test` does not."""

from __future__ import annotations

import json
import random
import signal
import subprocess
import sys
import tarfile
import time
from pathlib import Path

import pytest
from commands import ROOT

KILLS = 20
pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def corpus(shared, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("corpus")
    with tarfile.open(shared / "data" / "lakh_songs.tar.xz") as archive:
        archive.extractall(folder, filter="data")
    return folder


def command(script: str, *options: object) -> list[str]:
    return [sys.executable, str(ROOT / script), *map(str, options)]


def tree(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def is_whole(path: Path) -> bool:
    """Whether a visible output is a complete file of its kind."""
    data = path.read_bytes()
    if path.suffix == ".json":
        return json.loads(data)["ids"][-1] == [2, 2, 2, 2]
    return data.startswith(b"MThd") and data.endswith(b"\xff\x2f\x00")


@pytest.mark.parametrize(("script", "out_option", "options"), [
    ("clean_midi.py", "-o", []), ("tokenizer.py", "-td", ["--no-events", "--ranges", "octave"])])
def test_killed_twenty_times_ends_as_if_never(corpus, script, out_option, options):
    def run(out: str) -> list[str]:
        return command(script, "lakh_songs", out_option, out, *options)

    began = time.monotonic()
    subprocess.run(run(f"{script}-undisturbed"), cwd=corpus, check=True, capture_output=True)
    undisturbed_seconds = time.monotonic() - began
    dice = random.Random(script)
    kills = 0
    while kills < KILLS:
        child = subprocess.Popen(run(f"{script}-killed"), cwd=corpus, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        time.sleep(dice.uniform(0.5, 0.9 + 1.6 * undisturbed_seconds / KILLS))
        child.send_signal(signal.SIGKILL)
        child.communicate()
        if child.returncode == -signal.SIGKILL:
            kills += 1
        seen = [path for path in (corpus / f"{script}-killed").rglob("*")
                if path.suffix in (".mid", ".json") and not path.name.startswith(".")]
        assert all(map(is_whole, seen))
        print(f"\n{script}: kill {kills}, {len(seen)} files there", end="")
        if not (corpus / f"{script}-killed" / ".report.sqlite").exists() and seen:
            break  # it was done already
    print(f"\n{script}: {kills} kills")
    assert kills >= KILLS // 2
    last = subprocess.run(run(f"{script}-killed"), cwd=corpus, check=True, capture_output=True, text=True)
    assert "before" in last.stderr
    expected, found = tree(corpus / f"{script}-undisturbed"), tree(corpus / f"{script}-killed")
    assert found.keys() == expected.keys()
    for name, data in expected.items():
        # the summary in the log names the folder
        assert found[name] == (data.replace(b"-undisturbed", b"-killed") if name == "logs.txt" else data), name
