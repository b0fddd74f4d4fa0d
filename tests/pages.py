"""Folders of songs with recipes, made without a model, and what a page holds of them."""

from __future__ import annotations

import dataclasses
import json
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pretty_midi
from random_songs import random_song

from backline.generation.config import GenConfig
from backline.generation.output_files import song_bytes, write_song
from backline.generation.recipes import Recipe
from backline.generation.wish import Wish
from backline.music.song import TICKS_PER_QUARTER
from backline.music.vocab import BAR, FIRST_ID, NOTE_DUR, PITCH_INSTRUMENT, START_POS
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
    return data_in(path.read_text(encoding="utf-8"))


def data_in(text: str) -> dict[str, Any]:
    """The same of a page's text."""
    return json.loads(re.search(r'<script type="application/json" id="data">(.*?)</script>', text, re.DOTALL)[1])


def frames(markup: str) -> list[dict[str, str]]:
    """The attributes of the frames in a piece of HTML."""
    found = []
    parser = HTMLParser()
    parser.handle_starttag = lambda tag, attributes: found.append(dict(attributes)) if tag == "iframe" else None
    parser.feed(markup)
    return found


def notes_of_idea(idea: dict[str, Any], old: bool | None = None) -> list[tuple[int, int, int, int]]:
    """(part, onset, end, pitch) of an idea on a page, times in its ticks, sorted; perhaps of old or of new notes alone.
    """
    return sorted((p, onset, end, pitch) for p, part in enumerate(idea["notes"])
                  for onset, end, pitch, was_there, *_ in part if old in (None, bool(was_there)))


def notes_of_rows(rows: np.ndarray) -> list[tuple[int, int, int, int]]:
    """The same of (N, F) note ids, in the ticks of songs made from tokens."""
    step = TICKS_PER_QUARTER // V.steps_per_quarter
    onset = ((rows[:, BAR] - FIRST_ID) * V.steps_per_bar + rows[:, START_POS] - FIRST_ID) * step
    end = onset + (rows[:, NOTE_DUR] - FIRST_ID + 1) * step
    sound = rows[:, PITCH_INSTRUMENT]
    return sorted(zip(V.part_of_id[sound].tolist(), onset.tolist(), end.tolist(), V.pitch_of_id[sound].tolist(),
                      strict=True))


def notes_by_pretty_midi(path: Path, tempo: float = TEMPO) -> list[tuple[int, float, float, int]]:
    """(part, onset, end, pitch) of a song, times in quarters, sorted; as another library reads it."""
    song = pretty_midi.PrettyMIDI(str(path))
    return sorted((V.part_names.index(track.name), round(note.start * tempo / 60, 4), round(note.end * tempo / 60, 4),
                   note.pitch) for track in song.instruments for note in track.notes)
