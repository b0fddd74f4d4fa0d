"""The blind page: pairs of songs, one of each of two folders, and a question about each pair.

Nothing that one can see says which song is of which folder.
"""

from __future__ import annotations

import dataclasses
import random
import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from backline.common.errors import UserError
from backline.common.files import file_hash
from backline.listening.ideas_page import common_data, music_data, page_bytes
from backline.listening.song_view import Lane, view_song
from backline.music.midi_chunks import MIDI_SUFFIXES
from backline.music.midi_writer import VELOCITY
from backline.music.vocab import QUARTERS_PER_BAR, Vocabulary

QUESTIONS = ("prefer", "real")
BLIND_BARS = 16


def blind_page(folders: Sequence[Path],
               question: str,
               most_bars: int,
               seed: int,
               vocabulary: Vocabulary) -> bytes:
    """A page of pairs, shuffled.

    Both songs of a pair play at the tempo of the second folder's song and stop after `most_bars`.
    The model knows no tempo and has lengths of its own, which would give its songs away. So would
    velocities, pedals, changes of tempo and tracks that play no part: they are not heard.

    Args:
        folders: two; the second is what the first is compared with.
        question: one of QUESTIONS.
        seed: of all orders.
    Raises:
        UserError: a folder has no songs.
    """
    random_orders = random.Random(seed)
    sides = [blind_ideas(folder, most_bars, random_orders, vocabulary)
             for folder in folders]
    ideas: list[dict[str, Any]] = []
    pairs = []
    for song, reference in zip(*sides, strict=False):  # the larger folder's rest has no partner
        song["tempo"] = reference["tempo"]
        n_bars = min(song["bars"], reference["bars"])
        song["bars"] = n_bars
        reference["bars"] = n_bars
        pair = [song, reference]
        random_orders.shuffle(pair)
        first = len(ideas)
        pairs.append((first, first + 1))
        for idea, name in zip(pair, ("first", "second"), strict=True):
            title = f"Pair {len(pairs)}, {name}"
            ideas.append(idea | {"title": title})
    plural = "s" if len(pairs) > 1 else ""
    summary = f"{len(pairs)} pair{plural}"
    data = common_data("Listen and choose", summary, vocabulary)
    return page_bytes(data | {"ideas": ideas,
                              "pairs": pairs,
                              "question": question})


def blind_ideas(folder: Path,
                most_bars: int,
                random_orders: random.Random,
                vocabulary: Vocabulary,
                ) -> list[dict[str, Any]]:
    """The songs of a folder in random order, without stems.

    Songs that cannot be read or have no notes are left out, with a notice.

    Raises UserError if no song is left.
    """
    if not folder.is_dir():
        raise UserError(f"{folder}: no such folder; give two folders of songs")
    midi = [path
            for path in folder.iterdir()
            if path.suffix.lower() in MIDI_SUFFIXES]
    paths = sorted(path
                   for path in midi
                   if not re.fullmatch(r"\d+-\w+", path.stem))
    random_orders.shuffle(paths)
    ideas = []
    for path in paths:
        try:
            idea = blind_idea(path, most_bars, vocabulary)
            ideas.append(idea)
        except UserError as err:
            print(f"notice: not on the page: {err}", file=sys.stderr)
    if not ideas:
        raise UserError(f"{folder}: no songs in it that can be shown; give a folder of .mid")
    return ideas


def blind_idea(path: Path,
               most_bars: int,
               vocabulary: Vocabulary) -> dict[str, Any]:
    """What the page holds of a song. Raises UserError if it cannot be read or has no notes."""
    view, _ = view_song(path, vocabulary)
    n_parts = len(vocabulary.parts)
    parts = tuple(_flat(lane) for lane in view.lanes[:n_parts])
    if not any(len(lane.notes) for lane in parts):
        names = ", ".join(vocabulary.part_names)
        raise UserError(f"{path}: no notes of {names}")
    alike = dataclasses.replace(view, tempos=(), lanes=parts, fresh=())
    data = excerpt(music_data(alike, n_parts), most_bars)
    return data | {"file": path.as_posix(),
                   "hash": file_hash(path)}


def _flat(lane: Lane) -> Lane:
    """The lane without what a model knows nothing of, and what would give a song away."""
    return lane._replace(
        velocities=np.full(len(lane.notes), VELOCITY),
        fades=lane.notes[:, 1],
        is_old=np.zeros(len(lane.notes), bool),
    )


def excerpt(data: dict[str, Any], most_bars: int) -> dict[str, Any]:
    """A song's first bars, at most so many, from the first bar in which a note begins.

    `data`: as of `music_data`.
    """
    bar = QUARTERS_PER_BAR * data["ticks_per_quarter"]
    first_onset = min(onset for part in data["notes"] for onset, *_ in part)
    start = first_onset // bar * bar
    end = start + most_bars * bar
    notes = [_cut(part, start, end) for part in data["notes"]]
    bars_left = data["bars"] - start // bar
    n_bars = min(bars_left, most_bars)
    return data | {"notes": notes, "bars": n_bars}


def _cut(part: list[list[int]], start: int, end: int) -> list[list[int]]:
    """The notes [onset, end, …] that begin before `end`, from `start` on and cut off at `end`."""
    return [[onset - start, min(stop, end) - start, *rest]
            for onset, stop, *rest in part
            if onset < end]
