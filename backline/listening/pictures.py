"""Pictures for people: loss curves and piano rolls.

Besides diagram.py, which draws the model, the only module that draws: the others start without matplotlib.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.collections import PolyCollection
from matplotlib.colors import to_rgba
from matplotlib.figure import Figure
from matplotlib.ticker import EngFormatter, LogLocator, MaxNLocator, NullFormatter

from backline.common.drawing import png_bytes
from backline.evaluation.statistics import Verdict
from backline.music.theory import DRUM_NAMES
from backline.music.vocab import (
    BAR,
    FIELDS,
    FIRST_ID,
    NOTE_DUR,
    PITCH_INSTRUMENT,
    QUARTERS_PER_BAR,
    START_POS,
    Part,
    Vocabulary,
)

PART_COLORS = ("#c4561f", "#3a63c8", "#12826b", "#a3408f", "#8a6a00", "#6b4fc0", "#237a99",
               "#a83a4a")  # as on the page (web/page.css); they start over after the last
SEMITONES = 12
PALE = 0.35  # opacity
FEW_POINTS = 50  # on a loss curve
PANEL_HEIGHT, PIECE_HEIGHT = 2.2, 0.17  # inches: of a part, and of a drum kit's piece
FEW_BARS, MANY_BARS = 24, 48  # in a piano roll
STROKE = 0.05  # width of a drum's stroke, in bars: sixteenths stay apart
FARTHEST = 6  # half widths of a band; what lies farther is an arrow at the edge


def loss_curves(rows: list[dict[str, Any]]) -> bytes:
    """A PNG of a run's losses over notes seen: all families together, and each apart.

    Args:
        rows: the rows of train_losses.csv, with the keys that have a value.
    """
    figure = Figure(figsize=(12, 6.5), layout="constrained")
    grid = figure.add_gridspec(2, 4)
    last = rows[-1]["notes_seen"] or 1000  # before the first step there is nothing to span
    panels = [(figure.add_subplot(grid[:, :2]), "loss", "all families")]
    panels += [(figure.add_subplot(grid[i // 2, 2 + i % 2]), field, field) for i, field in enumerate(FIELDS)]
    for axes, key, title in panels:
        for side, style in (("train", {"color": "tab:blue", "linewidth": 1, "label": "training songs"}),
                            ("held_out", {"color": "tab:orange", "label": "held-out songs"})):
            points = [(row["notes_seen"], row[f"{side}_{key}"]) for row in rows if f"{side}_{key}" in row]
            if points:
                # Dots where there are few: a single point is no line, and many dots hide it.
                axes.plot(*zip(*points, strict=True), marker="o" if len(points) <= FEW_POINTS else None, markersize=3,
                          **style)
        axes.set_title(title)
        axes.set_xlim(-0.03 * last, 1.03 * last)
        axes.grid(alpha=0.3)
        _loss_axes(axes)
    main = panels[0][0]
    main.set_xlabel("notes seen")
    main.set_ylabel("nats per note")
    held_out = [(row["held_out_loss"], row["notes_seen"]) for row in rows if "held_out_loss" in row]
    if held_out:
        lowest, notes = min(held_out)
        main.plot([notes], [lowest], "*", color="tab:red", markersize=11, label=f"lowest: {lowest:.3f}")
    if main.lines:
        main.legend()
    return png_bytes(figure)


def _loss_axes(axes: Axes) -> None:
    """Notes in thousands or millions; losses on a logarithmic scale, where late gains are as visible as early ones."""
    axes.xaxis.set_major_locator(MaxNLocator(5))
    axes.xaxis.set_major_formatter(EngFormatter(sep=""))
    low, high = axes.get_ylim()
    axes.set_yscale("log")
    if high < 2 * low:  # else a tick or none might be in sight
        axes.yaxis.set_major_locator(MaxNLocator(6))
    else:
        axes.yaxis.set_major_locator(LogLocator(subs=(1, 1.5, 2, 3, 5, 7)))
    axes.yaxis.set_major_formatter("{x:g}")
    axes.yaxis.set_minor_formatter(NullFormatter())


def measures_in_bands(verdicts: Sequence[Verdict], title: str) -> bytes:
    """A PNG that shows for each measure where generated songs lie, in widths of the band of real songs."""
    figure = Figure(figsize=(8, 1 + 0.22 * len(verdicts)), layout="constrained")
    axes = figure.add_subplot()
    axes.axvspan(-1, 1, color="0.9", label="real songs: the central 95 %")
    for inside, color, label in ((True, "tab:green", "generated, inside"), (False, "tab:red", "generated, outside")):
        axes.plot([], [], "o", color=color, label=label)
        for y, verdict in enumerate(verdicts):
            if verdict.inside == inside:
                x = verdict.half_widths
                marker = "o" if abs(x) <= FARTHEST else "<" if x < 0 else ">"
                axes.plot(np.clip(x, -FARTHEST, FARTHEST), y, marker, color=color)
    axes.set_yticks(range(len(verdicts)), [verdict.name for verdict in verdicts], fontsize=7)
    axes.set_ylim(len(verdicts) - 0.5, -0.5)
    axes.set_xlim(-FARTHEST - 0.5, FARTHEST + 0.5)
    axes.grid(alpha=0.3)
    axes.set_axisbelow(True)
    axes.set_xlabel("distance from the middle of the band, in halves of its width")
    axes.set_title(title)
    axes.legend(loc="lower right", fontsize=7)
    return png_bytes(figure)


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
    return png_bytes(figure)


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
        _bars(axes, onset, np.full(len(onset), STROKE), height, 0.5, colors)
        axes.set_yticks(range(len(pieces)), [DRUM_NAMES.get(int(piece), str(piece)) for piece in pieces], fontsize=8.5)
        axes.set_ylim(-1, max(len(pieces), 1))
        return
    _bars(axes, onset, length, pitch, 0.8, colors)
    if len(pitch):  # at least an octave high, so that a C is on the axis
        low, high = int(pitch.min()) - 2, max(int(pitch.max()) + 2, int(pitch.min()) + SEMITONES)
        octaves = range(-(-low // SEMITONES), high // SEMITONES + 1)
        names = [f"C{octave - 1}" for octave in octaves]
        axes.set_yticks([SEMITONES * octave for octave in octaves], names, fontsize=8.5)
        axes.set_ylim(low, high)


def _bars(axes: Axes, left: np.ndarray, width: np.ndarray, middle: np.ndarray, height: float,
          colors: list[tuple[float, ...]]) -> None:
    """Lying bars as one collection: with a patch each, as `barh` has them, a long song takes seconds."""
    x = np.stack([left, left + width, left + width, left], axis=1)
    y = middle[:, None] + height / 2 * np.array([-1, -1, 1, 1])
    axes.add_collection(PolyCollection(np.stack([x, y], axis=2), facecolors=colors, linewidths=0))
