"""Recipes of generated songs: what `generate.py --reproduce` needs to make a song again.

A song holds its own recipe: JSON in a text event at tick 0 of the first track, which DAWs do not
show and players ignore.

The stars that a page exports are a list of recipes: a JSON object of format, version, and `songs`,
each with `file`, `hash` (SHA-256 of the song), `note` and `recipe`. The page writes it
(`web/page.js`, `starsOf`).
"""

from __future__ import annotations

import dataclasses
import io
import itertools
import json
from pathlib import Path
from typing import Any

import mido

from backline.common.errors import UserError
from backline.common.files import check_file, file_hash, read_json_object
from backline.common.settings import config_from_dict, config_to_dict
from backline.generation.config import DTYPES, FLAT, ControlConfig, GenConfig, Reading
from backline.generation.wish import Wish
from backline.music.midi_tracks import MidiTracks, read_tracks, text_of

RECIPE_FORMAT = "pooled-recipe"
RECIPE_VERSION = 1
STARS_FORMAT = "pooled-stars"
STARS_VERSION = 1
BEGINNING = f'{{"format":"{RECIPE_FORMAT}"'  # of the text event
EDIT_FORMAT = "backline-edit"  # of what the studio writes in its place: what was done to which songs
EDIT_BEGINNING = f'{{"format":"{EDIT_FORMAT}"'.encode()  # of the text event
# Settings that are off unless a recipe names them.
SWITCHES = ("start_at_once", "all_bars", "all_parts", "go_on", "whole_bars")
# What settings are that a recipe does not name.
BEFORE = {**dict.fromkeys(SWITCHES, False), "dynamics": FLAT, "tell_made": False, "fewest_parts": 0, "draws": 1,
          "key_pull": 1.0, "loop_guard": 0.0}
LATER_CONTROLS = ("rests", "repeats")  # that earlier recipes with controls did not know


@dataclasses.dataclass(frozen=True)
class Recipe:
    """How a song was made.

    batch: the seeds of the songs that were made together with it, in order: rounding may depend on
        them.
    prompt, prompt_hash, prompt_rows: the file played to, "" for none, and how many of its rows were
        kept, 0 for all.
    surroundings: what else the bytes depend on.
    reading: how the prompt is read, and that the song keeps it as its file has it; None for songs
        from scratch, and for those of earlier versions, which were written from rows alone.
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
    reading: Reading | None = None

    def __post_init__(self) -> None:
        if self.seed not in self.batch or min(*self.batch, self.prompt_rows) < 0:
            raise UserError("its numbers make no sense; give the song as generate.py wrote it")
        if self.dtype not in DTYPES:
            known = ", ".join(DTYPES)
            raise UserError(f"dtype {self.dtype!r} must be one of {known}")


def recipe_to_dict(recipe: Recipe) -> dict[str, Any]:
    """The recipe as JSON data, which `recipe_from_dict` reads back.

    Settings that are as before there were any (`BEFORE`) and controls that say nothing are left
    out. So older recipes come back the same, and with them the bytes of their songs.
    """
    data = config_to_dict(recipe)
    genconfig = data["genconfig"]
    for name, value in BEFORE.items():
        if genconfig[name] == value:
            del genconfig[name]
    for name in LATER_CONTROLS:
        if not genconfig["controls"][name]:
            del genconfig["controls"][name]
    if recipe.genconfig.controls == ControlConfig():
        del genconfig["controls"]
    if recipe.reading is None:
        del data["reading"]
    return {"format": RECIPE_FORMAT, "version": RECIPE_VERSION, **data}


def recipe_from_dict(data: dict[str, Any], where: str) -> Recipe:
    """Raises UserError, its text beginning with `where`, about data that are no recipe of this version."""
    if data.get("format") != RECIPE_FORMAT or data.get("version") != RECIPE_VERSION:
        raise UserError(f"{where}: its recipe is of version {data.get('version')!r:.40}, "
                        f"this program reads {RECIPE_VERSION}; use the version that wrote it")
    settings = {key: value
                for key, value in data.items()
                if key not in ("format", "version")}
    if isinstance(settings.get("genconfig"), dict):
        settings["genconfig"] = BEFORE | settings["genconfig"]
    return config_from_dict(Recipe, settings, f"{where}: recipe")


def recipe_text(recipe: Recipe) -> bytes:
    """The recipe as the text event that a song holds."""
    return json.dumps(recipe_to_dict(recipe), separators=(",", ":")).encode()


def with_recipe(midi: bytes, recipe: Recipe, end_tick: int = 0) -> bytes:
    """A MIDI file with `recipe` in it.

    Each track ends with its last note, and not before `end_tick`.
    """
    file = mido.MidiFile(file=io.BytesIO(midi))
    message = mido.MetaMessage("text", text=recipe_text(recipe).decode(), time=0)
    file.tracks[0].insert(0, message)
    for track in file.tracks:
        *music, end = track
        last_tick = sum(message.time for message in music)
        end.time = max(end_tick - last_tick, 0)  # symusic's comes a tick too late
    written = io.BytesIO()
    file.save(file=written)
    return written.getvalue()


def read_recipe(path: Path) -> Recipe:
    """The recipe in a MIDI file. Raises UserError if there is none."""
    check_file(path)
    try:
        midi = read_tracks(path)
    except UserError as err:
        raise UserError(f"{err}; give a song of generate.py") from None
    recipe = find_recipe(midi, path)
    if recipe is None:
        raise UserError(f"{path}: holds no recipe; give a song of generate.py")
    return recipe


def find_recipe(midi: MidiTracks, path: Path) -> Recipe | None:
    """The recipe in a MIDI file that is read already, None for none.

    Raises UserError about a recipe that is damaged, or of another version.
    """
    events = itertools.chain.from_iterable(midi.tracks)
    texts = [text_of(event) for event in events]
    recipes = [text for text in texts if text.startswith(BEGINNING.encode())]
    if not recipes:
        return None
    try:
        data = json.loads(recipes[0])
    except (ValueError, RecursionError):
        raise UserError(f"{path}: its recipe is damaged; "
                        "give the song as generate.py wrote it") from None
    return recipe_from_dict(data, str(path))


# ---------------------------------------------------------------- what can be made again


@dataclasses.dataclass(frozen=True)
class Original:
    """A song to be made again. `name` is for messages, `hash` the SHA-256 of its file."""

    name: str
    hash: str
    recipe: Recipe


@dataclasses.dataclass(frozen=True)
class Star:
    """An entry of the file, without its recipe."""

    file: str
    hash: str
    note: str = ""


def read_originals(path: Path) -> list[Original]:
    """The songs in a file of stars, or the one song that `path` is.

    Raises UserError: no recipe, or not such a file.
    """
    if path.suffix.lower() != ".json":
        recipe = read_recipe(path)
        return [Original(str(path), file_hash(path), recipe)]
    data = read_json_object(path)
    kind = data.get("format")
    version = data.get("version")
    if kind != STARS_FORMAT or version != STARS_VERSION:
        raise UserError(f"{path}: of format {kind!r:.40} and version {version!r:.40}, "
                        f"not {STARS_FORMAT} version {STARS_VERSION}; "
                        "export the stars from the page again")
    songs = data.get("songs")
    if not isinstance(songs, list) or not songs:
        raise UserError(f"{path}: holds no songs; star some on the page, and export them again")
    return [_original(song, f"{path}: song {i}") for i, song in enumerate(songs, 1)]


def _original(song: object, where: str) -> Original:
    if not isinstance(song, dict) or not isinstance(song.get("recipe"), dict):
        raise UserError(f"{where}: has no recipe; export the stars from the page again")
    besides = {key: value for key, value in song.items() if key != "recipe"}
    star = config_from_dict(Star, besides, where)
    recipe = recipe_from_dict(song["recipe"], where)
    return Original(star.file, star.hash, recipe)
