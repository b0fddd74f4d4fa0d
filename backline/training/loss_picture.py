"""A run's losses as a picture. Imports matplotlib, which is slow: whoever needs this imports it late."""

from __future__ import annotations

from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import EngFormatter, LogLocator, MaxNLocator, NullFormatter

from backline.listening.piano_roll import _png
from backline.music.vocab import FIELDS

FEW_POINTS = 50  # on a loss curve


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
    return _png(figure)


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
