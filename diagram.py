"""Draw a model: what a note is, how notes are read, and how the next one is chosen.

Input    a model config .json, or a model: .safetensors, or a checkpoint .pth
Output   a PNG; the same config gives the same bytes on the same machine and versions
Example  python diagram.py -o model.png
         python diagram.py --model_config configs/model_reference.json -o reference.png
"""

from __future__ import annotations

import argparse
import io
import itertools
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from backline.common.errors import Parser, UserError, reports_user_errors
from backline.common.files import check_file, check_new, check_writable, write_bytes
from backline.common.paths import BUNDLED_CONFIG
from backline.common.settings import config_from_file
from backline.music.vocab import BAR, FIELDS

if TYPE_CHECKING:  # torch and matplotlib are slow to import
    from matplotlib.figure import Figure

    from model import ModelConfig


# Places and lengths are in inches, from the upper left corner.
WIDTH, HEIGHT = 9.0, 8.0
DPI = 180  # twice as fine as a README shows it
LEFT, LEFT_END = 0.25, 5.5  # the column of reading
RIGHT, RIGHT_END = 6.2, 8.55  # the column of choosing
TOP, BOTTOM = 2.3, 7.75  # of both
HEAD, LATE = 0.55, 1.12  # heights in the column of choosing: of a family, of the late layers
STRIP, CELL, NOTE = 1.2, 0.17, 0.3  # the row of notes: its top, the height of a number, the width of a note
STRIP_MIDDLE = STRIP + len(FIELDS) / 2 * CELL
NOTES, NEXT = tuple(LEFT + 0.4 + 0.4 * i for i in range(14)), RIGHT_END - 0.4  # where they stand, and the next one
GIVEN, ENLARGED = (0, 1, 2, 7, 12), 6  # which are framed; which is shown large
LINE, LARGE, NORMAL = 0.23, 14, 12  # from line to line; sizes of letters, in points
# Of the families, wherever they are, in the order of FIELDS. All colours are made of the shades that a file keeps.
COLORS = ("#bdf", "#beb", "#fda", "#ecf")
PLAIN, LAYER, INK, QUIET = "#eee", "#999", "#222", "#555"
SHADE = 0x11

SAYS = ("which bar", "where in the bar", "how long", "pitch and part")
RELATIVE = "bars since the first read"  # instead of the first of SAYS
POSITIONS = {"rotary": ("positions: rotary, by place in the row",),
             "music_time": ("positions: rotary, half by place in the", "row, half by time in the song"),
             "metre": ("positions: rotary, by time in the song at", "the rates of bars, beats and their parts")}
BETWEEN = {"chain": "feed-forward", "gru": "GRU cell"}  # one choice and the next
LATE_LAYERS = "late_layers"


class Sheet:
    """A white page to draw on."""

    def __init__(self) -> None:
        from matplotlib.figure import Figure

        self.figure = Figure(figsize=(WIDTH, HEIGHT), dpi=DPI, facecolor="white")
        self.axes = self.figure.add_axes((0, 0, 1, 1), xlim=(0, WIDTH), ylim=(HEIGHT, 0))
        self.axes.set_axis_off()

    def words(self, x: float, y: float, text: str, size: int = NORMAL, bold: bool = False, **style: Any) -> None:
        """A line of text around `y`, from `x` on unless `ha` says otherwise."""
        # The font is matplotlib's own, so that what fits here fits everywhere.
        self.axes.text(x, y, text, size=size, weight="bold" if bold else "normal", family="DejaVu Sans",
                       **{"va": "center", "color": INK} | style)

    def box(self, left: float, top: float, right: float, bottom: float, color: str = PLAIN, corner: float = 0.08,
            **style: Any) -> None:
        from matplotlib.patches import FancyBboxPatch

        shape = f"round,pad=0,rounding_size={corner}"
        self.axes.add_patch(FancyBboxPatch((left, top), right - left, bottom - top, boxstyle=shape, facecolor=color,
                                           **{"edgecolor": INK} | style))

    def note(self, left: float, edge: str, **style: Any) -> None:
        """A note in the row of notes: its four numbers, one upon the other."""
        for f, color in enumerate(COLORS):
            self.box(left, STRIP + f * CELL, left + NOTE, STRIP + (f + 1) * CELL, color, 0, edgecolor="white")
        self.box(left, STRIP, left + NOTE, STRIP + len(COLORS) * CELL, "none", 0, edgecolor=edge, **style)

    def layers(self, left: float, top: float, bottom: float, n: int, lines: Sequence[str]) -> None:
        """A pile of `n` layers, and words about them beside it."""
        each = min((bottom - top) / n, LINE)
        for i in range(n):
            self.box(left, top + (i + 0.15) * each, left + 0.5, top + (i + 0.85) * each, LAYER, 0, linewidth=0)
        for i, line in enumerate(lines):
            self.words(left + 0.65, top + LINE * (i + 0.5), line, bold=i == 0)

    def arrow(self, *points: tuple[float, float], **style: Any) -> None:
        """Along straight lines through `points`."""
        from matplotlib.patches import FancyArrowPatch
        from matplotlib.path import Path as Line

        self.axes.add_patch(FancyArrowPatch(path=Line(points), mutation_scale=14, shrinkA=0, shrinkB=0,
                                            **{"arrowstyle": "-|>", "color": INK, "linewidth": 1.5} | style))


def model_diagram(config: ModelConfig, n_parameters: int) -> Figure:
    """The picture of a model of this config."""
    sheet = Sheet()
    sheet.words(LEFT, 0.35, f"{count(n_parameters, 'parameter')}: {count(config.n_layers, 'layer')} of width "
                f"{config.d_model:,}, {count(config.n_heads, 'attention head')}", LARGE, bold=True)
    _draw_notes(sheet, config)
    _draw_reading(sheet, config)
    _draw_choosing(sheet, config)
    return sheet.figure


def count(n: int, what: str) -> str:
    return f"{n:,} {what}{'s' * (n != 1)}"


def _draw_notes(sheet: Sheet, config: ModelConfig) -> None:
    """The row of notes, and the next one, which joins it."""
    read = f"notes so far (at most {config.block_size:,} are read)"
    ahead = f"; framed: given, read {count(config.lookahead_bars, 'bar')} ahead" * config.given
    sheet.words(LEFT, STRIP - 0.28, read + ahead)
    sheet.words(LEFT, STRIP_MIDDLE, "…", LARGE)
    for i, left in enumerate(NOTES):
        sheet.note(left, INK if config.given and i in GIVEN else "none", linewidth=2.5)
    end, start = NOTES[-1] + NOTE + 0.1, NEXT - 0.1
    sheet.arrow((start, STRIP_MIDDLE), (end, STRIP_MIDDLE))
    sheet.words((start + end) / 2, STRIP_MIDDLE - 0.2, "then it is read", ha="center", color=QUIET)
    sheet.words(RIGHT_END, STRIP - 0.28, "next note", bold=True, ha="right")
    sheet.note(NEXT, INK, linewidth=1.5, linestyle=":")


def _draw_reading(sheet: Sheet, config: ModelConfig) -> None:
    """The left column, downwards: from a note's four numbers to what the decoder makes of it."""
    from model import FF_FACTOR

    for x, corner in ((NOTES[ENLARGED], LEFT), (NOTES[ENLARGED] + NOTE, LEFT_END)):
        sheet.arrow((x, STRIP + len(FIELDS) * CELL + 0.03), (corner, TOP), arrowstyle="-", color=LAYER, linewidth=1)
    says = (RELATIVE if config.bars == "relative" else SAYS[BAR], *SAYS[1:])
    _draw_row(sheet, TOP + 0.15, "a note: one token of four numbers", "", "ids", "width", color=QUIET)
    y = TOP + 0.32
    for f, name in enumerate(FIELDS):
        sheet.box(LEFT, y, LEFT_END, y + 0.36, COLORS[f])
        _draw_row(sheet, y + 0.18, name, says[f], f"{config.n_tokens[f]:,}", f"{config.emb_sizes[f]:,}")
        y += 0.4
    y, middle = y - 0.04, (LEFT + LEFT_END) / 2
    for text in _before_decoder(config):
        sheet.arrow((middle, y), (middle, y + 0.24))
        sheet.box(LEFT, y + 0.24, LEFT_END, y + 0.6)
        sheet.words(middle, y + 0.42, text, ha="center")
        y += 0.6
    sheet.arrow((middle, y), (middle, y + 0.24))
    sheet.box(LEFT, y + 0.24, LEFT_END, BOTTOM)
    n_early = config.n_layers - config.late_layers
    lines = [count(n_early, "decoder layer"),
             f"attention, {count(config.n_heads, 'head')}: looks back at all notes",
             f"feed-forward, {FF_FACTOR * config.d_model:,} wide", *POSITIONS.get(config.positions, ())]
    sheet.layers(LEFT + 0.12, y + 0.34, BOTTOM - 0.1, n_early, lines)


def _draw_row(sheet: Sheet, y: float, name: str, says: str, ids: str, width: str, **style: Any) -> None:
    sheet.words(LEFT + 0.12, y, name, bold=True)
    sheet.words(LEFT + 1.9, y, says, **style)
    sheet.words(LEFT_END - 0.75, y, ids, ha="right", **style)
    sheet.words(LEFT_END - 0.12, y, width, ha="right", **style)


def _before_decoder(config: ModelConfig) -> list[str]:
    """What becomes of a note's embeddings, step by step."""
    pooled = (f"joined end to end ({sum(config.emb_sizes):,})" if config.emb_pooling == "concat" else
              f"added up ({config.emb_sizes[0]:,})")
    return ([f"{pooled}, then a linear layer to {config.d_model:,}"]
            + ["+ mark of given notes"] * config.given
            + ["+ positions: sines and cosines of the place in the row"] * (config.positions == "sinusoidal"))


def _draw_choosing(sheet: Sheet, config: ModelConfig) -> None:
    """The right column, upwards: from what the decoder made of the last note to the four numbers of the next."""
    at_once = config.heads == "parallel"
    how = ("four numbers at once",) if at_once else ("one number after another,", "each knowing those before")
    for i, line in enumerate(("choosing the next note", *how)):
        sheet.words(RIGHT, TOP + 0.15 + LINE * i, line, bold=i == 0)
    places = _places(config)
    for number, name in enumerate(config.order, start=1):
        (top, bottom), f = places[name], FIELDS.index(name)
        sheet.box(RIGHT, top, RIGHT_END, bottom, COLORS[f])
        sheet.words(RIGHT + 0.12, top + 0.17, name if at_once else f"{number}  {name}", bold=True)
        sheet.words(RIGHT + 0.12, bottom - 0.16, f"one of {config.n_tokens[f]:,} ids")
    if config.late_layers:
        top, bottom = places[LATE_LAYERS]
        sheet.box(RIGHT, top, RIGHT_END, bottom)
        sheet.layers(RIGHT + 0.12, top + 0.1, bottom - 0.1, config.late_layers,
                     [count(config.late_layers, "late layer"), "looking back from", "the time chosen",
                      "at all notes read"])
    _draw_paths(sheet, config, places)


def _places(config: ModelConfig) -> dict[str, tuple[float, float]]:
    """Top and bottom of all that stands in the right column, from below."""
    # What is chosen last stands nearest to the next note; what is chosen at once, as in the left column.
    names = [*reversed(FIELDS)] if config.heads == "parallel" else [*config.order]
    if config.late_layers:
        names.insert(2, LATE_LAYERS)  # bar and start_pos come before them
    heights = [LATE if name == LATE_LAYERS else HEAD for name in names]
    gap = (BOTTOM - TOP - 0.9 - sum(heights)) / (len(names) - 1)
    bottoms = [BOTTOM - sum(heights[:i]) - i * gap for i in range(len(names))]
    return {name: (bottom - height, bottom) for name, bottom, height in zip(names, bottoms, heights, strict=True)}


def _draw_paths(sheet: Sheet, config: ModelConfig, places: dict[str, tuple[float, float]]) -> None:
    """The arrows of the right column: in from the left one, from choice to choice, and out to the next note."""
    at_once, names = config.heads == "parallel", list(places)
    middles = {name: (top + bottom) / 2 for name, (top, bottom) in places.items()}
    first, fork, outside = middles[names[0]], RIGHT - 0.3, RIGHT_END + 0.25
    sheet.words(LEFT_END - 0.12, first, "state of the last note", ha="right", color=QUIET)
    sheet.arrow((LEFT_END, first), (RIGHT, first))
    for name in names[1:] if at_once else ():
        sheet.arrow((fork, first), (fork, middles[name]), (RIGHT, middles[name]))
    if config.late_layers:
        begin, end = first - 0.45, middles[LATE_LAYERS]
        sheet.words(LEFT_END - 0.12, begin, "states of all notes", ha="right", color=QUIET)
        sheet.arrow((LEFT_END, begin), (fork, begin), (fork, end), (RIGHT, end), linestyle="--")
    for before, after in itertools.pairwise(names) if not at_once else ():
        above, below = places[before][0], places[after][1]
        sheet.arrow((RIGHT + 0.4, above), (RIGHT + 0.4, below))
        if before != LATE_LAYERS:
            sheet.words(RIGHT + 0.55, (above + below) / 2, BETWEEN[config.heads], color=QUIET)
    sheet.arrow((RIGHT_END, first), (outside, first), (outside, STRIP_MIDDLE), (NEXT + NOTE, STRIP_MIDDLE))
    for name in config.order:
        sheet.arrow((RIGHT_END, middles[name]), (outside, middles[name]), arrowstyle="-")


def words_of(figure: Figure) -> str:
    """All words of a picture: what it says to those who do not see it."""
    return "; ".join(text.get_text() for text in figure.axes[0].texts if text.get_text())


def png(figure: Figure) -> bytes:
    """The picture as a file, its words beside it."""
    import numpy as np
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.image import imsave

    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    # Sixteen shades of red, green and blue do for lines and words, and halve the file.
    nearest = (np.rint(np.arange(256) / SHADE) * SHADE).astype(np.uint8)
    buffer = io.BytesIO()
    imsave(buffer, nearest[np.asarray(canvas.buffer_rgba())], format="png",
           metadata={"Software": None, "Description": words_of(figure)})
    return buffer.getvalue()


def build_parser() -> argparse.ArgumentParser:
    parser = Parser(__doc__)
    what = parser.add_mutually_exclusive_group()
    what.add_argument("--model_config", type=Path, default=BUNDLED_CONFIG,
                      help="config to draw (default: the bundled model's)")
    what.add_argument("-mp", "--model_path", type=Path, help="model to draw instead: .safetensors, or checkpoint .pth")
    parser.add_argument("-o", "--output", type=Path, required=True, help="picture to write, ending in .png")
    parser.add_argument("--force", action="store_true", help="overwrite a file that exists")
    return parser


@reports_user_errors
def main(argv: Sequence[str] | None = None) -> int:
    args = build_parser().parse_args(argv)
    if args.output.suffix != ".png":
        raise UserError(f"{args.output}: the name must end in .png")
    source = args.model_path or args.model_config
    check_file(source)
    check_new([args.output], args.force)
    check_writable(args.output.parent)

    from backline.training.checkpoints import load_model  # brings torch
    from model import ModelConfig, PooledTransformer

    model = load_model(source)[0] if args.model_path else PooledTransformer(config_from_file(ModelConfig, source))
    write_bytes(args.output, png(model_diagram(model.config, model.n_parameters())))
    print(f"{args.output}: {count(model.n_parameters(), 'parameter')}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
