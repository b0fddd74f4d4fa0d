"""The training loop behind train_pool.py: a run that can be stopped anywhere and continued exactly."""

from __future__ import annotations

import contextlib
import dataclasses
import math
import operator
import os
import sys
import time
from collections.abc import Iterator
from typing import Any

import torch
import torch.utils.data
from torch import Tensor
from tqdm import tqdm

from backline.common.errors import EXIT_INTERRUPTED, UserError
from backline.common.settings import config_to_dict
from backline.music.vocab import FIELDS
from backline.preparation.dataset import Dataset, Split
from backline.training.batches import Batches
from backline.training.config import BEST, LAST, TrainingSettings
from backline.training.control_tables import ControlTables
from backline.training.distributed import Processes, SharedError
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
    sums: list[float] = dataclasses.field(default_factory=lambda: [0.0] * len(FIELDS))  # losses since the last row
    count: int = 0  # steps in `sums`
    planned: int = 0  # steps of the whole run, where max_minutes made the plan


@dataclasses.dataclass(frozen=True)
class TrainingSongs:
    """The songs of a run."""

    dataset: Dataset
    split: Split
    controls: ControlTables | None = None  # for a model that can be told what to play


class Run:
    """One training run: everything between its settings and its folder."""

    def __init__(self, folder: RunFolder, settings: TrainingSettings, model: PooledTransformer,
                 songs: TrainingSongs, processes: Processes) -> None:
        self.folder = folder
        self.settings = settings
        self.dataset = songs.dataset
        self.split = songs.split
        self.processes = processes
        self.device = processes.device
        self.runs_ahead = self.device.type == "cuda"  # the host does not wait for the device: `_log` looks at losses
        self.model = model.to(self.device)
        if settings.compile:
            try:
                self.model.compile()  # in place: the names of its weights stay
            except RuntimeError as err:  # not on this system, or not with this Python
                raise UserError(compile_failure(err)) from None
        self.forward = self.model  # what a step calls; several processes wrap it
        self.data = Batches(songs.dataset, songs.split, model.config, settings, songs.controls)
        self.steps_per_epoch = self.data.steps_per_epoch
        self.began = time.monotonic()
        self.optimizers = self.new_optimizers()
        self.average = WeightAverage(model, settings.average) if settings.average else None
        self.progress = Progress()
        # Of `progress`; where the host does not wait they stay on the device. Not all devices know float64.
        self.sums = torch.zeros(len(FIELDS), dtype=torch.float64, device=self.device if self.runs_ahead else "cpu")

    def new_optimizers(self) -> Optimizers:
        """Those of a run at its first step."""
        return Optimizers(self.model, self.settings, self.data.rows_per_step * (self.data.length - 1))

    @property
    def total_steps(self) -> int:
        return self.data.total_steps

    def restore(self, state: dict[str, Any]) -> None:
        """Go on from where `state` was saved: a checkpoint's "training"."""
        self.optimizers.restore(state)
        if self.average:
            self.average.begin_again()
            self.model.load_state_dict(state["raw_weights"])
        self.progress = Progress(**state["progress"])
        self.sums.copy_(torch.tensor(self.progress.sums, dtype=torch.float64))
        self.data.total_steps = self.progress.planned or self.data.total_steps
        self.set_random_state(state["random"])

    def random_state(self) -> dict[str, Any]:
        return {"cpu": torch.get_rng_state(),
                "cuda": torch.cuda.get_rng_state_all() if self.device.type == "cuda" else []}

    def set_random_state(self, random: dict[str, Any]) -> None:
        torch.set_rng_state(random["cpu"])
        if self.device.type == "cuda" and len(random["cuda"]) == torch.cuda.device_count():
            torch.cuda.set_rng_state_all(random["cuda"])

    def announce(self) -> None:
        """Print what the run is made of, and where it stands."""
        if not self.processes.is_first:
            return
        if self.split.notice:
            print(f"notice: {self.split.notice}", file=sys.stderr)
        print(f"{self.folder}: {self.model.n_parameters():,} parameters on {self._devices()}; "
              f"{self.dataset.n_songs - len(self.split.held_out_songs)} songs for training ({len(self.split.train)} "
              f"rows), {len(self.split.held_out_songs)} held out ({len(self.split.held_out)} rows); "
              f"step {self.progress.step} of {self._length()}", flush=True)

    def _length(self) -> str:
        """The number of steps, or what it will be made of."""
        is_open = self.settings.max_minutes and not self.progress.planned
        return f"as many as {self.settings.max_minutes:g} minutes hold" if is_open else str(self.total_steps)

    def _devices(self) -> str:
        """As people say it: cpu, or 4 × cuda."""
        return f"{self.processes.count} × {self.device.type}" if self.processes.count > 1 else str(self.device)

    # ------------------------------------------------------------ training

    def train(self) -> int:
        """Train to the last step; returns the command's exit code.

        Ctrl-C and SIGTERM save and leave, with the code of an interrupted command: `train && generate` does not go
        on with a model that is not done.
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
        if self.processes.is_first:
            print(self._outcome())
        return EXIT_INTERRUPTED if is_stopped else 0

    def _outcome(self) -> str:
        """What the run came to, for people."""
        done, text = self.progress, ""
        if self.has_lost_patience():
            text = f"{self.folder}: no lower held-out loss in {self.settings.patience} validations; stopped at step " \
                   f"{done.step} of {self.total_steps}\n"
        elif done.step < self.total_steps:
            return f"stopped at step {done.step}; continue with: python train_pool.py --resume {self.folder}"
        held_out = [row for row in done.rows if "held_out_loss" in row]
        text += f"{self.folder}: {done.step} steps, {done.notes_seen:,} notes seen; held out: "
        text += describe_losses([held_out[-1][f"held_out_{field}"] for field in FIELDS]) + f"; lowest {done.best:.3f}"
        if self.folder.metadata["weights"]:
            text += f"\n{self.folder}: held out before {held_out[0]['held_out_loss']:.3f}, after " \
                    f"{held_out[-1]['held_out_loss']:.3f} nats/note"
            if held_out[0]["held_out_loss"] <= done.best:
                text += f"; no step lowered it, so {BEST} is what the run began with, and {LAST} what it learned"
        return text

    def _train(self, bar: tqdm) -> None:
        notes, seconds, began = self.progress.notes_seen, self.progress.seconds, time.monotonic()
        for rows in self.batches():
            if self.processes.stopping or self.progress.step >= self.total_steps or self.has_lost_patience():
                return
            if not self.runs_ahead:
                began = time.monotonic()
            losses = self.step(rows)
            bar.update()
            done = self.progress.step
            due = done % self.validate_every == 0 or done == self.total_steps
            logs = due or done % self.settings.loggingsteps == 0
            if logs:
                self.wait()  # only now is known how long the steps took
            self.progress.seconds += time.monotonic() - began
            if logs or not self.runs_ahead:
                speed = (self.progress.notes_seen - notes) / max(self.progress.seconds - seconds, 1e-9)
                bar.set_postfix_str(f"{losses.sum():.3f} nats/note, {speed:,.0f} notes/s", refresh=False)
            if logs:
                self._log(validate=due)
            began = time.monotonic()

    @property
    def validate_every(self) -> int:
        """Steps between validations."""
        return self.settings.validate_steps or self.steps_per_epoch

    def wait(self) -> None:
        """Let the device finish what it has been given."""
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)

    def has_lost_patience(self) -> bool:
        """Whether the last `patience` validations were all above the lowest held-out loss."""
        return bool(self.settings.patience) and self.progress.misses >= self.settings.patience

    def batches(self) -> Iterator[Tensor]:
        """Batches (B, T, C) from where the run stands; for a GPU made ahead of time, by processes of their own."""
        if not self.runs_ahead:
            return self.data.from_step(self.progress.step)
        steps = range(self.progress.step, self.total_steps + 1)
        n_workers = min(MOST_WORKERS, max((os.cpu_count() or 1) - 1, 1))
        small = operator.methodcaller("to", self.data.notes.dtype)  # containers have little memory to hand them over in
        return iter(torch.utils.data.DataLoader(self.data, batch_size=None, sampler=steps, num_workers=n_workers,
                                                collate_fn=small, pin_memory=self.device.type == "cuda",
                                                generator=torch.Generator()))  # or it would draw from the run's own

    def _plan(self) -> None:
        """Set how many steps the run has, by `max_minutes`, and store that before the first of them."""
        self.progress.planned = self.data.total_steps = steps_in_time(self)
        self.save()
        if self.processes.is_first:
            print(f"{self.folder}: {self.total_steps} steps in {self.settings.max_minutes:g} minutes", flush=True)

    def step(self, rows: Tensor) -> Tensor:
        """One optimizer step on (B, T, F) rows; returns each family's loss (F,) in nats."""
        progress = self.progress
        self.model.train()
        self.processes.seed_draws(self.settings.seed, progress.step)
        losses = torch.zeros(len(FIELDS), device=self.device)
        mine, scale = self.processes.share(rows), rows.shape[0] * (rows.shape[1] - 1) / max(n_predicted(rows), 1)
        # Who has no row computes one for nothing: all processes must come to the end of a backward pass.
        batches = mine.split(self.settings.batch_size) if len(mine) else (rows[:1],)
        with self._explained(rows):
            for number, batch in enumerate(batches, 1):
                share = len(batch) / len(rows) if len(mine) else 0.0
                with self.processes.gradients_wait(self.forward, wait=number < len(batches)):
                    of_batch = self._losses(batch) * (share * scale)  # a mean over the notes that count
                    # The published loss is the mean over families; only the clipping would tell it from the sum.
                    # Gradients become the mean over processes, and are to be the sum.
                    (of_batch.mean() * self.processes.count).backward()
                losses += of_batch.detach()
            losses = self.processes.total(losses)
            if not self.runs_ahead:
                self._check_finite(losses, progress.step + 1)  # before the weights move: those in memory stay good
            if self.settings.clip_norm:
                torch.nn.utils.clip_grad_norm_(self.model.parameters(), self.settings.clip_norm)
            self.optimizers.step(rate_share(self.settings, progress.step, self.total_steps))
        progress.step += 1
        if self.average:
            self.average.update(progress.step)
        progress.notes_seen += rows.shape[0] * (rows.shape[1] - 1)
        self.sums += losses.to(self.sums.device).double()
        progress.count += 1
        return losses

    def _check_finite(self, losses: Tensor, step: int) -> None:
        if not losses.isfinite().all():
            raise SharedError(f"the loss is no longer finite at step {step}; lower lr in the training settings, or use "
                              f"precision fp32")

    def learning_rate(self) -> float:
        """AdamW's rate in the last step."""
        return self.settings.lr * rate_share(self.settings, self.progress.step - 1, self.total_steps)

    def _losses(self, rows: Tensor) -> Tensor:
        # A GPU validates with the model as it is: to compile it once more, without gradients, takes longer.
        forward = self.model.forward if self.runs_ahead and not torch.is_grad_enabled() else self.forward
        rows = rows.to(self.device, non_blocking=self.runs_ahead).long()
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.settings.precision == "bf16"):
            return window_losses(forward, self.model.config, rows).mean((0, 1))

    @torch.no_grad()
    def validate(self) -> list[float]:
        """Each family's loss on held-out songs, in nats, all rows weighing the same."""
        self.model.eval()
        rows = self.split.held_out
        wanted = self.settings.validate_rows
        if 0 < wanted < len(rows):
            rows = rows[torch.arange(wanted) * len(rows) // wanted]
        total = torch.zeros_like(self.sums)
        mine = self.processes.share(rows)
        with self._explained(rows):
            for batch in mine.split(self.settings.batch_size) if len(mine) else ():
                total += self._losses(batch).to(total.device).double() * len(batch)
        return (self.processes.total(total) / len(rows)).tolist()

    @contextlib.contextmanager
    def _explained(self, rows: Tensor) -> Iterator[None]:
        """Within the block rows (B, T, F) pass through the model; what that fails of becomes a UserError."""
        try:
            yield
        except (RuntimeError, MemoryError) as err:
            settings = self.settings
            if is_out_of_memory(err):
                at_once = min(settings.batch_size, -(-len(rows) // self.processes.count))
                smaller = smaller_batches(settings.batch_size, settings.accumulation, at_once)
                text = too_large(self.device, at_once, rows.shape[1], smaller)
                if self.folder.last.is_file():
                    text += f"; {self.folder.last} is there still: --resume {self.folder}"
                    text += f" --batch_size {smaller[0]} continues it" if smaller else " continues it"
                raise UserError(text) from None
            if settings.compile and is_compile_failure(err):
                raise UserError(compile_failure(err)) from None
            raise

    # ------------------------------------------------------------ the run folder

    def _log(self, validate: bool) -> None:
        """Add a row to train_losses.csv, and save; with new held-out losses perhaps also best.pth."""
        progress = self.progress
        self._check_finite(self.sums, progress.step)
        progress.sums = self.sums.tolist()
        held_out = raw_held_out = None
        if validate:
            with self._averaged():
                held_out = self.validate()
            raw_held_out = sum(self.validate()) if self.average else None
        train = [total / progress.count for total in progress.sums] if progress.count else None
        row = {"steps": progress.step, "epoch": progress.step / self.steps_per_epoch,
               "notes_seen": progress.notes_seen, "seconds": round(progress.seconds, 1)}
        if progress.step:
            row["lr"] = self.learning_rate()
        for name, losses in (("train", train), ("held_out", held_out)):
            if losses:
                row |= {f"{name}_loss": sum(losses),
                        **{f"{name}_{field}": loss for field, loss in zip(FIELDS, losses, strict=True)}}
        if raw_held_out is not None:
            row["held_out_raw"] = raw_held_out
        progress.rows.append(row)
        self.sums.zero_()
        progress.sums, progress.count = [0.0] * len(FIELDS), 0
        best = held_out is not None and sum(held_out) < progress.best
        if held_out is not None:
            progress.misses = 0 if best else progress.misses + 1
        if best:
            progress.best = sum(held_out)
            self.save(BEST)  # before last.pth, which knows of it: killed in between, a resumed run writes it again
        self.save()
        if held_out and self.processes.is_first:
            tqdm.write(f"step {progress.step}: held out {describe_losses(held_out)}", file=sys.stderr)

    def save(self, name: str = LAST) -> None:
        """Write a checkpoint, and with last.pth the CSV and the picture that belong to it."""
        if not self.processes.is_first:
            return
        self.progress.sums = self.sums.tolist()
        state = {"settings": config_to_dict(self.settings), "facts": self.folder.metadata,
                 "progress": dataclasses.asdict(self.progress),
                 "versions": {"torch": str(torch.__version__), "python": sys.version.split()[0]}}
        if name == LAST:  # what only continuing needs
            state |= {**self.optimizers.state(), "random": self.random_state()}
            if self.average:  # those of the checkpoint are the average
                state["raw_weights"] = {name: tensor.clone() for name, tensor in self.model.state_dict().items()}
        with self._averaged():
            self.folder.save(name, self.model, self.dataset.vocabulary, state)
        if name == LAST:
            self.folder.write_table(self.progress.rows)

    def _averaged(self) -> contextlib.AbstractContextManager[None]:
        """Within the block the model's weights are their average, if the run keeps one."""
        return self.average.in_place() if self.average else contextlib.nullcontext()


def describe_losses(losses: list[float]) -> str:
    """Nats per note, and each family's share of them, on one line."""
    return f"{sum(losses):.3f} nats/note (" + ", ".join(
        f"{field} {loss:.3f}" for field, loss in zip(FIELDS, losses, strict=True)) + ")"
