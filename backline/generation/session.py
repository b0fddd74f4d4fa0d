"""A model loaded and ready to play, and what is made with it. Torch is imported when a model is opened."""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tqdm import tqdm

from backline.common.errors import UserError
from backline.common.files import BUNDLED_MODEL, file_hash
from backline.evaluation.copy_index import CopyIndex, read_index, split_digest
from backline.generation.config import DTYPES, GenConfig
from backline.generation.prompt import Prompt
from backline.generation.recipes import Recipe, surroundings
from backline.generation.task import Task, Wish
from backline.generation.telling import Told, tell
from backline.music.sheet_table import sheet_table
from tokenizer import MidiTokenizerPooled

if TYPE_CHECKING:
    from model import PooledTransformer

PARAMETERS_PER_CORE = 16_000_000


class Studio:
    """A model, and all that says how it plays."""

    def __init__(self, path: Path, device_name: str = "auto", dtype: str = DTYPES[0]) -> None:
        from backline.layers.packed import for_inference
        from backline.training.checkpoints import (  # brings torch, which wrong arguments need not wait for
            load_model,
            pick_device,
        )

        self.path, self.device, self.dtype = path, pick_device(device_name), dtype
        if dtype == "int8" and self.device.type != "cpu":
            raise UserError(f"--dtype int8 plays on the CPU alone, not on {self.device}; add -d cpu, or take bf16")
        model, vocabulary, self.facts = load_model(path, self.device)
        self.n_parameters = model.n_parameters()  # before its layers are packed
        self.model: PooledTransformer = for_inference(model, dtype)
        self.tokenizer, self.hash = MidiTokenizerPooled(vocabulary), file_hash(path)
        self.sheets = sheet_table(self.facts, vocabulary, path) if model.config.controls else None

    def take_few_cores(self) -> None:
        """As many as the model has work for: a second one brings a small model a sixth, and where other programs run,
        waiting for it costs a multiple."""
        import torch

        torch.set_num_threads(min(torch.get_num_threads(), 1 + self.n_parameters // PARAMETERS_PER_CORE))

    def check(self, wish: Wish, config: GenConfig) -> None:
        """Raise UserError if the model was not trained for what is asked of it."""
        if config.controls.told and not self.sheets:
            raise UserError(f"{self.path}: not trained to be told what to play ({', '.join(config.controls.told)}); "
                            f"train a model with \"controls\": true, such as configs/model_bundled.json")
        if wish.needs_given and not self.model.config.given:
            raise UserError(f"{self.path}: not trained to play to given notes (--given, --fill); the model of "
                            f"this repository, taken without -mp ({BUNDLED_MODEL.name}), is; or train one with "
                            f"configs/model_bundled.json and configs/training_bundled.json")

    def copy_index(self, path: Path) -> CopyIndex:
        """The index at `path`, with a notice where it is of other songs than the model was trained on."""
        from backline.training.checkpoints import held_out_names

        index = read_index(path, self.tokenizer.vocabulary)
        held_out = held_out_names(self.facts)
        if not held_out or split_digest(held_out) != index.split:
            print(f"notice: {path} may be of other songs than {self.path} was trained on; make its own with copies.py",
                  file=sys.stderr)
        return index

    def make(self, task: Task, config: GenConfig, seeds: Sequence[int]) -> list[Any]:
        """A `sampling.Sampled` for each seed."""
        from backline.generation.sampler import Request, sample_songs

        requests = [Request(task.rules, seed, task.prompt, task.given, self.told(task, config, seed)) for seed in seeds]
        most = task.max_steps + config.whole_bars  # one note more says whether a song goes on, and in which bar
        total = most * len(seeds) if config.max_steps else None  # what the bars need is not known before
        with tqdm(total=total, unit="note", leave=False, disable=None) as bar:
            made = sample_songs(self.model, requests, dataclasses.replace(config, max_steps=most), on_note=bar.update)
        return [song.at_bar_line(task.max_steps) if config.whole_bars else song for song in made]

    def told(self, task: Task, config: GenConfig, seed: int) -> Told | None:
        """What the song of `seed` is told to play; None for a model without controls."""
        return tell(task, config, self.sheets, seed) if self.sheets else None

    def recipe(self, wish: Wish, config: GenConfig, prompt: Prompt, seed: int, batch: tuple[int, ...]) -> Recipe:
        return Recipe(seed, batch, wish, config, self.path.name, self.hash, self.dtype, prompt.path, prompt.hash,
                      prompt.n_rows, surroundings(self.device.type))
