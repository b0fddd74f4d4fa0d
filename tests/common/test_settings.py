"""Settings read from JSON: what is accepted, and what the message says of the rest."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import orjson
import pytest

from backline.common.errors import UserError
from backline.common.settings import config_from_dict, config_from_file, config_to_dict


@dataclasses.dataclass(frozen=True)
class Inner:
    low: int
    high: int = 9


@dataclasses.dataclass(frozen=True)
class Example:
    n_layers: int
    dropout: float = 0.1
    name: str = "run"
    causal: bool = True
    seed: int | None = None
    sizes: tuple[int, ...] = (1, 2)
    pairs: tuple[tuple[int, ...], ...] = ()
    inners: tuple[Inner, ...] = ()

    def __post_init__(self) -> None:
        if self.n_layers < 1:
            raise UserError(f"n_layers={self.n_layers} must be at least 1")


def test_defaults_fill_what_the_json_leaves_out():
    assert config_from_dict(Example, {"n_layers": 2}, "x") == Example(2)


def test_every_kind_of_field_is_read_and_written_back(tmp_path):
    config = Example(2, 0.5, "a", False, 3, (4, 5), ((1, 2), ()), (Inner(1), Inner(2, 3)))
    path = tmp_path / "config.json"
    path.write_bytes(orjson.dumps(config_to_dict(config)))
    assert config_from_file(Example, path) == config


@pytest.mark.parametrize(("key", "value", "read"), [
    ("dropout", 0, 0.0), ("n_layers", 2.0, 2), ("seed", None, None), ("seed", 4, 4), ("sizes", [], ())])
def test_equal_values_of_another_json_type_are_accepted(key, value, read):
    config = config_from_dict(Example, {"n_layers": 1, key: value}, "x")
    assert getattr(config, key) == read and type(getattr(config, key)) is type(read)


@pytest.mark.parametrize(("key", "value", "message"), [
    ("n_layers", "two", "n_layers must be a whole number, not 'two'"),
    ("n_layers", 2.5, "n_layers must be a whole number"),
    ("n_layers", True, "n_layers must be a whole number"),
    ("n_layers", None, "n_layers must be a whole number"),
    ("n_layers", float("inf"), "n_layers must be a whole number"),
    ("n_layers", float("nan"), "n_layers must be a whole number"),
    ("n_layers", 0, "n_layers=0 must be at least 1"),
    ("dropout", "0.1", "dropout must be a number"),
    ("dropout", False, "dropout must be a number"),
    ("name", 3, "name must be a string"),
    ("causal", 1, "causal must be true or false"),
    ("seed", "x", "seed must be a whole number"),
    ("sizes", 3, "sizes must be a list"),
    ("sizes", ["a"], "sizes must be a whole number"),
    ("pairs", [[1], 2], "pairs must be a list"),
    ("inners", [{"low": "x"}], "low must be a whole number"),
    ("inners", [{}], "'low' is missing"),
    ("inners", [3], r"must be an object \{\.\.\.\}"),
])
def test_a_wrong_value_is_named(key, value, message):
    with pytest.raises(UserError, match=message) as error:
        config_from_dict(Example, {"n_layers": 1, key: value}, "config.json")
    assert str(error.value).startswith("config.json")


def test_an_unknown_key_is_an_error_with_the_nearest_known_one():
    with pytest.raises(UserError, match="unknown key 'n_layer'; did you mean 'n_layers'"):
        config_from_dict(Example, {"n_layer": 1, "n_layers": 1}, "x")
    with pytest.raises(UserError, match="unknown key 'zzz'; known keys: n_layers, dropout"):
        config_from_dict(Example, {"zzz": 1, "n_layers": 1}, "x")


def test_a_misspelt_key_is_named_before_the_one_that_is_missing_for_it():
    with pytest.raises(UserError, match="did you mean 'n_layers'"):
        config_from_dict(Example, {"n_layer": 1}, "x")


def test_a_needed_key_that_is_missing_is_named():
    with pytest.raises(UserError, match="x: 'n_layers' is missing"):
        config_from_dict(Example, {}, "x")


def test_what_is_no_object_is_an_error():
    with pytest.raises(UserError, match="must be an object"):
        config_from_dict(Example, [1], "x")


def test_a_file_is_named_by_its_path(tmp_path: Path):
    path = tmp_path / "config.json"
    path.write_text('{"n_layers": "x"}')
    with pytest.raises(UserError) as error:
        config_from_file(Example, path)
    assert str(error.value).startswith(f"{path}: n_layers")
