"""The recipe of a generated song, kept in the song itself: what `generate.py --reproduce` needs to make it again.

It is JSON in a text event at tick 0 of the first track, which DAWs do not show and players ignore.
"""

from __future__ import annotations

import dataclasses
import io
import json
from pathlib import Path
from typing import Any

import mido

from backline.common.errors import UserError
from backline.common.files import check_file
from backline.common.settings import config_from_dict, config_to_dict
from backline.generation.config import DTYPES, ControlConfig, GenConfig
from backline.generation.task import Wish

MARK = "pooled-recipe"
VERSION = 1
BEGINNING = f'{{"format":"{MARK}"'  # of the text event
SWITCHES = ("start_at_once", "all_bars", "all_parts", "go_on", "whole_bars")  # off where a recipe does not name them


@dataclasses.dataclass(frozen=True)
class Recipe:
    """How a song was made.

    batch: the seeds of the songs that were made together with it, in order: rounding may depend on them.
    prompt, prompt_hash, prompt_rows: the file played to, "" for none, and how many of its rows were kept, 0 for all.
    surroundings: what the bytes depend on besides.
    """

    seed: int
    batch: tuple[int, ...]
    wish: Wish
    genconfig: GenConfig
    model: str
    model_hash: str
    dtype: str
    prompt: str
    prompt_hash: str
    prompt_rows: int
    surroundings: dict[str, str]

    def __post_init__(self) -> None:
        if self.seed not in self.batch or min(*self.batch, self.prompt_rows) < 0:
            raise UserError("its numbers make no sense; give the song as generate.py wrote it")
        if self.dtype not in DTYPES:
            raise UserError(f"dtype {self.dtype!r} must be one of {', '.join(DTYPES)}")


def recipe_to_dict(recipe: Recipe) -> dict[str, Any]:
    """The recipe as JSON data, which `recipe_from_dict` reads back.

    A switch that is off is left out, and so are controls of which nothing is said: the recipes of songs made before
    there were any come back the same, and with them the bytes of these songs.
    """
    facts = config_to_dict(recipe)
    genconfig = {name: value for name, value in facts["genconfig"].items() if value or name not in SWITCHES}
    if recipe.genconfig.controls == ControlConfig():
        del genconfig["controls"]
    return {"format": MARK, "version": VERSION, **facts, "genconfig": genconfig}


def recipe_from_dict(data: dict[str, Any], where: str) -> Recipe:
    """Raises UserError if the data are no recipe, or one of another version; `where` begins its text."""
    if data.get("format") != MARK or data.get("version") != VERSION:
        raise UserError(f"{where}: its recipe is of version {data.get('version')!r:.40}, this program reads {VERSION}; "
                        f"use the version that wrote it")
    facts = {key: value for key, value in data.items() if key not in ("format", "version")}
    if isinstance(facts.get("genconfig"), dict):
        facts["genconfig"] = dict.fromkeys(SWITCHES, False) | facts["genconfig"]
    return config_from_dict(Recipe, facts, f"{where}: recipe")


def with_recipe(midi: bytes, recipe: Recipe, end_tick: int = 0) -> bytes:
    """A MIDI file with `recipe` in it, each track of which ends with its last note, and not before `end_tick`."""
    file = mido.MidiFile(file=io.BytesIO(midi))
    text = json.dumps(recipe_to_dict(recipe), separators=(",", ":"))
    file.tracks[0].insert(0, mido.MetaMessage("text", text=text, time=0))
    for track in file.tracks:
        *music, end = track
        end.time = max(end_tick - sum(message.time for message in music), 0)  # symusic's comes a tick too late
    written = io.BytesIO()
    file.save(file=written)
    return written.getvalue()


def read_recipe(path: Path) -> Recipe:
    """The recipe in a MIDI file. Raises UserError if there is none."""
    check_file(path)
    try:
        tracks = mido.MidiFile(path).tracks
    except Exception as err:  # mido throws what it comes upon: struct.error, KeyError, a KeySignatureError of its own
        raise UserError(f"{path}: not a MIDI file that can be read ({err}); give a song of generate.py") from None
    texts = [message.text for track in tracks for message in track if message.type == "text"]
    text = next((text for text in texts if text.startswith(BEGINNING)), None)
    if text is None:
        raise UserError(f"{path}: holds no recipe; give a song of generate.py")
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        raise UserError(f"{path}: its recipe is damaged; give the song as generate.py wrote it") from None
    return recipe_from_dict(found, str(path))
