"""Draw a model: what a note is, how the model reads notes, and how it chooses the next one.

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
from typing import TYPE_CHECKING, Any, NamedTuple

from backline.common.errors import Parser, UserError, reports_user_errors
from backline.common.files import (
    check_file,
    check_new,
    check_writable,
    read_json_object,
    write_bytes,
)
from backline.common.hub import fetched
from backline.common.paths import BUNDLED_CONFIG
from backline.layers.config import ModelConfig
from backline.music.vocab import BAR, FIELDS, load_vocabulary

if TYPE_CHECKING:  # torch and matplotlib are slow to import
    from matplotlib.figure import Figure

    from model import PooledTransformer


# Places and lengths are in inches, from the upper left corner.
WIDTH, HEIGHT = 9.0, 8.0
DPI = 180  # twice as fine as a README shows it
LEFT, LEFT_END = 0.25, 5.5  # the column of reading
RIGHT, RIGHT_END = 6.2, 8.55  # the column of choosing
TOP, BOTTOM = 2.3, 7.75  # of both columns
LEFT_MIDDLE = (LEFT + LEFT_END) / 2
HEAD = 0.55  # height of a family in the column of choosing
LATE = 1.12  # height of the late layers there
STRIP = 1.2  # top of the row of notes
CELL = 0.17  # height of a number of a note
NOTE = 0.3  # width of a note
STRIP_BOTTOM = STRIP + len(FIELDS) * CELL
STRIP_MIDDLE = STRIP + len(FIELDS) / 2 * CELL
NOTES = tuple(LEFT + 0.4 + 0.4 * i for i in range(14))  # where notes stand
NEXT = RIGHT_END - 0.4  # where the next note stands
GIVEN = (0, 1, 2, 7, 12)  # notes that are framed
ENLARGED = 6  # the note that is shown large
FAMILY_ROW = 0.4  # from one family's row in the table to the next
FAMILY_BOX = 0.36  # height of a family's row
STAGE_ARROW = 0.24  # from one box of the left column to the next
STAGE_BOX = 0.36
LINE = 0.23  # from line to line of text
LARGE, NORMAL = 14, 12  # sizes of letters, in points
# Of the families, wherever they are, in the order of FIELDS.
# All colours are made of the shades that a file keeps.
COLORS = ("#bdf", "#beb", "#fda", "#ecf")
PLAIN, LAYER, INK, QUIET = "#eee", "#999", "#222", "#555"
SHADE = 0x11
N_LEVELS = 256  # of a colour channel

SAYS = ("which bar", "where in the bar", "how long", "pitch and part")
RELATIVE = "bars since the first read"  # instead of the first of SAYS
POSITIONS = {
    "rotary": ("positions: rotary, by place in the row",),
    "music_time": ("positions: rotary, half by place in the", "row, half by time in the song"),
    "metre": (
        "positions: rotary, by time in the song at",
        "the rates of bars, beats and their parts",
    ),
}
BETWEEN = {"chain": "feed-forward", "gru": "GRU cell"}  # one choice and the next
LATE_LAYERS = "late_layers"


class Sheet:
    """A white page to draw on."""

    def __init__(self) -> None:
        from matplotlib.figure import Figure

        self.figure = Figure(figsize=(WIDTH, HEIGHT), dpi=DPI, facecolor="white")
        self.axes = self.figure.add_axes((0, 0, 1, 1), xlim=(0, WIDTH), ylim=(HEIGHT, 0))
        self.axes.set_axis_off()

    def words(self, x: float, y: float, text: str, **style: Any) -> None:
        """A line of text around `y`, from `x` on unless `ha` says otherwise."""
        # The font is matplotlib's own, so that what fits here fits everywhere.
        usual: dict[str, Any] = {
            "va": "center",
            "color": INK,
            "size": NORMAL,
            "family": "DejaVu Sans",
        }
        self.axes.text(x, y, text, **(usual | style))

    def box(self, left: float, top: float, right: float, bottom: float, **style: Any) -> None:
        """A filled box; `corner` is the radius of its corners."""
        from matplotlib.patches import FancyBboxPatch

        corner = style.pop("corner", 0.08)
        usual: dict[str, Any] = {
            "boxstyle": f"round,pad=0,rounding_size={corner}",
            "facecolor": PLAIN,
            "edgecolor": INK,
        }
        width = right - left
        height = bottom - top
        patch = FancyBboxPatch((left, top), width, height, **(usual | style))
        self.axes.add_patch(patch)

    def note(self, left: float, edge: str, **style: Any) -> None:
        """A note in the row of notes: its four numbers, one below the other, in a frame."""
        right = left + NOTE
        for f, color in enumerate(COLORS):
            top = STRIP + f * CELL
            bottom = STRIP + (f + 1) * CELL
            self.box(left, top, right, bottom, facecolor=color, corner=0, edgecolor="white")
        bottom = STRIP + len(COLORS) * CELL
        self.box(left, STRIP, right, bottom,
                 facecolor="none",
                 corner=0,
                 edgecolor=edge,
                 **style)

    def layers(self,
               left: float,
               top: float,
               bottom: float,
               n: int,
               lines: Sequence[str]) -> None:
        """A pile of `n` layers, and lines about them beside it."""
        each = min((bottom - top) / n, LINE)
        for i in range(n):
            begin = top + (i + 0.15) * each
            end = top + (i + 0.85) * each
            self.box(left, begin, left + 0.5, end, facecolor=LAYER, corner=0, linewidth=0)
        for i, line in enumerate(lines):
            y = top + LINE * (i + 0.5)
            weight = _weight(bold=i == 0)
            self.words(left + 0.65, y, line, weight=weight)

    def arrow(self, *points: tuple[float, float], **style: Any) -> None:
        """An arrow along straight lines through `points`."""
        from matplotlib.patches import FancyArrowPatch
        from matplotlib.path import Path as Line

        usual: dict[str, Any] = {"arrowstyle": "-|>",
                                 "color": INK,
                                 "linewidth": 1.5}
        patch = FancyArrowPatch(path=Line(points),
                                mutation_scale=14,
                                shrinkA=0,
                                shrinkB=0,
                                **(usual | style))
        self.axes.add_patch(patch)


def _weight(bold: bool) -> str:
    return "bold" if bold else "normal"


def count(n: int, what: str) -> str:
    """The number of things in words: "1 layer", "2 layers"."""
    plural = "" if n == 1 else "s"
    return f"{n:,} {what}{plural}"


def model_diagram(config: ModelConfig, n_parameters: int) -> Figure:
    """The picture of a model of this config."""
    sheet = Sheet()
    layers = count(config.n_layers, "layer")
    heads = count(config.n_heads, "attention head")
    parameters = count(n_parameters, "parameter")
    title = f"{parameters}: {layers} of width {config.d_model:,}, {heads}"
    sheet.words(LEFT, 0.35, title, size=LARGE, weight="bold")
    _draw_notes(sheet, config)
    _draw_reading(sheet, config)
    _draw_choosing(sheet, config)
    return sheet.figure


# ---------------------------------------------------------------- the row of notes


def _draw_notes(sheet: Sheet, config: ModelConfig) -> None:
    """The row of notes, and the next one, which joins it."""
    title = f"notes so far (at most {config.block_size:,} are read)"
    if config.given:
        ahead = count(config.lookahead_bars, "bar")
        title += f"; framed: given, read {ahead} ahead"
    sheet.words(LEFT, STRIP - 0.28, title)
    sheet.words(LEFT, STRIP_MIDDLE, "…", size=LARGE)
    for i, left in enumerate(NOTES):
        is_given = config.given and i in GIVEN
        edge = INK if is_given else "none"
        sheet.note(left, edge, linewidth=2.5)
    start = NEXT - 0.1
    end = NOTES[-1] + NOTE + 0.1
    sheet.arrow((start, STRIP_MIDDLE), (end, STRIP_MIDDLE))
    middle = (start + end) / 2
    above = STRIP_MIDDLE - 0.2
    sheet.words(middle, above, "then it is read", ha="center", color=QUIET)
    sheet.words(RIGHT_END, STRIP - 0.28, "next note", weight="bold", ha="right")
    sheet.note(NEXT, INK, linewidth=1.5, linestyle=":")


# ---------------------------------------------------------------- the left column: reading


def _draw_reading(sheet: Sheet, config: ModelConfig) -> None:
    """The left column, downwards: from a note's four numbers to what the decoder makes of it."""
    note = NOTES[ENLARGED]
    below = STRIP_BOTTOM + 0.03
    for x, corner in ((note, LEFT), (note + NOTE, LEFT_END)):
        sheet.arrow((x, below), (corner, TOP), arrowstyle="-", color=LAYER, linewidth=1)
    y = _draw_families(sheet, config)
    for text in _before_decoder(config):
        sheet.arrow((LEFT_MIDDLE, y), (LEFT_MIDDLE, y + STAGE_ARROW))
        y += STAGE_ARROW
        sheet.box(LEFT, y, LEFT_END, y + STAGE_BOX)
        sheet.words(LEFT_MIDDLE, y + STAGE_BOX / 2, text, ha="center")
        y += STAGE_BOX
    sheet.arrow((LEFT_MIDDLE, y), (LEFT_MIDDLE, y + STAGE_ARROW))
    y += STAGE_ARROW
    sheet.box(LEFT, y, LEFT_END, BOTTOM)
    n_early = config.n_layers - config.late_layers
    lines = [
        count(n_early, "decoder layer"),
        f"attention, {count(config.n_heads, 'head')}: looks back at all notes",
        f"feed-forward, {config.ff_width:,} wide",
        *POSITIONS.get(config.positions, ()),
    ]
    sheet.layers(LEFT + 0.12, y + 0.1, BOTTOM - 0.1, n_early, lines)


def _draw_families(sheet: Sheet, config: ModelConfig) -> float:
    """The table of a note's four numbers; returns where it ends."""
    title = TableRow("a note: one token of four numbers", "", "ids", "width")
    _draw_row(sheet, TOP + 0.15, title, color=QUIET)
    y = TOP + 0.32
    for f, name in enumerate(FIELDS):
        says = SAYS[f]
        if f == BAR and config.bars == "relative":
            says = RELATIVE
        ids = f"{config.n_tokens[f]:,}"
        width = f"{config.emb_sizes[f]:,}"
        row = TableRow(name, says, ids, width)
        sheet.box(LEFT, y, LEFT_END, y + FAMILY_BOX, facecolor=COLORS[f])
        _draw_row(sheet, y + FAMILY_BOX / 2, row)
        y += FAMILY_ROW
    return y - (FAMILY_ROW - FAMILY_BOX)


class TableRow(NamedTuple):
    """One row of the table of families."""

    name: str
    says: str
    ids: str
    width: str


def _draw_row(sheet: Sheet, y: float, row: TableRow, **style: Any) -> None:
    sheet.words(LEFT + 0.12, y, row.name, weight="bold")
    sheet.words(LEFT + 1.9, y, row.says, **style)
    sheet.words(LEFT_END - 0.75, y, row.ids, ha="right", **style)
    sheet.words(LEFT_END - 0.12, y, row.width, ha="right", **style)


def _before_decoder(config: ModelConfig) -> list[str]:
    """What becomes of a note's embeddings, step by step."""
    if config.emb_pooling == "concat":
        pooled = f"joined end to end ({sum(config.emb_sizes):,})"
    else:
        pooled = f"added up ({config.emb_sizes[0]:,})"
    steps = [f"{pooled}, then a linear layer to {config.d_model:,}"]
    added = []
    if config.given:
        added.append("mark of given notes")
    if config.controls:
        added.append("density, key, bars left, …")
    if added:
        steps.append("+ " + " + ".join(added))
    if config.positions == "sinusoidal":
        steps.append("+ positions: sines and cosines of the place in the row")
    return steps


# ---------------------------------------------------------------- the right column: choosing


class Extent(NamedTuple):
    """Where something stands in the right column."""

    top: float
    bottom: float

    @property
    def middle(self) -> float:
        """Half way between top and bottom."""
        return (self.top + self.bottom) / 2


def _draw_choosing(sheet: Sheet, config: ModelConfig) -> None:
    """The right column, upwards: from the decoder's state of the last note to the next note."""
    at_once = config.heads == "parallel"
    lines = ["choosing the next note"]
    if at_once:
        lines.append("four numbers at once")
    else:
        lines += ["one number after another,", "each knowing those before"]
    for i, line in enumerate(lines):
        y = TOP + 0.15 + LINE * i
        sheet.words(RIGHT, y, line, weight=_weight(bold=i == 0))
    extents = _extents(config)
    for number, name in enumerate(config.order, start=1):
        top, bottom = extents[name]
        f = FIELDS.index(name)
        title = name if at_once else f"{number}  {name}"
        sheet.box(RIGHT, top, RIGHT_END, bottom, facecolor=COLORS[f])
        sheet.words(RIGHT + 0.12, top + 0.17, title, weight="bold")
        n_ids = config.n_tokens[f]
        sheet.words(RIGHT + 0.12, bottom - 0.16, f"one of {n_ids:,} ids")
    if config.late_layers:
        top, bottom = extents[LATE_LAYERS]
        n_late = count(config.late_layers, "late layer")
        late_lines = [
            n_late,
            "looking back from",
            "the time chosen",
            "at all notes read",
        ]
        if config.controls:
            late_lines[2] = "time and chord"
        sheet.box(RIGHT, top, RIGHT_END, bottom)
        sheet.layers(RIGHT + 0.12, top + 0.1, bottom - 0.1, config.late_layers, late_lines)
    _draw_paths(sheet, config, extents)


def _extents(config: ModelConfig) -> dict[str, Extent]:
    """Where everything in the right column stands, from below."""
    # What is chosen last stands nearest to the next note; what is chosen at once, as on the left.
    names = list(config.order)
    if config.heads == "parallel":
        names = list(reversed(FIELDS))
    if config.late_layers:
        names.insert(2, LATE_LAYERS)  # bar and start_pos come before them
    heights = [LATE if name == LATE_LAYERS else HEAD for name in names]
    gap = (BOTTOM - TOP - 0.9 - sum(heights)) / (len(names) - 1)
    extents = {}
    for i, name in enumerate(names):
        bottom = BOTTOM - sum(heights[:i]) - i * gap
        top = bottom - heights[i]
        extents[name] = Extent(top, bottom)
    return extents


def _draw_paths(sheet: Sheet,
                config: ModelConfig,
                extents: dict[str, Extent]) -> None:
    """The arrows of the right column: in from the left, from choice to choice, to the next note."""
    names = list(extents)
    first = extents[names[0]].middle
    fork = RIGHT - 0.3
    sheet.words(LEFT_END - 0.12, first, "state of the last note", ha="right", color=QUIET)
    sheet.arrow((LEFT_END, first), (RIGHT, first))
    if config.heads == "parallel":
        for name in names[1:]:
            middle = extents[name].middle
            sheet.arrow((fork, first), (fork, middle), (RIGHT, middle))
    if config.late_layers:
        begin = first - 0.45
        end = extents[LATE_LAYERS].middle
        sheet.words(LEFT_END - 0.12, begin, "states of all notes", ha="right", color=QUIET)
        turns = [(fork, begin), (fork, end)]
        sheet.arrow((LEFT_END, begin), *turns, (RIGHT, end), linestyle="--")
    if config.heads != "parallel":
        _draw_links(sheet, BETWEEN[config.heads], extents)
    outside = RIGHT_END + 0.25
    sheet.arrow(
        (RIGHT_END, first),
        (outside, first),
        (outside, STRIP_MIDDLE),
        (NEXT + NOTE, STRIP_MIDDLE),
    )
    for name in config.order:
        middle = extents[name].middle
        sheet.arrow((RIGHT_END, middle), (outside, middle), arrowstyle="-")


def _draw_links(sheet: Sheet, link: str, extents: dict[str, Extent]) -> None:
    """From each choice to the next, with the name of the layer between them."""
    for before, after in itertools.pairwise(extents):
        above = extents[before].top
        below = extents[after].bottom
        sheet.arrow((RIGHT + 0.4, above), (RIGHT + 0.4, below))
        if before != LATE_LAYERS:
            sheet.words(RIGHT + 0.55, (above + below) / 2, link, color=QUIET)


# ---------------------------------------------------------------- the file


def words_of(figure: Figure) -> str:
    """All words of a picture: what it says to those who do not see it."""
    texts = [text.get_text() for text in figure.axes[0].texts]
    return "; ".join(filter(None, texts))


def png(figure: Figure) -> bytes:
    """The picture as a file, its words beside it."""
    import numpy as np
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.image import imsave

    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    # Sixteen shades of red, green and blue do for lines and words, and halve the file.
    levels = np.arange(N_LEVELS)
    nearest = (np.rint(levels / SHADE) * SHADE).astype(np.uint8)
    pixels = nearest[np.asarray(canvas.buffer_rgba())]       # (height, width, 4)
    # matplotlib leaves out a key whose value is None, whatever its hints say.
    metadata: dict[str, Any] = {"Software": None, "Description": words_of(figure)}
    buffer = io.BytesIO()
    imsave(buffer, pixels, format="png", metadata=metadata)
    return buffer.getvalue()


# ---------------------------------------------------------------- the command


def read_config(path: Path) -> ModelConfig:
    """The model settings in a JSON file, with the sizes of the default vocabulary."""
    return ModelConfig.from_dict(read_json_object(path), load_vocabulary(), str(path))


def _model_in(path: Path) -> PooledTransformer:
    """The model in a file."""
    from backline.training.checkpoints import load_model  # brings torch

    return load_model(path)[0]


def _model_of(config: ModelConfig) -> PooledTransformer:
    """A model of these settings, with shapes and no numbers: enough to count its parameters."""
    import torch

    from model import PooledTransformer

    with torch.device("meta"):
        return PooledTransformer(config)


def build_parser() -> argparse.ArgumentParser:
    """The options of the command."""
    parser = Parser(__doc__)
    what = parser.add_mutually_exclusive_group()
    what.add_argument("--model_config", type=Path, default=BUNDLED_CONFIG,
                      help="config to draw (default: the bundled model's)")
    what.add_argument("-mp", "--model_path", type=Path, metavar="MODEL",
                      help="model to draw instead: .safetensors, checkpoint .pth, or hf:owner/name")
    parser.add_argument("-o", "--output", type=Path, required=True,
                        help="picture to write, ending in .png")
    parser.add_argument("--force", action="store_true", help="overwrite a file that exists")
    return parser


@reports_user_errors
def main(argv: Sequence[str] | None = None) -> int:
    """The command; returns its exit code."""
    args = build_parser().parse_args(argv)
    if args.output.suffix != ".png":
        raise UserError(f"{args.output}: the name must end in .png")
    source = fetched(args.model_path) if args.model_path else args.model_config
    check_file(source)
    check_new([args.output], args.force)
    check_writable(args.output.parent)

    model = _model_in(source) if args.model_path else _model_of(read_config(source))
    n_parameters = model.n_parameters()
    write_bytes(args.output, png(model_diagram(model.config, n_parameters)))
    print(f"{args.output}: {count(n_parameters, 'parameter')}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
