"""A run's losses as TensorBoard shows them, beside the CSV. tensorboard is imported only here."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

from backline.common.errors import UserError
from backline.common.installed import is_installed

FOLDER = "tensorboard"  # inside the run's
EVENTS = "events.out.tfevents.*"
INSTALL_TENSORBOARD = "pip install -r requirements-tensorboard.txt"
X_AXIS = "steps"


def check_tensorboard() -> None:
    """Raise UserError unless TensorBoard is installed."""
    if not is_installed("tensorboard"):
        raise UserError(f"--tensorboard needs tensorboard, which is not installed; {INSTALL_TENSORBOARD}")


class TensorBoardLog:
    """The rows of a run's table as events: a chart for each column, by step.

    A resumed run tells all of its rows anew, in place of what it told before it stopped.
    """

    def __init__(self, run: Path) -> None:
        from torch.utils.tensorboard import SummaryWriter

        remove_events(run)
        self.writer = SummaryWriter(str(run / FOLDER))
        self.n_told = 0

    def show(self, rows: list[dict[str, Any]]) -> None:
        """Tell the rows that were not told yet."""
        for row in rows[self.n_told:]:
            for name, value in row.items():
                if name != X_AXIS and value != "" and math.isfinite(float(value)):
                    self.writer.add_scalar(tag(name), float(value), int(row[X_AXIS]))
        self.n_told = len(rows)
        self.writer.flush()


def remove_events(run: Path) -> None:
    """Remove what was told of a run, or of the one whose place it takes."""
    for old in (run / FOLDER).glob(EVENTS):
        old.unlink()


def tag(column: str) -> str:
    """The chart of a column: "train_loss" is loss/train, "held_out_bar" is bar/held out."""
    for kind, label in (("train_", "train"), ("held_out_", "held out")):
        if column.startswith(kind):
            return f"{column.removeprefix(kind)}/{label}"
    return f"run/{column}"
