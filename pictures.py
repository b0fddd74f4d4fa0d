"""Pictures for people: loss curves. The only module that draws, so that the others start without matplotlib."""

from __future__ import annotations

import io
from typing import Any

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from vocab import FIELDS


def loss_curves(rows: list[dict[str, Any]]) -> bytes:
    """A PNG of a run's losses over notes seen: all families together, and each apart.

    Args:
        rows: the rows of train_losses.csv, with the keys that have a value.
    """
    figure = Figure(figsize=(11, 6), layout="constrained")
    grid = figure.add_gridspec(2, 4)
    panels = [(figure.add_subplot(grid[:, :2]), "loss", "all families: nats per note")]
    panels += [(figure.add_subplot(grid[i // 2, 2 + i % 2]), field, field) for i, field in enumerate(FIELDS)]
    for axes, key, title in panels:
        for side, style in (("train", {"color": "tab:blue", "linewidth": 1}),
                            ("held_out", {"color": "tab:orange", "marker": "o", "markersize": 3})):
            points = [(row["notes_seen"], row[f"{side}_{key}"]) for row in rows if f"{side}_{key}" in row]
            if points:
                axes.plot(*zip(*points, strict=True), label=side.replace("_", " "), **style)
        axes.set_title(title)
        axes.set_xlabel("notes seen")
        axes.grid(alpha=0.3)
        axes.set_yscale("log")
    panels[0][0].legend()
    buffer = io.BytesIO()
    FigureCanvasAgg(figure).print_png(buffer)
    return buffer.getvalue()
