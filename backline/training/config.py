"""The settings of a training run and the names of the files in its folder. Light: no torch."""

from __future__ import annotations

import dataclasses

from backline.common.errors import UserError
from backline.common.files import CHECKPOINTS

SEEDS = 2**32
BEST, LAST = CHECKPOINTS
LOSSES = "train_losses.csv"
PICTURE = "losses.png"
SETTINGS = "hyperparameters.json"
CONTROLS = "controls.npy"

# Which values settings may have, by their names.
CHOICES = {
    "precision": ("fp32", "bf16"),
    "optimizer": ("adamw", "muon"),
    "schedule": ("cosine", "constant"),
}
AT_LEAST_ONE = ("batch_size", "num_epochs", "loggingsteps", "accumulation")
NOT_NEGATIVE = (
    "max_train_steps",
    "warmup_steps",
    "weight_decay",
    "clip_norm",
    "validate_steps",
    "validate_rows",
    "patience",
    "beta2_half_life",
    "row_notes",
    "max_minutes",
)
SHARES = (
    "drop_parts",
    "wrong_notes",
    "given_tasks",
    "final_lr",
    "decay_share",
    "whole_rows_from",
    "song_starts",
    "song_ends",
)
SHARES_BELOW_ONE = ("momentum", "average")
RATES = ("lr", "muon_lr")


@dataclasses.dataclass(frozen=True)
class TrainingSettings:
    """How a run goes. A step is one optimizer step over `batch_size` × `accumulation` rows."""

    batch_size: int = 12
    num_epochs: int = 22
    lr: float = 0.5e-4  # peak learning rate of AdamW
    optimizer: str = "adamw"  # "muon" moves the hidden matrices by Muon, and all else by AdamW
    muon_lr: float = 0.02  # peak learning rate of Muon
    momentum: float = 0.95  # of Muon
    beta2_half_life: int = 0  # notes until AdamW's second moment has halved; 0: 693 steps
    filename: str = "musictransformer"  # run folder
    loggingsteps: int = 500  # steps between rows of train_losses.csv and saves of last.pth
    max_train_steps: int = 0  # stop after this many steps even if epochs are left; 0: no limit
    max_minutes: float = 0.0  # instead of num_epochs: as many steps as fit into this time
    warmup_steps: int = 100  # of linear warm-up, at most half of the run
    schedule: str = "cosine"  # of the rates after warm-up; "constant": a linear decay at the end
    decay_share: float = 0.2  # share of the steps in which "constant" decays
    final_lr: float = 0.1  # share of the rates at the last step
    weight_decay: float = 0.01  # times the rate, per step; never on biases and norms
    average: float = 0.0  # the model is the average of its weights over this share of the steps done
    clip_norm: float = 1.0  # gradients are scaled down to this norm; 0: never
    precision: str = "fp32"  # "bf16" computes under bfloat16 autocast
    validate_steps: int = 0  # steps between validations; 0: one after each epoch
    validate_rows: int = 0  # held-out rows used for each, spread evenly; 0: all of them
    accumulation: int = 1  # batches of `batch_size` rows that make one step
    patience: int = 0  # stop after so many validations without a lower held-out loss; 0: never
    transpose: tuple[int, ...] = ()  # [lowest, highest] semitones, drawn for each row; not drums
    random_crops: bool = False  # rows begin at another note in each epoch
    row_notes: int = 0  # notes of each row, which divide those of the dataset's rows; 0: those
    whole_rows_from: float = 1.0  # share of the run after which rows have the dataset's length
    song_starts: float = 0.0  # share of the rows that begin where a song begins
    song_ends: float = 0.0  # share of the rows that are a song's last 4 to 32 bars, as a song
    bar_lines: bool = False  # all other rows begin at a bar line
    drop_parts: float = 0.0  # share of the rows that lose one part, drawn for each
    wrong_notes: float = 0.0  # share of the notes that the model hears with another pitch
    given_tasks: float = 0.0  # share of the rows made into tasks with given notes
    compile: bool = False  # by torch.compile; on a CPU it needs a C++ compiler
    seed: int = 0

    def __post_init__(self) -> None:
        """Raise UserError for values out of range, and for settings that contradict each other."""
        self._check_ranges()
        for name, options in CHOICES.items():
            value = getattr(self, name)
            if value not in options:
                raise UserError(f"{name}={value!r} must be one of {', '.join(options)}")
        if self.transpose and not self._is_range_around_zero():
            raise UserError(f"transpose={list(self.transpose)} must be [lowest, highest] semitones with 0 "
                            f"between, or []")
        if not 0 <= self.seed < SEEDS:
            raise UserError(f"seed={self.seed} must be from 0 to {SEEDS - 1}")
        if self.max_minutes and self.max_train_steps:
            raise UserError(f"max_minutes={self.max_minutes} and max_train_steps={self.max_train_steps} "
                            f"both say how long the run is; leave one out")
        if self.song_starts + self.song_ends > 1:
            raise UserError(f"song_starts={self.song_starts} and song_ends={self.song_ends} make up more "
                            f"than all rows")
        if not self.filename:
            raise UserError("filename must name the run's folder")

    def _check_ranges(self) -> None:
        for name in AT_LEAST_ONE:
            if getattr(self, name) < 1:
                raise UserError(f"{name}={getattr(self, name)} must be at least 1")
        for name in NOT_NEGATIVE:
            if getattr(self, name) < 0:
                raise UserError(f"{name}={getattr(self, name)} must not be negative")
        for name in SHARES:
            if not 0 <= getattr(self, name) <= 1:
                raise UserError(f"{name}={getattr(self, name)} must be from 0 to 1")
        for name in SHARES_BELOW_ONE:
            if not 0 <= getattr(self, name) < 1:
                raise UserError(f"{name}={getattr(self, name)} must be at least 0 and below 1")
        for name in RATES:
            if not getattr(self, name) > 0:
                raise UserError(f"{name}={getattr(self, name)} must be above 0")

    def _is_range_around_zero(self) -> bool:
        return len(self.transpose) == 2 and self.transpose[0] <= 0 <= self.transpose[1]

    def with_batch_size(self, batch_size: int) -> TrainingSettings:
        """The same steps, from batches of another size. Raises UserError if they do not divide evenly."""
        rows = self.batch_size * self.accumulation
        if batch_size < 1 or rows % batch_size:
            sizes = [str(size) for size in range(1, rows + 1) if rows % size == 0]
            raise UserError(f"--batch_size {batch_size}: a step of this run is {rows} rows; give one of "
                            f"{', '.join(sizes)}")
        accumulation = rows // batch_size
        return dataclasses.replace(self, batch_size=batch_size, accumulation=accumulation)
