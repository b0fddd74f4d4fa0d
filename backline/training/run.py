"""The training loop behind train_pool.py: a run that can be stopped anywhere and continued exactly."""

from __future__ import annotations

import contextlib
import dataclasses
import math
import operator
import os
import signal
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
import torch.utils.data
from torch import Tensor, nn
from tqdm import tqdm

from backline.common.errors import EXIT_INTERRUPTED, UserError
from backline.common.settings import config_to_dict
from backline.music.vocab import FIELDS
from backline.preparation.dataset import Dataset, Split
from backline.training.augmentation import WrongNotes
from backline.training.batches import Batches
from backline.training.config import BEST, LAST, TrainingSettings
from backline.training.control_tables import ControlTables
from backline.training.distributed import SEEDS, STOP_SIGNALS, Processes, SharedError
from backline.training.losses import n_predicted, window_losses
from backline.training.optimization import Optimizers, WeightAverage, rate_share
from backline.training.planning import steps_in_time
from backline.training.run_folder import RunFolder
from backline.training.torch_errors import (
    compile_failure,
    is_compile_failure,
    is_out_of_memory,
    smaller_batches,
    too_large,
)
from model import PooledTransformer

MOST_WORKERS = 12  # processes that make rows for a GPU


@dataclasses.dataclass
class Progress:
    """Where a run stands; all of it is stored in a checkpoint."""

    step: int = 0  # optimizer steps done
    notes_seen: int = 0
    seconds: float = 0.0  # of training, over all sittings
    best: float = math.inf  # lowest held-out loss, in nats per note
    misses: int = 0  # validations since then
    rows: list[dict[str, Any]] = dataclasses.field(default_factory=list)  # of train_losses.csv
    # Losses since the last row, summed over steps; each family apart.
    sums: list[float] = dataclasses.field(default_factory=lambda: [0.0] * len(FIELDS))
    count: int = 0  # steps in `sums`
    planned: int = 0  # steps of the whole run, where max_minutes made the plan


@dataclasses.dataclass(frozen=True)
class TrainingSongs:
    """The songs of a run."""

    dataset: Dataset
    split: Split
    controls: ControlTables | None = None  # for a model that can be told what to play


class Run:
    """One training run, from its first or present step to its last."""

    def __init__(self, folder: RunFolder, settings: TrainingSettings, model: PooledTransformer,
                 songs: TrainingSongs, processes: Processes) -> None:
        """Moves `model` to the device, and compiles it if the settings say so.

        Raises UserError if it cannot be compiled here, or if the settings do not fit it or the songs.
        """
        self.folder = folder
        self.settings = settings
        self.dataset = songs.dataset
        self.split = songs.split
        self.processes = processes
        self.device = processes.device
        # A GPU's host does not wait for the device: losses are looked at in `_log` alone.
        self.runs_ahead = self.device.type == "cuda"
        self.model = model.to(self.device)
        if settings.compile:
            try:
                self.model.compile()  # in place: the names of its weights stay
            except RuntimeError as err:  # not on this system, or not with this Python
                raise UserError(compile_failure(err)) from None
        self.forward: nn.Module = self.model  # what a step calls; several processes wrap it
        self.data = Batches(songs.dataset, songs.split, model.config, settings, songs.controls)
        self.wrong_notes = None
        if settings.wrong_notes:
            self.wrong_notes = WrongNotes(songs.dataset.vocabulary, settings.wrong_notes)
        self.steps_per_epoch = self.data.steps_per_epoch
        self.began = time.monotonic()  # max_minutes counts from here
        self.optimizers = self.new_optimizers()
        self.average = WeightAverage(model, settings.average) if settings.average else None
        self.progress = Progress()
        # `progress.sums`, on the device where the host does not wait. Not all devices know float64.
        sums_device = self.device if self.runs_ahead else torch.device("cpu")
        self.sums = torch.zeros(len(FIELDS), dtype=torch.float64, device=sums_device)  # (F,)

    def new_optimizers(self) -> Optimizers:
        """The optimizers of a run at its first step."""
        notes_per_step = self.data.rows_per_step * (self.data.length - 1)
        return Optimizers(self.model, self.settings, notes_per_step)

    @property
    def total_steps(self) -> int:
        """Steps of the whole run."""
        return self.data.total_steps

    @property
    def validate_every(self) -> int:
        """Steps between validations."""
        return self.settings.validate_steps or self.steps_per_epoch

    # ------------------------------------------------------------ where it stands

    def restore(self, state: dict[str, Any]) -> None:
        """Go on from where `state`, a checkpoint's "training", was saved."""
        self.optimizers.restore(state)
        if self.average:
            self.average.begin_again()
            self.model.load_state_dict(state["raw_weights"])
        self.progress = Progress(**state["progress"])
        self.sums.copy_(torch.tensor(self.progress.sums, dtype=torch.float64))
        self.data.total_steps = self.progress.planned or self.data.total_steps
        self.set_random_state(state["random"])

    def random_state(self) -> dict[str, Any]:
        """The states of torch's global generators, from which dropout draws."""
        is_gpu = self.device.type == "cuda"
        return {
            "cpu": torch.get_rng_state(),
            "cuda": torch.cuda.get_rng_state_all() if is_gpu else [],
        }

    def set_random_state(self, random: dict[str, Any]) -> None:
        """Go on drawing from what `random_state` returned."""
        torch.set_rng_state(random["cpu"])
        if self.device.type == "cuda" and len(random["cuda"]) == torch.cuda.device_count():
            torch.cuda.set_rng_state_all(random["cuda"])

    def announce(self) -> None:
        """Print what the run is made of, and where it stands."""
        if not self.processes.is_first:
            return
        if self.split.notice:
            print(f"notice: {self.split.notice}", file=sys.stderr)
        n_held_out = len(self.split.held_out_songs)
        n_train = self.dataset.n_songs - n_held_out
        n_processes = self.processes.count
        devices = f"{n_processes} × {self.device.type}" if n_processes > 1 else str(self.device)
        length = str(self.total_steps)
        if self.settings.max_minutes and not self.progress.planned:
            length = f"as many as {self.settings.max_minutes:g} minutes hold"
        print(f"{self.folder}: {self.model.n_parameters():,} parameters on {devices}; "
              f"{n_train} songs for training ({len(self.split.train)} rows), "
              f"{n_held_out} held out ({len(self.split.held_out)} rows); "
              f"step {self.progress.step} of {length}", flush=True)

    def has_lost_patience(self) -> bool:
        """Whether the last `patience` validations were all above the lowest held-out loss."""
        patience = self.settings.patience
        return bool(patience) and self.progress.misses >= patience

    def _outcome(self) -> str:
        """What the run came to, in a line or three."""
        done = self.progress
        if done.step < self.total_steps and not self.has_lost_patience():
            return (f"stopped at step {done.step}; continue with: python train_pool.py --resume "
                    f"{self.folder}")
        lines = []
        if self.has_lost_patience():
            lines.append(f"{self.folder}: no lower held-out loss in {self.settings.patience} validations; "
                         f"stopped at step {done.step} of {self.total_steps}")
        held_out = [row for row in done.rows if "held_out_loss" in row]
        before = held_out[0]["held_out_loss"]
        after = held_out[-1]["held_out_loss"]
        families = [held_out[-1][f"held_out_{field}"] for field in FIELDS]
        lines.append(f"{self.folder}: {done.step} steps, {done.notes_seen:,} notes seen; held out: "
                     f"{describe_losses(families)}; lowest {done.best:.3f}")
        if self.folder.metadata["weights"]:
            compared = f"{self.folder}: held out before {before:.3f}, after {after:.3f} nats/note"
            if before <= done.best:
                compared += (f"; no step lowered it, so {BEST} is what the run began with, and {LAST} "
                             f"what it learned")
            lines.append(compared)
        return "\n".join(lines)

    # ------------------------------------------------------------ training

    def train(self) -> int:
        """Train to the last step; returns the command's exit code.

        Ctrl-C and SIGTERM save and leave, with the code of an interrupted command: `train && generate`
        does not go on with a half-trained model.
        """
        self.forward = self.processes.spread(self.model)
        with self.processes.noting_stops():
            if not self.progress.rows:
                self._log(validate=True)
            if self.settings.max_minutes and not self.progress.planned:
                self._plan()
            with tqdm(total=self.total_steps, initial=self.progress.step, unit="step",
                      disable=None if self.processes.is_first else True) as bar:
                self._train(bar)
            is_stopped = self.progress.step < self.total_steps and not self.has_lost_patience()
            if is_stopped:
                self._check_finite(self.sums, self.progress.step)
                self.save()
        self.forward = self.model  # DDP has to be gone when the processes part, or they may hang
        if self.processes.is_first:
            print(self._outcome())
        return EXIT_INTERRUPTED if is_stopped else 0

    def _plan(self) -> None:
        """Set how many steps the run has, by `max_minutes`, and store that before the first of them."""
        self.data.total_steps = steps_in_time(self)
        self.progress.planned = self.total_steps
        self.save()
        if self.processes.is_first:
            print(f"{self.folder}: {self.total_steps} steps in {self.settings.max_minutes:g} minutes",
                  flush=True)

    def _train(self, bar: tqdm) -> None:
        """Take steps until the last one, until somebody asks to stop or patience is lost."""
        progress = self.progress
        notes_before = progress.notes_seen
        seconds_before = progress.seconds
        began = time.monotonic()
        for rows in self.batches():
            is_done = progress.step >= self.total_steps or self.has_lost_patience()
            if is_done or self.processes.stopping:
                return
            if not self.runs_ahead:
                began = time.monotonic()
            losses = self.step(rows)
            bar.update()
            validates = progress.step % self.validate_every == 0 or progress.step == self.total_steps
            logs = validates or progress.step % self.settings.loggingsteps == 0
            if logs:
                self.wait()  # only now is known how long the steps took
            progress.seconds += time.monotonic() - began
            if logs or not self.runs_ahead:
                seconds = max(progress.seconds - seconds_before, 1e-9)
                speed = (progress.notes_seen - notes_before) / seconds
                bar.set_postfix_str(f"{losses.sum():.3f} nats/note, {speed:,.0f} notes/s", refresh=False)
            if logs:
                self._log(validates)
            began = time.monotonic()

    def batches(self) -> Iterator[Tensor]:
        """Batches (B, T, C) from where the run stands on.

        For a GPU they are made ahead of time, by processes of their own.
        """
        if not self.runs_ahead:
            return self.data.from_step(self.progress.step)
        n_workers = min(MOST_WORKERS, max((os.cpu_count() or 1) - 1, 1))
        # As the dataset has them: a container has little memory through which processes hand them over.
        small = operator.methodcaller("to", self.data.notes.dtype)
        loader = torch.utils.data.DataLoader(
            self.data,
            batch_size=None,
            sampler=range(self.progress.step, self.total_steps + 1),
            num_workers=n_workers,
            collate_fn=small,
            pin_memory=self.device.type == "cuda",
            worker_init_fn=outlive_signals,
            generator=torch.Generator(),  # or it would draw from the run's own
        )
        return iter(loader)

    def wait(self) -> None:
        """Let the device finish what it has been given."""
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)

    def learning_rate(self) -> float:
        """AdamW's rate in the last step; 0 before the first."""
        last_step = self.progress.step - 1
        if last_step < 0:
            return 0.0
        return self.settings.lr * rate_share(self.settings, last_step, self.total_steps)

    def step(self, rows: Tensor) -> Tensor:
        """One optimizer step on rows (B, T, C); returns each family's loss (F,) in nats."""
        progress = self.progress
        self.model.train()
        self.processes.seed_draws(self.settings.seed, progress.step)
        with self._explained(rows):
            losses = self._add_gradients(rows)
            if not self.runs_ahead:  # before the weights move, so those in memory stay good
                self._check_finite(losses, progress.step + 1)
            if self.settings.clip_norm:
                torch.nn.utils.clip_grad_norm_(self.model.parameters(), self.settings.clip_norm)
            self.optimizers.step(rate_share(self.settings, progress.step, self.total_steps))
        progress.step += 1
        if self.average:
            self.average.update(progress.step)
        progress.notes_seen += rows.shape[0] * (rows.shape[1] - 1)
        progress.count += 1
        self.sums += losses.to(self.sums.device).double()
        return losses

    def _add_gradients(self, rows: Tensor) -> Tensor:
        """Compute gradients of the mean loss of rows (B, T, C), over all processes.

        Returns:
            (F,) each family's loss in nats, a mean over the notes that are predicted.
        """
        n_notes = rows.shape[0] * (rows.shape[1] - 1)
        scale = n_notes / max(n_predicted(rows), 1)  # given notes are no part of the mean
        heard = self._heard(rows)
        mine = self.processes.share(rows)
        # A process without rows computes one with weight 0: DDP needs a backward pass from each.
        batches = mine.split(self.settings.batch_size) if len(mine) else (rows[:1],)
        heard_batches: Sequence[Tensor | None] = [None] * len(batches)
        if heard is not None:
            heard_mine = self.processes.share(heard) if len(mine) else heard[:1]
            heard_batches = heard_mine.split(self.settings.batch_size)
        losses = torch.zeros(len(FIELDS), device=self.device)
        for number, (batch, heard_batch) in enumerate(zip(batches, heard_batches, strict=True), 1):
            share = len(batch) / len(rows) if len(mine) else 0.0
            is_last = number == len(batches)
            with self.processes.gradients_wait(self.forward, wait=not is_last):
                batch_losses = self._losses(batch, heard_batch) * (share * scale)  # (F,)
                # The published loss is the mean over families; under AdamW only clipping can tell it
                # from the sum. DDP averages gradients over processes; multiply to get their sum.
                loss = batch_losses.mean() * self.processes.count
                loss.backward()
            losses += batch_losses.detach()
        return self.processes.total(losses)

    def _heard(self, rows: Tensor) -> Tensor | None:
        """(B, T, F) notes of a step's rows (B, T, C) as the model hears them; None: as they are."""
        if self.wrong_notes is None:
            return None
        seed = (self.settings.seed * 1_000_003 + self.progress.step) % SEEDS
        return self.wrong_notes(rows, torch.Generator().manual_seed(seed))

    def _losses(self, rows: Tensor, heard: Tensor | None = None) -> Tensor:
        """Each family's loss (F,) in nats, the mean over rows (B, T, C); given notes count as 0.

        `heard`: see `window_losses`.
        """
        forward: Callable[..., Any] = self.forward
        if self.runs_ahead and not torch.is_grad_enabled():
            # A GPU validates with the model as it is: compiling it again without gradients takes longer.
            forward = self.model.forward
        rows = rows.to(self.device, non_blocking=self.runs_ahead).long()
        if heard is not None:
            heard = heard.to(self.device, non_blocking=self.runs_ahead).long()
        is_bf16 = self.settings.precision == "bf16"
        with torch.autocast(self.device.type, torch.bfloat16, enabled=is_bf16):
            losses = window_losses(forward, self.model.config, rows, heard)  # (B, T − 1, F)
        return losses.mean((0, 1))

    @torch.no_grad()
    def validate(self) -> list[float]:
        """Each family's loss on held-out songs, in nats; every row counts the same."""
        self.model.eval()
        rows = self.split.held_out                               # (N, T, F)
        wanted = self.settings.validate_rows
        if 0 < wanted < len(rows):
            spread_evenly = torch.arange(wanted) * len(rows) // wanted
            rows = rows[spread_evenly]
        total = torch.zeros_like(self.sums)                      # (F,)
        mine = self.processes.share(rows)
        with self._explained(rows):
            for batch in mine.split(self.settings.batch_size) if len(mine) else ():
                losses = self._losses(batch).to(total.device)
                total += losses.double() * len(batch)
        return (self.processes.total(total) / len(rows)).tolist()

    def _check_finite(self, losses: Tensor, step: int) -> None:
        if not losses.isfinite().all():
            raise SharedError(f"the loss is no longer finite at step {step}; lower lr in the training "
                              f"settings, or use precision fp32")

    @contextlib.contextmanager
    def _explained(self, rows: Tensor) -> Iterator[None]:
        """Turns out-of-memory and compile failures inside the block, on (B, T, C) rows, into UserErrors."""
        try:
            yield
        except (RuntimeError, MemoryError) as err:
            if is_out_of_memory(err):
                raise UserError(self._too_large(rows)) from None
            if self.settings.compile and is_compile_failure(err):
                raise UserError(compile_failure(err)) from None
            raise

    def _too_large(self, rows: Tensor) -> str:
        """One line about rows (B, T, C) that do not fit into the device's memory, and how to go on."""
        settings = self.settings
        rows_of_process = math.ceil(len(rows) / self.processes.count)
        at_once = min(settings.batch_size, rows_of_process)
        smaller = smaller_batches(settings.batch_size, settings.accumulation, at_once)
        text = too_large(self.device, at_once, rows.shape[1], smaller)
        if self.folder.last.is_file():
            text += f"; {self.folder.last} is there still: --resume {self.folder}"
            text += f" --batch_size {smaller[0]} continues it" if smaller else " continues it"
        return text

    # ------------------------------------------------------------ what is kept

    def _log(self, validate: bool) -> None:
        """Add a row to train_losses.csv, and save; with a new lowest held-out loss best.pth too."""
        progress = self.progress
        self._check_finite(self.sums, progress.step)
        row = self._row()
        held_out = None
        if validate:
            with self._averaged():
                held_out = self.validate()
            row |= loss_columns("held_out", held_out)
            if self.average:
                row["held_out_raw"] = sum(self.validate())
        progress.rows.append(row)
        self.sums.zero_()
        progress.sums = self.sums.tolist()
        progress.count = 0
        if held_out is not None and self._is_lowest(sum(held_out)):
            # Before last.pth, which knows of it: killed in between, a resumed run writes it again.
            self.save(BEST)
        self.save()
        if held_out is not None and self.processes.is_first:
            tqdm.write(f"step {progress.step}: held out {describe_losses(held_out)}", file=sys.stderr)

    def _row(self) -> dict[str, Any]:
        """What train_losses.csv says of the steps since the last row."""
        progress = self.progress
        row: dict[str, Any] = {
            "steps": progress.step,
            "lr": self.learning_rate(),
            "epoch": progress.step / self.steps_per_epoch,
            "notes_seen": progress.notes_seen,
            "seconds": round(progress.seconds, 1),
        }
        if progress.count:
            row |= loss_columns("train", (self.sums / progress.count).tolist())
        return row

    def _is_lowest(self, loss: float) -> bool:
        """Take in a held-out loss; whether it is lower than all before."""
        progress = self.progress
        is_lowest = loss < progress.best
        if is_lowest:
            progress.best = loss
            progress.misses = 0
        else:
            progress.misses += 1
        return is_lowest

    def save(self, name: str = LAST) -> None:
        """Write a checkpoint, and with last.pth the CSV and the picture that belong to it."""
        if not self.processes.is_first:
            return
        self.progress.sums = self.sums.tolist()
        state = {
            "settings": config_to_dict(self.settings),
            "facts": self.folder.metadata,
            "progress": dataclasses.asdict(self.progress),
            "versions": {"torch": str(torch.__version__), "python": sys.version.split()[0]},
        }
        if name == LAST:  # what only continuing needs
            state |= {**self.optimizers.state(), "random": self.random_state()}
            if self.average:  # the checkpoint's weights are the average
                raw = self.model.state_dict()
                state["raw_weights"] = {key: tensor.clone() for key, tensor in raw.items()}
        with self._averaged():
            self.folder.save(name, self.model, self.dataset.vocabulary, state)
        if name == LAST:
            self.folder.write_table(self.progress.rows)

    def _averaged(self) -> contextlib.AbstractContextManager[None]:
        """Within the block the model's weights are their average, if the run keeps one."""
        return self.average.in_place() if self.average else contextlib.nullcontext()


def outlive_signals(_worker: int) -> None:
    """Let a process that makes rows go on when all are asked to stop, as torchrun asks every one.

    The run needs its rows to finish the step and to save; then it ends them itself.
    """
    for number in STOP_SIGNALS:
        signal.signal(number, signal.SIG_IGN)


def loss_columns(side: str, losses: Sequence[float]) -> dict[str, float]:
    """The columns of train_losses.csv for one side of the split, from each family's loss."""
    by_family = {f"{side}_{field}": loss for field, loss in zip(FIELDS, losses, strict=True)}
    return {f"{side}_loss": sum(losses), **by_family}


def describe_losses(losses: Sequence[float]) -> str:
    """Nats per note, and each family's share of them, on one line."""
    families = [f"{field} {loss:.3f}" for field, loss in zip(FIELDS, losses, strict=True)]
    return f"{sum(losses):.3f} nats/note ({', '.join(families)})"
