"""What a cell of a notebook shows holds the songs it is given, and nothing else."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import numpy as np
import pytest
from commands import ROOT
from pages import V, data_in, frames, notes_of_idea, notes_of_rows
from random_songs import random_song, whole

from backline.common.errors import UserError
from backline.listening.ideas_page import music_data
from backline.listening.notebook_player import Player, player
from backline.listening.song_view import view_song


def shown(made: Player) -> dict[str, Any]:
    """The data that the script of the framed page gets."""
    (frame,) = frames(made._repr_html_())
    return data_in(frame["srcdoc"])


def test_it_holds_the_notes_of_each_song():
    songs = {"One": random_song(1, 60, 4), "Two": random_song(2, 30, 2)}
    ideas = shown(player(songs, V, tempo=97.0))["ideas"]
    assert [(idea["title"], idea["tempo"]) for idea in ideas] == [("One", 97.0), ("Two", 97.0)]
    for idea, rows in zip(ideas, songs.values(), strict=True):
        assert notes_of_idea(idea) == notes_of_rows(rows) and notes_of_idea(idea, old=True) == []


def test_notes_that_were_there_are_marked():
    rows = random_song(1, 60, 4)
    (idea,) = shown(player({"": rows}, V, kept=rows[::3]))["ideas"]
    assert notes_of_idea(idea, old=True) == notes_of_rows(rows[::3])
    assert notes_of_idea(idea, old=False) == notes_of_rows(np.delete(rows, np.s_[::3], axis=0))


def test_ids_as_the_tokenizer_gives_them_will_do_and_so_will_none():
    rows = random_song(1, 60, 4)
    songs = {"list": whole(rows).tolist(), "silence": rows[:0]}
    song, silence = shown(player(songs, V, kept=rows[:0]))["ideas"]
    assert notes_of_idea(song) == notes_of_rows(rows) and notes_of_idea(silence) == []


def test_the_frame_is_closed_whatever_the_titles():
    titles = ["</script><b>bold</b>", '" onload="alert(1)', "Prélude ☃ &amp;"]
    made = player(dict.fromkeys(titles, random_song(1, 20, 2)), V)
    (frame,) = frames(made._repr_html_())
    assert set(frame) == {"srcdoc", "sandbox", "title", "style"} and frame["sandbox"] == "allow-scripts"
    assert frame["srcdoc"].encode() == made.page
    assert [idea["title"] for idea in shown(made)["ideas"]] == titles
    assert len(repr(made)) < 80  # a cell falls back on it


def test_what_cannot_be_shown():
    with pytest.raises(UserError, match="no songs to show"):
        player({}, V)
    with pytest.raises(UserError, match=r"A song: row 0 .* is outside the vocabulary"):
        player({"A song": [[4, 4, 4, 9999]]}, V)
    with pytest.raises(UserError, match="player: tempo must be"):
        player({"A song": random_song(1, 20, 2)}, V, tempo=0)


def test_it_needs_neither_torch_nor_jupyter():
    code = ("import sys; import backline.listening.notebook_player\n"
            "assert not {'torch', 'matplotlib', 'IPython'} & set(sys.modules)")
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_a_midi_file_is_shown_as_it_is_with_the_place_where_its_prompt_ends():
    path = ROOT / "examples/continued/0.mid"
    (idea,) = shown(player({"continued": path}, V))["ideas"]
    view, _ = view_song(path, V)
    assert idea["notes"] == music_data(view, len(V.parts))["notes"]
    assert idea["fresh"] == [list(view.fresh[0])] and idea["fresh"][0][0] > 0 and idea["key"] and idea["chords"]


def test_ids_after_kept_ones_are_where_the_new_begins():
    rows = random_song(0, 40, 4)
    (idea,) = shown(player({"": rows}, V, kept=rows[:20]))["ideas"]
    begin = min(onset for part in idea["notes"] for onset, _, _, old, *_ in part if not old)
    assert idea["fresh"] == [[begin, idea["bars"] * 4 * idea["ticks_per_quarter"]]]
