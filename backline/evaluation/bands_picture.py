"""Measures of generated songs in the bands of real ones, as a picture.

Imports matplotlib, which is slow: import this late.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from backline.common.drawing import png_bytes
from backline.evaluation.statistics import Verdict

FARTHEST = 6  # half widths of a band; what lies farther is an arrow at the edge


def measures_in_bands(verdicts: Sequence[Verdict], title: str) -> bytes:
    """A PNG of where generated songs lie for each measure, in widths of the band of real songs."""
    height = 1 + 0.22 * len(verdicts)
    figure = Figure(figsize=(8, height), layout="constrained")
    axes = figure.add_subplot()
    axes.axvspan(-1, 1, color="0.9", label="real songs: the central 95 %")
    _draw_verdicts(axes, verdicts, True, "tab:green", "generated, inside")
    _draw_verdicts(axes, verdicts, False, "tab:red", "generated, outside")
    names = [verdict.name for verdict in verdicts]
    axes.set_yticks(range(len(verdicts)), names, fontsize=7)
    axes.set_ylim(len(verdicts) - 0.5, -0.5)
    axes.set_xlim(-FARTHEST - 0.5, FARTHEST + 0.5)
    axes.grid(alpha=0.3)
    axes.set_axisbelow(True)
    axes.set_xlabel("distance from the middle of the band, in halves of its width")
    axes.set_title(title)
    axes.legend(loc="lower right", fontsize=7)
    return png_bytes(figure)


def _draw_verdicts(axes: Axes,
                   verdicts: Sequence[Verdict],
                   inside: bool,
                   color: str,
                   label: str,
                   ) -> None:
    """A mark for each verdict that is `inside` its band, or for each that is not."""
    axes.plot([], [], "o", color=color, label=label)  # for the legend, whether or not there is one
    for y, verdict in enumerate(verdicts):
        if verdict.inside != inside:
            continue
        x = verdict.half_widths
        marker = "o"
        if x < -FARTHEST:
            marker = "<"
        elif x > FARTHEST:
            marker = ">"
        place = np.clip(x, -FARTHEST, FARTHEST)
        axes.plot(place, y, marker, color=color)
