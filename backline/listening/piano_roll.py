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
from backline.listening.song_view import Lane, SongView
from backline.music.theory import DRUM_NAMES, OCTAVE
from backline.music.vocab import QUARTERS_PER_BAR, Vocabulary

# As on the page (web/page.css); they start over after the last.
PART_COLORS = ("#c4561f", "#3a63c8", "#12826b", "#a3408f",
               "#8a6a00", "#6b4fc0", "#237a99", "#a83a4a")
OTHER_COLOR = "#8f8c82"  # of tracks that play no part
PALE = 0.35  # opacity
PROMPT_GREY = "0.92"
PANEL_HEIGHT, PIECE_HEIGHT = 2.2, 0.17  # inches: of a part, and of a drum kit's piece
OTHER_HEIGHT = 1.1  # inches: of a track that plays no part
SILENT_HEIGHT = 0.4  # inches: of a part without notes
FEW_PIECES = 3  # of a drum kit, for which a low panel is enough
MOST_LETTERS = 12  # of a track's name
BAR_WIDTH, LEAST_WIDTH, MOST_WIDTH = 0.4, 8, 40  # inches
FEW_BARS, MANY_BARS = 24, 48
STROKE = 0.05  # width of a drum's stroke, in bars: sixteenths stay apart


class PartDrawing(NamedTuple):
    """The notes of a part as they are drawn: (N,) each, times in bars."""

    onset: np.ndarray
    length: np.ndarray
    pitch: np.ndarray
    colors: Sequence[tuple[float, ...]]


def piano_roll(view: SongView, vocabulary: Vocabulary, title: str = "") -> bytes:
    """A PNG of a song: a panel for each part, bars along the axis, drums by name.

    Tracks that play no part have low panels in grey. Notes that were there before are pale; where
    all of them come before the first new one, they stand on a grey ground instead.

    Bars are counted from 1, as --fill counts them.
    """
    lanes = [lane
             for i, lane in enumerate(view.lanes)
             if i < len(vocabulary.parts) or len(lane.notes)]
    ground_end = prompt_end(view)
    drawings = [_drawing(lane, i, view, vocabulary, is_pale=ground_end is None)
                for i, lane in enumerate(lanes)]
    figure, panels = _figure(lanes, drawings, view.n_bars, len(vocabulary.parts))
    for lane, axes, drawing in zip(lanes, panels, drawings, strict=True):
        _lane_panel(axes, lane, drawing)
        axes.set_xlim(0, view.n_bars)
        _bar_axis(axes, view.n_bars)
        axes.set_axisbelow(True)
        if ground_end is not None:
            axes.axvspan(0, ground_end, color=PROMPT_GREY, zorder=0)
    panels[-1].set_xlabel("bar" + _meaning(view, ground_end))
    figure.suptitle(title)
    return png_bytes(figure)


def prompt_end(view: SongView) -> float | None:
    """The bar, counted from 0, in which the first new note begins; None if old ones do after it."""
    if len(view.fresh) != 1:
        return None
    start, end = view.fresh[0]
    goes_on = end == view.n_bars * view.bar_ticks
    last_old = max(lane.notes[lane.is_old, 0].max(initial=0) for lane in view.lanes)
    return start / view.bar_ticks if goes_on and last_old < start else None


def _drawing(lane: Lane,
             index: int,
             view: SongView,
             vocabulary: Vocabulary,
             *,
             is_pale: bool) -> PartDrawing:
    """What to draw of a lane; `is_pale`: old notes are."""
    onset = lane.notes[:, 0] / view.bar_ticks
    end = lane.notes[:, 1] / view.bar_ticks
    is_part = index < len(vocabulary.parts)
    color = PART_COLORS[index % len(PART_COLORS)] if is_part else OTHER_COLOR
    opacity = np.where(lane.is_old & is_pale, PALE, 1.0)
    colors = [to_rgba(color, alpha) for alpha in opacity.tolist()]
    return PartDrawing(onset, end - onset, lane.notes[:, 2], colors)


def _figure(lanes: Sequence[Lane],
            drawings: Sequence[PartDrawing],
            n_bars: int,
            n_parts: int) -> tuple[Figure, np.ndarray]:
    """An empty figure, and a panel for each lane: as high as its drum kit needs, low if it is silent."""
    heights = []
    for i, (lane, drawing) in enumerate(zip(lanes, drawings, strict=True)):
        n_pieces = len(np.unique(drawing.pitch)) if lane.is_drum else 0
        is_low = i >= n_parts or (lane.is_drum and n_pieces <= FEW_PIECES)
        least = OTHER_HEIGHT if is_low else PANEL_HEIGHT
        height = max(least, PIECE_HEIGHT * n_pieces)
        heights.append(height if len(lane.notes) else SILENT_HEIGHT)
    width = max(LEAST_WIDTH, BAR_WIDTH * n_bars)
    width = min(width, MOST_WIDTH)
    figure = Figure(figsize=(width, sum(heights)), layout="constrained")
    panels = figure.subplots(len(heights),
                             1,
                             sharex=True,
                             squeeze=False,
                             height_ratios=heights)
    return figure, panels[:, 0]


def _meaning(view: SongView, ground_end: float | None) -> str:
    """What grey or pale says, for the axis."""
    if ground_end is not None:
        return " (grey: the prompt)"
    is_any_old = any(lane.is_old.any() for lane in view.lanes)
    return " (pale: what was given)" if is_any_old else ""


def _bar_axis(axes: Axes, n_bars: int) -> None:
    """A line where each bar begins, with its number; beats too where bars are few.

    Where bars are many, only every fourth or sixteenth is numbered.
    """
    every = 16
    if n_bars <= MANY_BARS:
        every = 1
    elif n_bars <= 4 * MANY_BARS:
        every = 4
    bars = range(n_bars)
    numbers = [f"{bar + 1}" if bar % every == 0 else "" for bar in bars]
    axes.set_xticks(bars, numbers, fontsize=9)
    axes.grid(axis="x", alpha=0.5)
    if n_bars <= FEW_BARS:
        n_beats = QUARTERS_PER_BAR * n_bars
        beats = [beat for beat in range(n_beats) if beat % QUARTERS_PER_BAR]
        places = [beat / QUARTERS_PER_BAR for beat in beats]
        axes.set_xticks(places, minor=True)
        axes.tick_params(which="minor", length=0)
        axes.grid(axis="x",
                  which="minor",
                  alpha=0.5,
                  linestyle=":",
                  linewidth=0.5)


def _lane_panel(axes: Axes, lane: Lane, drawing: PartDrawing) -> None:
    """Draw one lane's notes as lying bars, each in its color."""
    label = axes.set_ylabel(lane.name[:MOST_LETTERS], parse_math=False)
    if not len(lane.notes):
        label.set(rotation="horizontal", horizontalalignment="right", verticalalignment="center")
        axes.set_yticks([])  # there are no pitches to name
        return
    if lane.is_drum:
        _drum_rows(axes, drawing)
        return
    _draw_bars(axes, drawing, drawing.pitch, 0.8)
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
