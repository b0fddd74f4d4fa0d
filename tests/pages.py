"""Folders of songs with recipes, made without a model, and what a page holds of them."""

from __future__ import annotations

import dataclasses
import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pretty_midi
from random_songs import random_song

from generation_args import GenConfig
from recipes import Recipe
from song_files import song_bytes, write_song
from tasks import Wish
from tokenizer import MidiTokenizerPooled

TOKENIZER = MidiTokenizerPooled()
V = TOKENIZER.vocabulary
TEMPO = 97.0
RECIPE = Recipe(4, (4,), Wish(), GenConfig(), "model.safetensors", "a1", "fp32", "", "", 0, {"torch": "2"})


def write_idea(folder: Path, number: int, rows: np.ndarray | None = None, **recipe: Any) -> Path:
    """A song as generate.py writes it, of random notes in four bars unless `rows` are given."""
    rows = random_song(number, 60, 4) if rows is None else rows
    seed = 100 + number
    changed = dataclasses.replace(RECIPE, **{"seed": seed, "batch": (seed,), **recipe})
    return write_song(folder, number, song_bytes(rows, TOKENIZER, TEMPO, changed))


def page_data(path: Path) -> dict[str, Any]:
    """The data in a page, as its script gets them."""
    text = path.read_text(encoding="utf-8")
    return json.loads(re.search(r'<script type="application/json" id="data">(.*?)</script>', text, re.DOTALL)[1])


def notes_by_pretty_midi(path: Path, tempo: float = TEMPO) -> list[tuple[int, float, float, int]]:
    """(part, onset, end, pitch) of a song, times in quarters, sorted; as another library reads it."""
    song = pretty_midi.PrettyMIDI(str(path))
    return sorted((V.part_names.index(track.name), round(note.start * tempo / 60, 4), round(note.end * tempo / 60, 4),
                   note.pitch) for track in song.instruments for note in track.notes)
