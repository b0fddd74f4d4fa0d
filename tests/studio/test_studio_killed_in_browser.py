"""The studio killed again and again while a scripted browser works on its page: nothing is lost or doubled."""

from __future__ import annotations

import contextlib
import json
import random
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from browsers import Browser, browser
from commands import ROOT
from playing import song_file

from backline.common.files import file_hash
from backline.listening.song_view import view_song
from backline.music.vocab import load_vocabulary

VOCABULARY = load_vocabulary()
LONGEST_WAIT = 0.8  # seconds between the last action and the kill
READY = "page.studio.byId.size > 0 && document.getElementById('summary').textContent"
KNOWN = """[...page.studio.byId.values()].map(({ idea, kept }) => [idea.hash, kept.star, kept.name])"""
ANY_CARD = "[...page.studio.byId.values()][NUMBER % page.studio.byId.size]"
ACTIONS = {
    "make": "document.getElementById('make').click()",
    "again": "(CARD.select({ first: 1, last: 1 }), CARD.again())",
    "vary": "CARD.vary(0.5)",
    "trim": "CARD.edit({ operation: 'trim', first: 1, last: 1 })",
    "star": "CARD.keep({ star: true })",
    "name": "CARD.keep({ name: 'name NUMBER' })",
    "delete": "(page.studio.byId.size > 2 && CARD.throwAway())",
    "undo": "page.studio.undo.click()",
    "redo": "page.studio.redo.click()",
}


@contextlib.contextmanager
def started(folder: Path, model: Path) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """The studio in a process, and the address that it prints."""
    command = [sys.executable, str(ROOT / "studio.py"), str(folder), "--no-browser", "--port", "0", "-mp", str(model)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        try:
            yield process, process.stdout.readline().strip()
        finally:
            process.kill()


def songs_of(folder: Path) -> dict[str, list[Path]]:
    """The whole songs of a folder, by hash."""
    found: dict[str, list[Path]] = {}
    for path in sorted(folder.glob("*.mid")):
        if re.fullmatch(r"\d+\.mid", path.name):
            view_song(path, VOCABULARY)  # it can be read
            found.setdefault(file_hash(path), []).append(path)
    return found


def act(tab: Browser, chance: random.Random) -> str:
    """Do something that people do; returns what."""
    name = chance.choice(sorted(ACTIONS))
    number = str(chance.randrange(1000))
    script = ACTIONS[name].replace("CARD", ANY_CARD).replace("NUMBER", number)
    tab.js(f"(void ({script}), 0)")
    return name


def kill_while_working(tab: Browser, folder: Path, model: Path, chance: random.Random) -> None:
    """One life of the studio, from its start to its kill; the folder is checked before and after."""
    with started(folder, model) as (process, address):
        tab.errors.clear()
        tab.open(address)
        tab.wait(READY)
        before = songs_of(folder)
        known = tab.js(KNOWN)
        assert sorted(hash_ for hash_, *_ in known) == sorted(before), "the page shows what is in the folder"
        assert all(len(paths) == 1 for paths in before.values()), "nothing is doubled"
        sidecar = folder / "studio.json"
        kept = json.loads(sidecar.read_text())["ideas"] if sidecar.exists() else {}
        for hash_, star, name in known:
            assert [star, name] == [kept.get(hash_, {}).get("star", False), kept.get(hash_, {}).get("name", "")]
        for _ in range(chance.randint(1, 5)):
            act(tab, chance)
            time.sleep(chance.random() * 0.2)
        time.sleep(chance.random() * LONGEST_WAIT)
        process.send_signal(signal.SIGKILL)
        process.wait()
    there = songs_of(folder).keys() | songs_of(folder / "bin").keys()
    assert before.keys() <= there, "what was there is there, or in the bin"
    tab.wait("document.getElementById('message').textContent.includes('does not answer')")


@pytest.mark.parametrize("n_kills", [2, pytest.param(50, marks=pytest.mark.slow)])
def test_kills_at_random_moments_lose_and_double_nothing(given_path, tmp_path, n_kills):
    folder = tmp_path / "ideas"
    folder.mkdir()
    song_file(folder / "0.mid")
    chance = random.Random(n_kills)
    with browser("chromium", tmp_path) as tab:
        tab.resize(1280, 900)
        for _ in range(n_kills):
            kill_while_working(tab, folder, given_path, chance)
    whole = songs_of(folder).keys() | songs_of(folder / "bin").keys()
    assert len(whole) > n_kills / 2, "most lives were long enough to make something"
