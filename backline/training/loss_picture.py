"""A run's losses as a picture. Imports matplotlib, which is slow: import this late."""

from __future__ import annotations

from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import EngFormatter, LogLocator, MaxNLocator, NullFormatter

from backline.common.drawing import png_bytes
from backline.music.vocab import FIELDS

FEW_POINTS = 50  # on a curve
SIDES: dict[str, dict[str, Any]] = {  # of the split, by how their columns in train_losses.csv begin
    "train": {"color": "tab:blue", "linewidth": 1, "label": "training songs"},
    "held_out": {"color": "tab:orange", "label": "held-out songs"},
}


def loss_curves(rows: list[dict[str, Any]]) -> bytes:
    """A PNG of a run's losses over notes seen: all families together, and each apart.

    Args:
        rows: the rows of train_losses.csv, with those keys that have a value.
    """
    figure = Figure(figsize=(12, 6.5), layout="constrained")
    grid = figure.add_gridspec(2, 4)
    main = figure.add_subplot(grid[:, :2])
    _draw_losses(main, rows, "loss", "all families")
    for i, field in enumerate(FIELDS):
        axes = figure.add_subplot(grid[i // 2, 2 + i % 2])
        _draw_losses(axes, rows, field, field)
    main.set_xlabel("notes seen")
    main.set_ylabel("nats per note")
    held_out = [(row["held_out_loss"], row["notes_seen"]) for row in rows if "held_out_loss" in row]
    if held_out:
        lowest, notes = min(held_out)
        main.plot([notes], [lowest], "*", color="tab:red", markersize=11,
                  label=f"lowest: {lowest:.3f}")
    if main.lines:
        main.legend()
    return png_bytes(figure)


def _draw_losses(axes: Axes, rows: list[dict[str, Any]], key: str, title: str) -> None:
    """Both sides' curves of the columns that end in `key`."""
    for side, style in SIDES.items():
        column = f"{side}_{key}"
        known = [row for row in rows if column in row]
        if known:
            notes = [row["notes_seen"] for row in known]
            losses = [row[column] for row in known]
            # Dots where there are few: a single point is no line, and many dots hide it.
            marker = "o" if len(known) <= FEW_POINTS else None
            axes.plot(notes, losses, marker=marker, markersize=3, **style)
    last = rows[-1]["notes_seen"] or 1000  # before the first step there is nothing to span
    axes.set_title(title)
    axes.set_xlim(-0.03 * last, 1.03 * last)
    axes.grid(alpha=0.3)
    _scale_axes(axes)


def _scale_axes(axes: Axes) -> None:
    """Notes in thousands or millions; losses on a logarithmic scale, which shows late gains too."""
    axes.xaxis.set_major_locator(MaxNLocator(5))
    axes.xaxis.set_major_formatter(EngFormatter(sep=""))
    low, high = axes.get_ylim()
    axes.set_yscale("log")
    if high < 2 * low:  # a logarithmic locator might find one tick or none
        axes.yaxis.set_major_locator(MaxNLocator(6))
    else:
        axes.yaxis.set_major_locator(LogLocator(subs=(1, 1.5, 2, 3, 5, 7)))
    axes.yaxis.set_major_formatter("{x:g}")
    axes.yaxis.set_minor_formatter(NullFormatter())
