"""Files of stars: each bad one is named on one line."""

from __future__ import annotations

import json

import pytest
from pages import RECIPE

from backline.common.errors import UserError
from backline.generation.recipes import STARS_FORMAT, STARS_VERSION, Original, read_originals, recipe_to_dict

SONG = {"file": "3.mid", "hash": "ab", "note": "the bridge", "recipe": recipe_to_dict(RECIPE)}


def written(folder, **changes):
    path = folder / "stars.json"
    path.write_text(json.dumps({"format": STARS_FORMAT, "version": STARS_VERSION, "songs": [SONG], **changes}))
    return path


def test_songs_come_back_in_order(tmp_path):
    path = written(tmp_path, songs=[SONG, {**SONG, "file": "0.mid"}])
    assert read_originals(path) == [Original("3.mid", "ab", RECIPE), Original("0.mid", "ab", RECIPE)]


@pytest.mark.parametrize(("changes", "message"), [
    ({"format": "pooled-tokens"}, "of format 'pooled-tokens'"),
    ({"version": 9}, "version 9, not pooled-stars version 1"),
    ({"songs": []}, "holds no songs"), ({"songs": {}}, "holds no songs"), ({"songs": None}, "holds no songs"),
    ({"songs": [3]}, "song 1: has no recipe"), ({"songs": [SONG, {**SONG, "recipe": None}]}, "song 2: has no recipe"),
    ({"songs": [{**SONG, "stars": 5}]}, "song 1: unknown key 'stars'"),
    ({"songs": [{**SONG, "hash": 5}]}, "song 1: hash"),
    ({"songs": [{"file": "0.mid", "recipe": SONG["recipe"]}]}, "song 1: 'hash' is missing"),
    ({"songs": [{**SONG, "recipe": {**SONG["recipe"], "seed": -1}}]}, "song 1: recipe: its numbers make no sense"),
    ({"songs": [{**SONG, "recipe": {**SONG["recipe"], "version": 7}}]}, "song 1: its recipe is of version 7"),
    ({"songs": [{**SONG, "recipe": {}}]}, "song 1: its recipe is of version None")])
def test_bad_files(tmp_path, changes, message):
    path = written(tmp_path, **changes)
    with pytest.raises(UserError, match=message) as error:
        read_originals(path)
    assert str(error.value).startswith(str(path)) and "\n" not in str(error.value)


def test_a_file_that_is_no_json(tmp_path):
    (tmp_path / "stars.json").write_text("{")
    with pytest.raises(UserError, match="not valid JSON"):
        read_originals(tmp_path / "stars.json")
