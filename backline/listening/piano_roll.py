"""The piano roll of a song, as a picture. Imports matplotlib, which is slow: whoever needs this imports it late."""

from __future__ import annotations

import io

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.collections import PolyCollection
from matplotlib.colors import to_rgba
from matplotlib.figure import Figure

from backline.music.theory import OCTAVE
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

# Names of the General MIDI 1 percussion map that are worth room on an axis.
DRUM_NAMES = {
    35: "kick 2", 36: "kick", 37: "side stick", 38: "snare", 39: "clap", 40: "snare 2", 41: "floor tom 2",
    42: "closed hat", 43: "floor tom", 44: "pedal hat", 45: "low tom", 46: "open hat", 47: "mid tom 2", 48: "mid tom",
    49: "crash", 50: "high tom", 51: "ride", 52: "china", 53: "ride bell", 54: "tambourine", 55: "splash",
    56: "cowbell", 57: "crash 2", 58: "vibraslap", 59: "ride 2", 60: "high bongo", 61: "low bongo", 62: "mute conga",
    63: "high conga", 64: "low conga", 65: "high timbale", 66: "low timbale", 67: "high agogo", 68: "low agogo",
    69: "cabasa", 70: "maracas", 75: "claves", 76: "high woodblock", 77: "low woodblock", 80: "mute triangle",
    81: "triangle"}
PART_COLORS = ("#c4561f", "#3a63c8", "#12826b", "#a3408f", "#8a6a00", "#6b4fc0", "#237a99",
               "#a83a4a")  # as on the page (web/page.css); they start over after the last
PALE = 0.35  # opacity
PANEL_HEIGHT, PIECE_HEIGHT = 2.2, 0.17  # inches: of a part, and of a drum kit's piece
FEW_BARS, MANY_BARS = 24, 48  # in a piano roll
STROKE = 0.05  # width of a drum's stroke, in bars: sixteenths stay apart


def piano_roll(rows: np.ndarray, vocabulary: Vocabulary, n_prompt: int = 0, title: str = "",
               given: np.ndarray | None = None) -> bytes:
    """A PNG of a song: one panel per part, bars along the axis, from 1 as --fill counts; drums by name of the piece.

    Args:
        rows: (N, F) note ids in order.
        n_prompt: how many of the notes at the beginning are the prompt's; they stand on a grey ground, unless `given`.
        given: (N,) bool, which notes are to be drawn pale, because they were there before.
    """
    onset = (rows[:, BAR] - FIRST_ID) + (rows[:, START_POS] - FIRST_ID) / vocabulary.steps_per_bar  # in bars
    length = (rows[:, NOTE_DUR] - FIRST_ID + 1) / vocabulary.steps_per_bar
    first, last = (int(onset.min()), int(onset.max()) + 1) if len(rows) else (0, 1)
    drums = [np.unique(rows[vocabulary.part_of_id[rows[:, PITCH_INSTRUMENT]] == p, PITCH_INSTRUMENT])
             if part.is_drum else () for p, part in enumerate(vocabulary.parts)]
    heights = [max(PANEL_HEIGHT, PIECE_HEIGHT * len(pieces)) for pieces in drums]
    figure = Figure(figsize=(min(max(8, (last - first) * 0.4), 40), sum(heights)), layout="constrained")
    panels = figure.subplots(len(vocabulary.parts), 1, sharex=True, squeeze=False, height_ratios=heights)[:, 0]
    for p, (part, axes) in enumerate(zip(vocabulary.parts, panels, strict=True)):
        mine = vocabulary.part_of_id[rows[:, PITCH_INSTRUMENT]] == p
        pitch = vocabulary.pitch_of_id[rows[mine, PITCH_INSTRUMENT]]
        strength = np.where(given[mine], PALE, 1.0) if given is not None else np.ones(len(pitch))
        colors = [to_rgba(PART_COLORS[p % len(PART_COLORS)], alpha) for alpha in strength]
        _part_panel(axes, part, onset[mine], length[mine], pitch, colors)
        axes.set_xlim(first, last)
        _bar_axis(axes, first, last)
        axes.set_axisbelow(True)
        if n_prompt and given is None:
            axes.axvspan(first, onset[min(n_prompt, len(rows) - 1)], color="0.92", zorder=0)
    meaning = " (pale: what was given)" if given is not None else " (grey: the prompt)" if n_prompt else ""
    panels[-1].set_xlabel("bar" + meaning)
    figure.suptitle(title)
    return _png(figure)


def _bar_axis(axes: Axes, first: int, last: int) -> None:
    """A line where each bar begins, its number there; where bars are many, every fourth or sixteenth. Few get beats."""
    n_bars = last - first
    every = 1 if n_bars <= MANY_BARS else 4 if n_bars <= 4 * MANY_BARS else 16
    begins = range(first, last)
    axes.set_xticks(begins, [f"{bar + 1}" if bar % every == 0 else "" for bar in begins], fontsize=9)
    axes.grid(axis="x", alpha=0.5)
    if n_bars <= FEW_BARS:
        beats = [bar + beat / QUARTERS_PER_BAR for bar in begins for beat in range(1, QUARTERS_PER_BAR)]
        axes.set_xticks(beats, minor=True)
        axes.tick_params(which="minor", length=0)
        axes.grid(axis="x", which="minor", alpha=0.5, linestyle=":", linewidth=0.5)


def _part_panel(axes: Axes, part: Part, onset: np.ndarray, length: np.ndarray, pitch: np.ndarray,
                colors: list[tuple[float, ...]]) -> None:
    """Draw one part's notes as bars, each in its color; onsets and lengths are in bars of music."""
    axes.set_ylabel(part.name)
    if part.is_drum:  # a row per piece in use; how long a stroke rings says nothing
        pieces = np.unique(pitch)
        height = np.searchsorted(pieces, pitch)
        _draw_bars(axes, onset, np.full(len(onset), STROKE), height, 0.5, colors)
        axes.set_yticks(range(len(pieces)), [DRUM_NAMES.get(int(piece), str(piece)) for piece in pieces], fontsize=8.5)
        axes.set_ylim(-1, max(len(pieces), 1))
        return
    _draw_bars(axes, onset, length, pitch, 0.8, colors)
    if len(pitch):  # at least an octave high, so that a C is on the axis
        low, high = int(pitch.min()) - 2, max(int(pitch.max()) + 2, int(pitch.min()) + OCTAVE)
        octaves = range(-(-low // OCTAVE), high // OCTAVE + 1)
        names = [f"C{octave - 1}" for octave in octaves]
        axes.set_yticks([OCTAVE * octave for octave in octaves], names, fontsize=8.5)
        axes.set_ylim(low, high)


def _draw_bars(axes: Axes, left: np.ndarray, width: np.ndarray, middle: np.ndarray, height: float,
          colors: list[tuple[float, ...]]) -> None:
    """Lying bars as one collection: with a patch each, as `barh` has them, a long song takes seconds."""
    x = np.stack([left, left + width, left + width, left], axis=1)
    y = middle[:, None] + height / 2 * np.array([-1, -1, 1, 1])
    axes.add_collection(PolyCollection(np.stack([x, y], axis=2), facecolors=colors, linewidths=0))


def _png(figure: Figure) -> bytes:
    buffer = io.BytesIO()
    FigureCanvasAgg(figure).print_png(buffer, metadata={"Software": None})  # same picture, same bytes
    return buffer.getvalue()
