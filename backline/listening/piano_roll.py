"""The piano roll of a song, as a picture. Imports matplotlib, which is slow: import this late."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.collections import PolyCollection
from matplotlib.colors import to_rgba
from matplotlib.figure import Figure

from backline.common.drawing import png_bytes
from backline.music.theory import DRUM_NAMES, OCTAVE
from backline.music.vocab import (
    BAR,
    FIRST_ID,
    NOTE_DUR,
    PITCH_INSTRUMENT,
    QUARTERS_PER_BAR,
    START_POS,
    Part,
    Vocabulary,
)

# As on the page (web/page.css); they start over after the last.
PART_COLORS = ("#c4561f", "#3a63c8", "#12826b", "#a3408f",
               "#8a6a00", "#6b4fc0", "#237a99", "#a83a4a")
PALE = 0.35  # opacity
PROMPT_GREY = "0.92"
PANEL_HEIGHT, PIECE_HEIGHT = 2.2, 0.17  # inches: of a part, and of a drum kit's piece
BAR_WIDTH, LEAST_WIDTH, MOST_WIDTH = 0.4, 8, 40  # inches
FEW_BARS, MANY_BARS = 24, 48
STROKE = 0.05  # width of a drum's stroke, in bars: sixteenths stay apart


class PartDrawing(NamedTuple):
    """The notes of a part as they are drawn: (N,) each, times in bars."""

    onset: np.ndarray
    length: np.ndarray
    pitch: np.ndarray
    colors: Sequence[tuple[float, ...]]


def piano_roll(rows: np.ndarray,
               vocabulary: Vocabulary,
               n_prompt: int = 0,
               title: str = "",
               given: np.ndarray | None = None) -> bytes:
    """A PNG of a song: a panel for each part, bars along the axis, drums by name.

    Bars are counted from 1, as --fill counts them.

    Args:
        rows: (N, F) note ids in order.
        n_prompt: the number of notes, at the beginning, that are the prompt's. They stand on a
            grey ground, unless there is `given`.
        given: (N,) bool, which notes are drawn pale, because they were there before.
    """
    onset = _onset_bars(rows, vocabulary)
    opacity = np.ones(len(rows))
    if given is not None:
        opacity[given] = PALE
    first = 0
    last = 1  # bars, exclusive
    if len(rows):
        first = int(onset.min())
        last = int(onset.max()) + 1

    drawings = _part_drawings(rows, vocabulary, opacity)
    figure, panels = _figure(vocabulary, drawings, last - first)
    for part, axes, drawing in zip(vocabulary.parts, panels, drawings, strict=True):
        _part_panel(axes, part, drawing)
        axes.set_xlim(first, last)
        _bar_axis(axes, first, last)
        axes.set_axisbelow(True)
        if n_prompt and given is None:
            prompt_end = onset[min(n_prompt, len(rows) - 1)]
            axes.axvspan(first, prompt_end, color=PROMPT_GREY, zorder=0)
    panels[-1].set_xlabel("bar" + _meaning(n_prompt, given))
    figure.suptitle(title)
    return png_bytes(figure)


def _onset_bars(rows: np.ndarray, vocabulary: Vocabulary) -> np.ndarray:
    """(N,) when each of (N, F) notes begins, in bars, as all times here."""
    bar = rows[:, BAR] - FIRST_ID
    step = rows[:, START_POS] - FIRST_ID
    return bar + step / vocabulary.steps_per_bar


def _part_drawings(rows: np.ndarray,
                   vocabulary: Vocabulary,
                   opacity: np.ndarray) -> list[PartDrawing]:
    """What to draw of each part of (N, F) notes, whose `opacity` is (N,)."""
    onset = _onset_bars(rows, vocabulary)
    n_steps = rows[:, NOTE_DUR] - FIRST_ID + 1
    length = n_steps / vocabulary.steps_per_bar
    ids = rows[:, PITCH_INSTRUMENT]
    pitch = vocabulary.pitch_of_id[ids]
    part_of_note = vocabulary.part_of_id[ids]
    drawings = []
    for p in range(len(vocabulary.parts)):
        mine = part_of_note == p
        color = PART_COLORS[p % len(PART_COLORS)]
        colors = [to_rgba(color, alpha) for alpha in opacity[mine]]
        drawing = PartDrawing(onset[mine], length[mine], pitch[mine], colors)
        drawings.append(drawing)
    return drawings


def _figure(vocabulary: Vocabulary, drawings: list[PartDrawing], n_bars: int,
            ) -> tuple[Figure, np.ndarray]:
    """An empty figure, and a panel for each part: as high as its drum kit needs."""
    heights = []
    for part, drawing in zip(vocabulary.parts, drawings, strict=True):
        n_pieces = len(np.unique(drawing.pitch)) if part.is_drum else 0
        height = max(PANEL_HEIGHT, PIECE_HEIGHT * n_pieces)
        heights.append(height)
    width = max(LEAST_WIDTH, BAR_WIDTH * n_bars)
    width = min(width, MOST_WIDTH)
    figure = Figure(figsize=(width, sum(heights)), layout="constrained")
    panels = figure.subplots(len(heights),
                             1,
                             sharex=True,
                             squeeze=False,
                             height_ratios=heights)
    return figure, panels[:, 0]


def _meaning(n_prompt: int, given: np.ndarray | None) -> str:
    """What grey or pale says, for the axis."""
    if given is not None:
        return " (pale: what was given)"
    return " (grey: the prompt)" if n_prompt else ""


def _bar_axis(axes: Axes, first: int, last: int) -> None:
    """A line where each bar begins, with its number; beats too where bars are few.

    Where bars are many, only every fourth or sixteenth is numbered.
    """
    n_bars = last - first
    every = 16
    if n_bars <= MANY_BARS:
        every = 1
    elif n_bars <= 4 * MANY_BARS:
        every = 4
    bars = range(first, last)
    numbers = [f"{bar + 1}" if bar % every == 0 else "" for bar in bars]
    axes.set_xticks(bars, numbers, fontsize=9)
    axes.grid(axis="x", alpha=0.5)
    if n_bars <= FEW_BARS:
        n_beats = QUARTERS_PER_BAR * n_bars
        beats = [beat for beat in range(n_beats) if beat % QUARTERS_PER_BAR]
        places = [first + beat / QUARTERS_PER_BAR for beat in beats]
        axes.set_xticks(places, minor=True)
        axes.tick_params(which="minor", length=0)
        axes.grid(axis="x",
                  which="minor",
                  alpha=0.5,
                  linestyle=":",
                  linewidth=0.5)


def _part_panel(axes: Axes, part: Part, drawing: PartDrawing) -> None:
    """Draw one part's notes as lying bars, each in its color."""
    axes.set_ylabel(part.name)
    if part.is_drum:
        _drum_rows(axes, drawing)
        return
    _draw_bars(axes, drawing, drawing.pitch, 0.8)
    if not len(drawing.pitch):
        axes.set_yticks([])  # a silent part has no pitches to name
        return
    lowest = int(drawing.pitch.min())
    highest = int(drawing.pitch.max())
    low = lowest - 2
    high = max(highest + 2, lowest + OCTAVE)  # at least an octave, so that a C is on the axis
    lowest_octave = -(-low // OCTAVE)
    octaves = range(lowest_octave, high // OCTAVE + 1)
    places = [OCTAVE * octave for octave in octaves]
    names = [f"C{octave - 1}" for octave in octaves]
    axes.set_yticks(places, names, fontsize=8.5)
    axes.set_ylim(low, high)


def _drum_rows(axes: Axes, drawing: PartDrawing) -> None:
    """A row for each piece in use. How long a stroke rings says nothing: all are drawn alike."""
    pieces = np.unique(drawing.pitch)
    row_of_note = np.searchsorted(pieces, drawing.pitch)
    length = np.full(len(drawing.onset), STROKE)
    strokes = drawing._replace(length=length)
    _draw_bars(axes, strokes, row_of_note, 0.5)
    names = [DRUM_NAMES.get(int(piece), str(piece)) for piece in pieces]
    axes.set_yticks(range(len(pieces)), names, fontsize=8.5)
    axes.set_ylim(-1, max(len(pieces), 1))


def _draw_bars(axes: Axes,
               drawing: PartDrawing,
               middle: np.ndarray,
               height: float) -> None:
    """Lying bars with their `middle` (N,) on the axis, as one collection.

    With a patch for each, as `barh` makes them, a long song takes seconds.
    """
    left = drawing.onset
    right = left + drawing.length
    x = np.stack([left, right, right, left], axis=1)                       # (N, 4)
    bottom = middle - height / 2
    top = middle + height / 2
    y = np.stack([bottom, bottom, top, top], axis=1)                       # (N, 4)
    corners = np.stack([x, y], axis=2)                                     # (N, 4, 2)
    bars = PolyCollection(corners,  # type: ignore[arg-type]  # it takes 3-D arrays; its hints do not
                          facecolors=drawing.colors, linewidths=0)
    axes.add_collection(bars)
