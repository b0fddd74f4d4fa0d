"""The files of generated songs: their numbers, the song, its stems and the log."""

from __future__ import annotations

import datetime
import json
import math
import re
from pathlib import Path
from typing import Any

import numpy as np

from backline.common.files import write_bytes
from backline.generation.recipes import Recipe, with_recipe
from backline.music.midi_writer import end_at_next_onset, parts_to_bytes
from backline.music.song import TICKS_PER_QUARTER
from backline.music.vocab import BAR, FIRST_ID, PITCH_INSTRUMENT, QUARTERS_PER_BAR
from tokenizer import MidiTokenizerPooled

LOG_NAME = "genconfigs.txt"


def song_number(path: Path) -> int:
    """The number of the song that a file in the output folder belongs to; −1 for none."""
    match = re.fullmatch(r"(\d+)(-\w+\.mid|\.mid|\.png|\.wav)", path.name)
    if not match:
        return -1
    return int(match[1])


def next_number(folder: Path) -> int:
    """One more than the highest song number in `folder`, 0 in an empty one."""
    numbers = map(song_number, folder.iterdir())
    return max(numbers, default=-1) + 1


def remove_song(folder: Path, number: int) -> None:
    """Delete all files of the song with this number."""
    for path in folder.glob(f"{number}*"):
        if song_number(path) == number:
            path.unlink()


def song_bytes(rows: np.ndarray,
               tokenizer: MidiTokenizerPooled,
               tempo: float,
               recipe: Recipe,
               n_bars: int = 0,
               velocities: np.ndarray | None = None) -> dict[str, bytes]:
    """The MIDI files of (N, F) note ids, by name ending: "" for the whole, "-drums" for a stem.

    Every track of every file lasts the same whole bars: until the last note has ended, and `n_bars`
    at least. Imported into a DAW, or looped there, they stay together.

    `velocities`: (N,) of the notes; None: all are `VELOCITY`.
    """
    v = tokenizer.vocabulary
    parts = tokenizer.rows_to_parts(rows, TICKS_PER_QUARTER)
    if velocities is not None:
        part_of_note = v.part_of_id[rows[:, PITCH_INSTRUMENT]]
        parts = [np.column_stack([part, velocities[part_of_note == p]])  # (N, 4)
                 for p, part in enumerate(parts)]
    parts = [end_at_next_onset(part) for part in parts]
    last_ticks = (part[:, 1].max(initial=0) for part in parts)
    last_tick = int(max(last_ticks))
    ticks_per_bar = QUARTERS_PER_BAR * TICKS_PER_QUARTER
    n_played = math.ceil(last_tick / ticks_per_bar)
    end_tick = ticks_per_bar * max(n_bars, n_played)
    track_sets: dict[str, int | None] = {"": None}
    for p, name in enumerate(v.part_names):
        track_sets[f"-{name}"] = p
    files = {}
    for ending, only in track_sets.items():
        midi = parts_to_bytes(parts, v, TICKS_PER_QUARTER, tempo, only=only)
        files[ending] = with_recipe(midi, recipe, end_tick)
    return files


def write_song(folder: Path, number: int, files: dict[str, bytes]) -> Path:
    """Write what `song_bytes` made, the whole song last; returns the path of that."""
    for name, data in reversed(files.items()):
        path = folder / f"{number}{name}.mid"
        write_bytes(path, data)
    return path


def describe(rows: np.ndarray, n_new: int, tokenizer: MidiTokenizerPooled) -> str:
    """Bars, notes and notes per part of a song, on one line."""
    v = tokenizer.vocabulary
    part_of_note = v.part_of_id[rows[:, PITCH_INSTRUMENT]]  # (N,)
    counts = np.bincount(part_of_note, minlength=len(v.parts))
    parts = ", ".join(f"{name} {count}"
                      for name, count in zip(v.part_names, counts, strict=True))
    n_bars = 0
    if len(rows):
        n_bars = int(rows[-1, BAR]) - FIRST_ID + 1
    new = ""
    if n_new < len(rows):
        new = f", {n_new} of them new"
    return f"{n_bars} bars, {len(rows)} notes{new} ({parts})"


def log_run(folder: Path, record: dict[str, Any]) -> None:
    """Append to genconfigs.txt what a run did."""
    line = "=" * 80
    stamp = datetime.datetime.now().isoformat(sep=" ", timespec="seconds")
    with open(folder / LOG_NAME, "a", encoding="utf-8") as file:
        text = json.dumps(record, indent=2)
        file.write(f"{line}\n{stamp}\n{line}\n{text}\n\n")
