"""inline.py: what a cell shows holds the songs it is given, and nothing else."""

from __future__ import annotations

import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pages import V, page_data
from random_songs import random_song, whole

from errors import UserError
from inline import Player, player
from songs import TICKS_PER_QUARTER
from vocab import FIRST_ID, QUARTERS_PER_BAR

ROOT = Path(__file__).parents[1]


def frames(markup: str) -> list[dict[str, str]]:
    """The attributes of the frames in a piece of HTML."""
    found = []
    parser = HTMLParser()
    parser.handle_starttag = lambda tag, attributes: found.append(dict(attributes)) if tag == "iframe" else None
    parser.feed(markup)
    return found


def shown(made: Player, tmp_path: Path) -> dict[str, Any]:
    """The data that the script of the framed page gets."""
    (frame,) = frames(made._repr_html_())
    (tmp_path / "page.html").write_text(frame["srcdoc"], encoding="utf-8")
    return page_data(tmp_path / "page.html")


def written(rows: np.ndarray) -> list[tuple[int, float, float, int]]:
    """(part, onset, end, pitch) of the notes of (N, F) rows, times in ticks, sorted."""
    step = TICKS_PER_QUARTER // V.steps_per_quarter
    onset = (rows[:, 0] - FIRST_ID) * QUARTERS_PER_BAR * TICKS_PER_QUARTER + (rows[:, 1] - FIRST_ID) * step
    end = onset + (rows[:, 2] - FIRST_ID + 1) * step
    return sorted(zip(V.part_of_id[rows[:, 3]].tolist(), onset.tolist(), end.tolist(),
                      V.pitch_of_id[rows[:, 3]].tolist(), strict=True))


def held(idea: dict[str, Any], old: bool | None = None) -> list[tuple[int, float, float, int]]:
    """The same of an idea on the page; perhaps only those that are old, or are not."""
    return sorted((p, onset, end, pitch) for p, part in enumerate(idea["notes"])
                  for onset, end, pitch, was_there in part if old in (None, bool(was_there)))


def test_it_holds_the_notes_of_each_song(tmp_path):
    songs = {"One": random_song(1, 60, 4), "Two": random_song(2, 30, 2)}
    ideas = shown(player(songs, V, tempo=97.0), tmp_path)["ideas"]
    assert [(idea["title"], idea["tempo"]) for idea in ideas] == [("One", 97.0), ("Two", 97.0)]
    for idea, rows in zip(ideas, songs.values(), strict=True):
        assert held(idea) == written(rows) and held(idea, old=True) == []


def test_notes_that_were_there_are_marked(tmp_path):
    rows = random_song(1, 60, 4)
    (idea,) = shown(player({"": rows}, V, kept=rows[::3]), tmp_path)["ideas"]
    assert held(idea, old=True) == written(rows[::3])
    assert held(idea, old=False) == written(np.delete(rows, np.s_[::3], axis=0))


def test_ids_as_the_tokenizer_gives_them_will_do_and_so_will_none(tmp_path):
    rows = random_song(1, 60, 4)
    songs = {"list": whole(rows).tolist(), "silence": rows[:0]}
    song, silence = shown(player(songs, V, kept=rows[:0]), tmp_path)["ideas"]
    assert held(song) == written(rows) and held(silence) == []


def test_the_frame_is_closed_whatever_the_titles(tmp_path):
    titles = ["</script><b>bold</b>", '" onload="alert(1)', "Prélude ☃ &amp;"]
    made = player(dict.fromkeys(titles, random_song(1, 20, 2)), V)
    (frame,) = frames(made._repr_html_())
    assert set(frame) == {"srcdoc", "sandbox", "title", "style"} and frame["sandbox"] == "allow-scripts"
    assert frame["srcdoc"].encode() == made.page
    assert [idea["title"] for idea in shown(made, tmp_path)["ideas"]] == titles
    assert len(repr(made)) < 80  # a cell falls back on it


def test_what_cannot_be_shown():
    with pytest.raises(UserError, match="no songs to show"):
        player({}, V)
    with pytest.raises(UserError, match=r"A song: row 0 .* is outside the vocabulary"):
        player({"A song": [[4, 4, 4, 9999]]}, V)


def test_it_needs_neither_torch_nor_jupyter():
    code = "import sys, inline\nassert not {'torch', 'matplotlib', 'IPython'} & set(sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
