"""A model loaded and ready to play, and the songs that are made with it for a task: of which seeds, in batches, which
are passed over, and which are the best. Torch is imported when a model is opened.

What batch a song was made in belongs to its recipe, since a batch's songs are drawn together.
"""

from __future__ import annotations

import dataclasses
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from tqdm import tqdm

from backline.common.errors import UserError
from backline.common.files import BUNDLED_MODEL, check_file, file_hash
from backline.generation.config import DTYPES, GenConfig
from backline.generation.prompt import Prompt
from backline.generation.recipes import Recipe, surroundings
from backline.generation.task import SOON, Task, Wish, ends_soon, lacking_parts
from backline.generation.telling import Told, describe_told, tell
from backline.music.sheet_table import sheet_table
from backline.music.vocab import Vocabulary
from copies import CopyCheck, CopyIndex, read_index, split_digest
from tokenizer import MidiTokenizerPooled

if TYPE_CHECKING:
    from model import PooledTransformer

PARAMETERS_PER_CORE = 16_000_000
BATCH = 16  # songs made at a time
TRIES = 10  # songs made at most, for each that is wanted
STEP = 1_000_000  # from the seed of a song that is passed over to the next


class Studio:
    """A model, and all that says how it plays."""

    def __init__(self, path: Path, device_name: str = "auto", dtype: str = DTYPES[0]) -> None:
        from backline.layers.packed import prepared
        from backline.training.checkpoints import (  # brings torch, which wrong arguments need not wait for
            load_model,
            pick_device,
        )

        self.path, self.device, self.dtype = path, pick_device(device_name), dtype
        if dtype == "int8" and self.device.type != "cpu":
            raise UserError(f"--dtype int8 plays on the CPU alone, not on {self.device}; add -d cpu, or take bf16")
        model, vocabulary, self.facts = load_model(path, self.device)
        self.n_parameters = model.n_parameters()  # before its layers are packed
        self.model: PooledTransformer = prepared(model, dtype)
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
        from backline.evaluation.held_out_losses import held_out_names

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


def open_studio(path: Path, device: str, dtype: str) -> Studio:
    check_file(path)
    studio = Studio(path, device, dtype)
    studio.take_few_cores()
    return studio


# ---------------------------------------------------------------- songs for a task


@dataclasses.dataclass(frozen=True)
class Made:
    """A song made: its new notes, the nats that each surprised the model by, and the seeds of its batch."""

    notes: np.ndarray
    nats: np.ndarray
    seed: int
    batch: tuple[int, ...]
    seconds: float  # its share of the batch's
    score: str = ""
    copied: str = ""  # what it shares with training songs, in words
    copies: bool = False  # more than it may
    cut: int = 0  # see `sampling.Sampled`
    told: str = ""  # what it was told to play, in words


def make_songs(studio: Studio, wish: Wish, task: Task, config: GenConfig, seed: int, n: int,
               copying: CopyCheck | None) -> Iterator[Made]:
    """`n` songs, a batch at a time, the i-th of seed + i. In the place of one that lacks a part, ends too soon or
    copies more than it may, comes that of a further seed, STEP on, and so forth: the same whatever `n` is.

    Where none of TRIES is as asked, the first is taken. Raises UserError, after the last song, where each copies.
    """
    n_found = 0
    for first in range(seed, seed + n, BATCH):
        for song in _make_batch(studio, wish, task, config, range(first, min(first + BATCH, seed + n)), copying):
            n_found += 1
            yield song
    if n_found < n:
        raise UserError(f"--max-copy {copying.most}: {n - n_found} of {n} songs share more in each of {TRIES} tries; "
                        f"allow more notes, or a higher temperature (--genconfig)")


def _make_batch(studio: Studio, wish: Wish, task: Task, config: GenConfig, seeds: Sequence[int],
                copying: CopyCheck | None) -> Iterator[Made]:
    """A song for each of `seeds`, but for those whose tries all copy."""
    good: dict[int, Made] = {}
    second_best: dict[int, Made] = {}
    for attempt in range(TRIES):
        wanted = [seed for seed in seeds if seed not in good]
        if not wanted:
            break
        songs = _sampled(studio, task, config, [seed + attempt * STEP for seed in wanted], copying)
        for seed, song in zip(wanted, songs, strict=True):
            fault = song.copied if song.copies else _fault(wish, task, config, song, studio.tokenizer.vocabulary)
            if not fault:
                good[seed] = song
                continue
            if not song.copies:
                second_best.setdefault(seed, song)
            print(f"notice: the song of seed {song.seed} is passed over: {fault}", file=sys.stderr)
    for seed, song in second_best.items():
        if seed not in good:
            print(f"notice: the song of seed {song.seed} is taken all the same, after {TRIES} tries", file=sys.stderr)
    chosen = second_best | good
    for song in (chosen[seed] for seed in seeds if seed in chosen):
        if song.cut:
            print(f"notice: the song of seed {song.seed} would have more than {task.max_steps} new notes (max_steps); "
                  f"cut at the bar line, new bars left: {task.n_new_bars(song.cut)}", file=sys.stderr)
        yield song


def _fault(wish: Wish, task: Task, config: GenConfig, song: Made, vocabulary: Vocabulary) -> str:
    """In what a song is not as asked, in words; "" for one that is."""
    if silent := lacking_parts(wish, task, config, song.notes, vocabulary):
        return f"{' and '.join(silent)} would be silent, or nearly so"
    if not song.cut and ends_soon(wish, task, config, song.notes):
        return f"it would end within {SOON} bars after the prompt"
    return ""


def _sampled(studio: Studio, task: Task, config: GenConfig, seeds: Sequence[int], copying: CopyCheck | None,
             ) -> Iterator[Made]:
    batch, began = tuple(seeds), time.monotonic()
    made = studio.make(task, config, batch)
    seconds = (time.monotonic() - began) / len(batch)
    for seed, sampled in zip(batch, made, strict=True):
        told = studio.told(task, config, seed)
        song = Made(sampled.notes, sampled.nats, seed, batch, seconds, cut=sampled.cut,
                    told=describe_told(told, task) if told else "")
        if copying:
            rows = task.song(song.notes)  # all of it, but what was given is nobody's copy
            run = copying.index.longest_run(rows, ~task.was_there(rows))
            song = dataclasses.replace(song, copied=copying.index.describe(run, len(song.notes)),
                                       copies=copying.refuses(run))
        yield song


def best(songs: Sequence[Made], n: int, task: Task, config: GenConfig, vocabulary: Vocabulary) -> list[Made]:
    """The `n` best, each with its score in words."""
    from backline.generation.ranking import rank

    known = np.concatenate([task.prompt, task.given])
    ranked = rank([song.notes for song in songs], [song.nats for song in songs], known, vocabulary, config.rules)
    empty = [song for song in songs if not len(song.notes)]
    return [*(dataclasses.replace(songs[i], score=score.describe()) for i, score in ranked), *empty][:n]
