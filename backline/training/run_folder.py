"""What a training run leaves on disk: checkpoints, its settings, the table and the picture of its losses."""

from __future__ import annotations

import contextlib
import csv
import io
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from backline.common.errors import UserError
from backline.common.files import file_hash, read_json_object, write_bytes
from backline.common.settings import config_to_dict
from backline.common.surroundings import run_surroundings
from backline.music.vocab import FIELDS, Vocabulary
from backline.training.checkpoints import save_checkpoint
from backline.training.config import BEST, LAST, LOSSES, PICTURE, SETTINGS
from backline.training.distributed import Processes
from backline.training.tensorboard_log import TensorBoardLog, remove_events
from model import PooledTransformer

if TYPE_CHECKING:
    from backline.training.run import Run

COLUMNS = [
    "steps",
    "train_loss",
    *(f"train_{field}" for field in FIELDS),
    "held_out_loss",
    *(f"held_out_{field}" for field in FIELDS),
    "held_out_raw",
    "lr",
    "epoch",
    "notes_seen",
    "seconds",
]


class RunFolder:
    """The folder of a run. Only the first of several processes writes into it."""

    def __init__(self, path: Path, metadata: dict[str, Any], processes: Processes) -> None:
        """`metadata`: plain data on what the run was made of, for hyperparameters.json and checkpoints."""
        self.path = path
        self.metadata = metadata
        self.is_first = processes.is_first
        self.tensorboard: TensorBoardLog | None = None

    def __str__(self) -> str:
        return str(self.path)

    @property
    def last(self) -> Path:
        """The checkpoint from which the run is resumed."""
        return self.path / LAST

    def save(self, name: str, model: PooledTransformer, vocabulary: Vocabulary,
             state: dict[str, Any]) -> None:
        """Write the checkpoint `name`; `state` is what it holds beside the model.

        Raises UserError if the disk has no room for it.
        """
        if not self.is_first:
            return
        with self.room_needed():
            save_checkpoint(self.path / name, model, vocabulary, state)

    def write_table(self, rows: list[dict[str, Any]]) -> None:
        """Write the CSV and the picture, unless they are up to date.

        Raises UserError if the disk has no room for them.
        """
        if not self.is_first:
            return
        if self.tensorboard:
            self.tensorboard.show(rows)
        text = io.StringIO()
        writer = csv.DictWriter(text, COLUMNS, lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
        table = text.getvalue().encode()
        path = self.path / LOSSES
        picture = self.path / PICTURE
        if path.is_file() and path.read_bytes() == table and picture.is_file():
            return
        from backline.training.loss_picture import loss_curves  # matplotlib is slow to import

        with self.room_needed():
            write_bytes(picture, loss_curves(rows))
            write_bytes(path, table)  # written last, so a current CSV implies a current picture

    def write_settings(self, run: Run, command: Sequence[str]) -> None:
        """Write hyperparameters.json of a new run, and remove what an old one has left.

        The old files go first, so that nobody resumes the old run under new settings.
        """
        if not self.is_first:
            return
        weights = self.metadata["weights"]
        made_of = {name: value for name, value in self.metadata.items() if name != "controls"}
        content = {
            "model_config": config_to_dict(run.model.config),
            "training_args": config_to_dict(run.settings),
            **made_of,
            "weights_hash": file_hash(Path(weights)) if weights else None,
            "vocabulary_hash": run.dataset.vocabulary.digest,
            "seed": run.settings.seed,
            "parameters": run.model.n_parameters(),
            **run_surroundings(command, run.device, run.processes.count),
            "resumed": [],
        }
        # Perhaps the run starts from one of them: it is read by now.
        for name in (LAST, BEST, LOSSES, PICTURE):
            (self.path / name).unlink(missing_ok=True)
        remove_events(self.path)
        self._store_settings(content)

    def add_to_settings(self, run: Run, command: Sequence[str]) -> None:
        """Note in hyperparameters.json, if it is there, how the run is resumed."""
        if not self.is_first or not (self.path / SETTINGS).is_file():
            return
        content = read_json_object(self.path / SETTINGS)
        sitting = {
            "step": run.progress.step,
            "batch_size": run.settings.batch_size,
            **run_surroundings(command, run.device, run.processes.count),
        }
        sittings = [*content.get("resumed", []), sitting]
        self._store_settings({**content, "resumed": sittings})

    def _store_settings(self, content: dict[str, Any]) -> None:
        with self.room_needed():
            write_bytes(self.path / SETTINGS, json.dumps(content, indent=2).encode())

    @contextlib.contextmanager
    def room_needed(self) -> Iterator[None]:
        """Turns a failed write inside the block, usually for a full disk, into a UserError."""
        try:
            yield
        except OSError as err:
            remedy = "start again"
            if self.last.is_file():
                remedy = f"continue with --resume {self.path}: {LAST} is whole"
            raise UserError(f"{err.filename or self.path}: cannot be written ({err.strerror or err}); "
                            f"make room there, then {remedy}") from None
