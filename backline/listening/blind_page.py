"""The blind page: pairs of songs of two folders, and a question about each pair; nothing says which is of which."""

from __future__ import annotations

import random
import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from backline.common.errors import UserError
from backline.common.files import MIDI_SUFFIXES, file_hash
from backline.listening.ideas_page import common_data, music_data, page_bytes, read_parts
from backline.music.vocab import QUARTERS_PER_BAR, Vocabulary

QUESTIONS = ("prefer", "real")
BLIND_BARS = 16


def blind_page(folders: Sequence[Path], question: str, most_bars: int, seed: int, vocabulary: Vocabulary) -> bytes:
    """A page of pairs, a song of each of two folders in each, shuffled; it names no folder where one can see it.

    Both songs of a pair play at the tempo of the second folder's, and stop after `most_bars`: the model knows no
    tempo and writes songs of a length of its own, which would give it away.

    Raises UserError if a folder has no songs.
    """
    chance = random.Random(seed)
    sides = [blind_ideas(folder, most_bars, chance, vocabulary) for folder in folders]
    ideas, pairs = [], []
    for song, reference in zip(*sides, strict=False):  # the rest of the larger folder has no partner
        song["tempo"] = reference["tempo"]
        song["bars"] = reference["bars"] = min(song["bars"], reference["bars"])
        both = [song, reference]
        chance.shuffle(both)
        pairs.append((len(ideas), len(ideas) + 1))
        ideas += [idea | {"title": f"Pair {len(pairs)}, {name}"}
                  for idea, name in zip(both, ("first", "second"), strict=True)]
    summary = f"{len(pairs)} pair{'s' * (len(pairs) > 1)}"
    data = common_data("Listen and choose", summary, vocabulary)
    return page_bytes(data | {"ideas": ideas, "pairs": pairs, "question": question})


def blind_ideas(folder: Path, most_bars: int, chance: random.Random, vocabulary: Vocabulary) -> list[dict[str, Any]]:
    """The songs of a folder in random order, stems left out. Raises UserError if there are none."""
    if not folder.is_dir():
        raise UserError(f"{folder}: no such folder; give two folders of songs")
    paths = sorted(path for path in folder.iterdir() if path.suffix.lower() in MIDI_SUFFIXES
                   and not re.fullmatch(r"\d+-\w+", path.stem))
    chance.shuffle(paths)
    found = []
    for path in paths:
        try:
            song, parts = read_parts(path, vocabulary)
            if not any(map(len, parts.notes)):
                raise UserError(f"{path}: no notes of {', '.join(vocabulary.part_names)}")
        except UserError as err:
            print(f"notice: not on the page: {err}", file=sys.stderr)
            continue
        data = music_data(song, parts.notes, [np.zeros(len(part), bool) for part in parts.notes])
        found.append(excerpt(data, most_bars) | {"file": path.as_posix(), "hash": file_hash(path), "fresh": None})
    if not found:
        raise UserError(f"{folder}: no songs in it that can be shown; give a folder of .mid")
    return found


def excerpt(data: dict[str, Any], most_bars: int) -> dict[str, Any]:
    """A song's first bars, at most so many, from the first bar in which something is struck."""
    bar = QUARTERS_PER_BAR * data["ticks_per_quarter"]
    start = min(onset for part in data["notes"] for onset, *_ in part) // bar * bar
    end = start + most_bars * bar
    notes = [[[onset - start, min(stop, end) - start, *rest] for onset, stop, *rest in part if onset < end]
             for part in data["notes"]]
    return data | {"notes": notes, "bars": min(data["bars"] - start // bar, most_bars)}
