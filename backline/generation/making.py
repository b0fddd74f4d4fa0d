"""Songs for a task: of which seeds, in batches, which are passed over, and which are the best.

What batch a song was made in belongs to its recipe, since a batch's songs are drawn together.
"""

from __future__ import annotations

import dataclasses
import sys
import time
from collections.abc import Iterator, Sequence

import numpy as np

from backline.common.errors import UserError
from backline.evaluation.copy_index import CopyCheck
from backline.generation.config import GenConfig
from backline.generation.session import Studio
from backline.generation.task import SOON, Task, Wish, ends_soon, lacking_parts
from backline.generation.telling import describe_told
from backline.music.vocab import Vocabulary

BATCH = 16  # songs made at a time
TRIES = 10  # songs made at most, for each that is wanted
STEP = 1_000_000  # from the seed of a song that is passed over to the next


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
