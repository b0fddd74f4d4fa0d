"""What a piano roll says, read off the figure before it becomes a PNG."""

from __future__ import annotations

import dataclasses
import itertools
import re
from pathlib import Path

import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.collections import PolyCollection
from matplotlib.figure import Figure
from pages import TOKENIZER
from random_songs import random_song

from backline.listening import piano_roll
from backline.listening.song_view import SongView, view_of_notes
from backline.music.song import TICKS_PER_QUARTER, Song
from backline.music.theory import DRUM_NAMES
from backline.music.vocab import BAR, FIRST_ID, PITCH_INSTRUMENT, START_POS, load_vocabulary

V = load_vocabulary()


def view_of_rows(rows: np.ndarray, given: np.ndarray | None = None) -> SongView:
    """A song of rows, of which some (N,) are old."""
    given = np.zeros(len(rows), bool) if given is None else given
    part = V.part_of_id[rows[:, PITCH_INSTRUMENT]]
    old = [given[part == p] for p in range(len(V.parts))]
    return view_of_notes(Song(TICKS_PER_QUARTER, ()), TOKENIZER.rows_to_parts(rows, TICKS_PER_QUARTER), old, V)


@pytest.fixture
def drawn(monkeypatch):
    """Draw (N, F) rows, or a view of a song, and get the figure."""
    def call(song) -> Figure:
        view = view_of_rows(song) if isinstance(song, np.ndarray) else song
        figures = []
        with monkeypatch.context() as patch:
            patch.setattr(piano_roll, "png_bytes", figures.append)
            piano_roll.piano_roll(view, V)
        FigureCanvasAgg(figures[0]).draw()
        return figures[0]

    return call


def bars(axes) -> PolyCollection:
    """A part's notes."""
    return next(found for found in axes.collections if isinstance(found, PolyCollection))


def labels(axis) -> list[str]:
    return [label.get_text() for label in axis.get_ticklabels() if label.get_text()]


def test_bars_count_from_one_and_drums_have_names(drawn):
    rows = random_song(0, 200, 8)
    drums, *others = drawn(rows).axes
    n_bars = view_of_rows(rows).n_bars  # the last note may ring on past the eighth
    assert labels(others[-1].xaxis) == [str(bar) for bar in range(1, n_bars + 1)]
    pitches = np.unique(V.pitch_of_id[rows[V.part_of_id[rows[:, PITCH_INSTRUMENT]] == 0, PITCH_INSTRUMENT]])
    assert labels(drums.yaxis) == [DRUM_NAMES.get(int(pitch), str(pitch)) for pitch in pitches]
    assert [axes.get_ylabel() for axes in (drums, *others)] == list(V.part_names)


def test_every_note_stands_where_it_begins(drawn):
    rows = random_song(1, 200, 8)
    onsets = rows[:, BAR] - FIRST_ID + (rows[:, START_POS] - FIRST_ID) / V.steps_per_bar
    for p, axes in enumerate(drawn(rows).axes):
        mine = V.part_of_id[rows[:, PITCH_INSTRUMENT]] == p
        assert sorted(path.vertices[:, 0].min() for path in bars(axes).get_paths()) == pytest.approx(
            sorted(onsets[mine]))


def test_the_prompt_is_shaded_up_to_the_first_new_note(drawn):
    rows = random_song(2, 200, 8)
    n_prompt = int(np.searchsorted(rows[:, BAR], FIRST_ID + 4))
    view = view_of_rows(rows, np.arange(len(rows)) < n_prompt)
    start = 4 + (rows[n_prompt, START_POS] - FIRST_ID) / V.steps_per_bar
    fresh = ((round(start * view.bar_ticks), view.n_bars * view.bar_ticks),)
    for axes in drawn(dataclasses.replace(view, fresh=fresh)).axes:
        shade = axes.patches[-1]
        assert shade.get_x() == 0 and shade.get_width() == pytest.approx(start)
    assert "prompt" in axes.get_xlabel()


def test_given_notes_are_pale(drawn):
    rows = random_song(3, 60, 4)
    given = np.arange(len(rows)) % 2 == 0
    colors = bars(drawn(view_of_rows(rows, given)).axes[0]).get_facecolor()
    mine = V.part_of_id[rows[:, PITCH_INSTRUMENT]] == 0
    assert (colors[:, 3] < 1).tolist() == given[mine].tolist()


@pytest.mark.parametrize("n_bars", [1, 30, 100, 256])
def test_numbers_of_bars_do_not_run_into_one_another(drawn, n_bars):
    rows = random_song(4, 500, n_bars)
    figure = drawn(rows)
    boxes = [label.get_window_extent() for label in figure.axes[-1].get_xticklabels() if label.get_text()]
    assert len(boxes) >= min(n_bars, 16) - 1
    assert all(left.x1 < right.x0 for left, right in itertools.pairwise(boxes))


def test_a_song_without_notes_is_drawn(drawn):
    assert labels(drawn(random_song(0, 1, 1)[:0]).axes[-1].xaxis) == ["1"]


def test_parts_have_the_colors_of_the_page():
    style = (Path(piano_roll.__file__).parent / "web/page.css").read_text(encoding="utf-8")
    assert re.findall(r"--part-\d: (#\w+);", style)[:len(piano_roll.PART_COLORS)] == list(piano_roll.PART_COLORS)


def test_names_of_many_drums_do_not_run_into_one_another(drawn):
    rows = random_song(5, 2000, 8)
    boxes = [label.get_window_extent() for label in drawn(rows).axes[0].get_yticklabels()]
    assert len(boxes) > 40
    assert all(below.y1 < above.y0 + 1 for below, above in itertools.pairwise(boxes))  # pixels


def test_a_silent_part_has_no_pitches_to_name(drawn):
    rows = random_song(2, 200, 8)
    rows = rows[V.part_of_id[rows[:, PITCH_INSTRUMENT]] != 2]
    *playing, silent = drawn(rows).axes
    assert all(labels(axes.yaxis) for axes in playing)
    assert labels(silent.yaxis) == []


def test_silent_parts_and_kits_of_few_pieces_take_little_room(drawn):
    rows = random_song(2, 400, 8)
    part = V.part_of_id[rows[:, PITCH_INSTRUMENT]]
    is_kick = rows[:, PITCH_INSTRUMENT] == rows[part == 0][0, PITCH_INSTRUMENT]

    def heights(of_rows: np.ndarray) -> list[float]:
        return [axes.get_window_extent().height for axes in drawn(of_rows).axes]

    drums, bass, silent = heights(rows[(part == 1) | is_kick])
    assert silent < drums / 2 < drums < 0.7 * bass
    panel = drawn(rows[part == 1]).axes[2]
    label = panel.yaxis.label.get_window_extent()
    assert label.height < 1.5 * panel.get_window_extent().height
