"""The whole chain on the corpora beside the repository: minutes, so `make slow` runs it and `make test` does not."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tarfile
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def work(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("corpus")


@pytest.fixture
def unpack(shared, work):
    def unpacked(name: str) -> Path:
        archive = shared / "data" / f"{name}.tar.xz"
        if not archive.is_file():
            pytest.skip(f"{archive.name} is not beside the repository")
        if not (work / name).exists():
            with tarfile.open(archive) as tar:
                tar.extractall(work, filter="data")
        return work / name

    return unpacked


def run(work: Path, script: str, *arguments: object) -> str:
    """Run a stage in `work`; prints its wall time and last words, and returns what it printed."""
    began = time.monotonic()
    done = subprocess.run([sys.executable, ROOT / script, *map(str, arguments)], cwd=work, capture_output=True,
                          text=True, check=False)
    print(f"\n{script}: {time.monotonic() - began:.0f} s\n{done.stdout}", end="")
    assert done.returncode == 0, done.stderr
    return done.stdout


def report(folder: Path) -> list[dict]:
    return [json.loads(line) for line in (folder / "report.jsonl").read_text().splitlines()]


def test_messy_files_stop_nothing(unpack, work):
    folder = unpack("messy_midi")
    run(work, "clean_midi.py", "-o", "messy_cleaned", folder.name)
    run(work, "tokenizer.py", "-td", "messy_tokens", folder.name)
    n_files = sum(path.is_file() for path in folder.rglob("*.mid"))
    for name in ("messy_cleaned", "messy_tokens"):
        rows = report(work / name)
        assert len(rows) == n_files
        assert all(row["verdict"] == "kept" or row["reason"] for row in rows)


def test_chain_on_lakh_songs(unpack, work):
    folder = unpack("lakh_songs")
    run(work, "clean_midi.py", "-o", "cleaned", folder.name)
    rows = report(work / "cleaned")
    kept = [row for row in rows if row["verdict"] == "kept"]
    assert len(rows) == sum(path.is_file() for path in folder.rglob("*.mid"))
    assert len(kept) > 0.75 * len(rows)  # the limit on the grid alone leaves out an eighth
    run(work, "tokenizer.py", "--no-events", "-td", "tokens", "cleaned")
    tokenized = report(work / "tokens")
    assert all(row["verdict"] == "kept" for row in tokenized)  # what was cleaned can be tokenized
    print(f"notes: {sum(row['notes'] for row in tokenized):,}")
    said = run(work, "prepare.py", "dataset.pt", "-b", 512, "-fp", "tokens")
    n_songs, n_duplicates = map(int, re.search(r": (\d+) songs \(0 files left out, (\d+) duplicates\)", said).groups())
    assert n_songs + n_duplicates == len(kept)
    assert 0 < n_duplicates < 0.05 * len(kept)
