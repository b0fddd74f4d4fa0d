"""Songs for a task: of which seeds, in batches, which are passed over, and which are the best.

What batch a song was made in belongs to its recipe, since a batch's songs are drawn together.
"""

from __future__ import annotations

import dataclasses
import sys
import time
from collections.abc import Iterator, Sequence

import numpy as np

from copies import CopyCheck
from errors import UserError
from generation_args import GenConfig
from studio import Studio
from tasks import Task, Wish, lacking_parts
from vocab import Vocabulary

BATCH = 16  # songs made at a time
TRIES = 10  # songs made at most, for each that is wanted


@dataclasses.dataclass(frozen=True)
class Made:
    """A song made: its new notes, the nats that each surprised the model by, and the seeds of its batch."""

    notes: np.ndarray
    nats: np.ndarray
    seed: int
    batch: tuple[int, ...]
    seconds: float  # its share of the batch's
    score: str = ""
    copied: str = ""  # what it shares with training songs


def make_songs(studio: Studio, wish: Wish, task: Task, config: GenConfig, seed: int, n: int,
               copying: CopyCheck | None) -> Iterator[Made]:
    """`n` songs, a batch at a time: those of the seeds from `seed` on, but for what lacks a part that was asked for, as
    long as there are seeds left, and for what copies more than it may.

    Raises UserError where too few of TRIES times as many seeds make songs that copy no more.
    """
    n_found, following, end = 0, seed, seed + TRIES * n
    while n_found < n:
        batch = tuple(range(following, min(following + min(n - n_found, BATCH), end)))
        if not batch:
            raise UserError(f"--max-copy {copying.most}: of {TRIES * n} songs {n_found} share no more, where {n} are "
                            f"wanted; allow more notes, or a higher temperature (--genconfig)")
        following, began = batch[-1] + 1, time.monotonic()
        made = studio.make(task, config, batch)
        seconds = (time.monotonic() - began) / len(batch)
        for of_seed, sampled in zip(batch, made, strict=True):
            song = Made(sampled.notes, sampled.nats, of_seed, batch, seconds)
            lacking = lacking_parts(wish, task, song.notes, studio.tokenizer.vocabulary)
            if lacking and end - 1 - of_seed >= n - n_found:
                print(f"notice: the song of seed {of_seed} is passed over: {' and '.join(lacking)} would be silent",
                      file=sys.stderr)
                continue
            if copying:
                rows = task.song(song.notes)  # all of it, but what was given is nobody's copy
                run = copying.index.longest_run(rows, ~task.was_there(rows))
                song = dataclasses.replace(song, copied=copying.index.describe(run, len(song.notes)))
                if copying.refuses(run):
                    print(f"notice: the song of seed {of_seed} is passed over: {song.copied}", file=sys.stderr)
                    continue
            n_found += 1
            yield song


def best(songs: Sequence[Made], n: int, task: Task, config: GenConfig, vocabulary: Vocabulary) -> list[Made]:
    """The `n` best, each with its score in words."""
    from ranking import rank

    known = np.concatenate([task.prompt, task.given])
    ranked = rank([song.notes for song in songs], [song.nats for song in songs], known, vocabulary, config.rules)
    empty = [song for song in songs if not len(song.notes)]
    return [*(dataclasses.replace(songs[i], score=score.describe()) for i, score in ranked), *empty][:n]
