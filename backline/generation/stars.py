"""What `generate.py --reproduce` makes again: a song with its recipe, or the starred songs that a page exported.

A file of stars is a JSON object: format, version, and `songs`, each with `file`, `hash` (SHA-256 of the song),
`note` and `recipe`. The page writes it (`web/page.js`, `starsOf`).
"""

from __future__ import annotations

import dataclasses
from pathlib import Path

from backline.common.errors import UserError
from backline.common.files import file_hash, read_json_object
from backline.common.settings import config_from_dict
from backline.generation.recipes import Recipe, read_recipe, recipe_from_dict

STARS_FORMAT, STARS_VERSION = "pooled-stars", 1


@dataclasses.dataclass(frozen=True)
class Original:
    """A song to be made again. `name` is for messages, `hash` the SHA-256 of its file."""

    name: str
    hash: str
    recipe: Recipe


@dataclasses.dataclass(frozen=True)
class Star:
    """An entry of the file, but for the recipe."""

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
    if data.get("format") != STARS_FORMAT or data.get("version") != STARS_VERSION:
        raise UserError(f"{path}: of format {data.get('format')!r:.40} and version {data.get('version')!r:.40}, not "
                        f"{STARS_FORMAT} version {STARS_VERSION}; export the stars from the page again")
    songs = data.get("songs")
    if not isinstance(songs, list) or not songs:
        raise UserError(f"{path}: holds no songs; star some on the page, and export them again")
    return [_original(song, f"{path}: song {i}") for i, song in enumerate(songs, 1)]


def _original(song: object, where: str) -> Original:
    if not isinstance(song, dict) or not isinstance(song.get("recipe"), dict):
        raise UserError(f"{where}: has no recipe; export the stars from the page again")
    star = config_from_dict(Star, {key: value for key, value in song.items() if key != "recipe"}, where)
    return Original(star.file, star.hash, recipe_from_dict(song["recipe"], where))
