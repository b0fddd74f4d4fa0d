"""Settings: JSON objects checked on the way into frozen dataclasses."""

from __future__ import annotations

import dataclasses
import json
import types
import typing
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from backline.common.errors import UserError, suggestion
from backline.common.files import read_json_object

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

C = TypeVar("C", bound="DataclassInstance")

PLAIN_NAMES = {float: "a number",
               int: "a whole number",
               str: "a string",
               bool: "true or false"}


def config_from_dict(cls: type[C], data: dict[str, Any], where: str) -> C:
    """Build the dataclass `cls` from JSON data.

    Raises:
        UserError: a key `cls` does not know (with the nearest one it does), one that it needs and
            that is missing, or a value of the wrong type; `where` names the source in the message.
    """
    if not isinstance(data, dict):
        raise UserError(f"{where} must be an object {{...}}, not {data!r}")
    hints = typing.get_type_hints(cls)
    fields = dataclasses.fields(cls)
    known = [field.name for field in fields]
    values = {}
    for key, value in data.items():
        if key not in known:
            hint = suggestion(key, known) or f"; known keys: {', '.join(known)}"
            raise UserError(f"{where}: unknown key {key!r}{hint}")
        values[key] = _checked(value, hints[key], f"{where}: {key}")
    for field in fields:  # after the loop: a misspelt key explains one that is missing
        if _is_needed(field) and field.name not in data:
            raise UserError(f"{where}: {field.name!r} is missing")
    try:
        return cls(**values)
    except UserError as err:
        raise UserError(f"{where}: {err}") from None


def _is_needed(field: dataclasses.Field) -> bool:
    """Whether a field has no default."""
    missing = dataclasses.MISSING
    return field.default is missing and field.default_factory is missing


def config_from_file(cls: type[C], path: Path) -> C:
    """Build the dataclass `cls` from a JSON file; see `config_from_dict`."""
    return config_from_dict(cls, read_json_object(path), str(path))


def config_to_dict(config: Any) -> dict[str, Any]:
    """Plain JSON data of a settings dataclass; `config_from_dict` reads it back."""
    return json.loads(json.dumps(dataclasses.asdict(config)))


def _checked(value: Any, wanted: Any, where: str) -> Any:
    """`value` as the annotated type `wanted`. Raises UserError if it is of another.

    Lists become tuples, and whole numbers may stand for floats.
    """
    if isinstance(wanted, types.UnionType):
        options = typing.get_args(wanted)
        if value is None and types.NoneType in options:
            return None
        others = [option for option in options if option is not types.NoneType]
        wanted = others[0]
    if typing.get_origin(wanted) is tuple:
        if not isinstance(value, list | tuple):
            raise UserError(f"{where} must be a list, not {value!r}")
        of_item = typing.get_args(wanted)[0]
        return tuple(_checked(item, of_item, where) for item in value)
    if typing.get_origin(wanted) is dict:
        if not isinstance(value, dict):
            raise UserError(f"{where} must be an object {{...}}, not {value!r}")
        of_item = typing.get_args(wanted)[1]
        return {key: _checked(item, of_item, f"{where}: {key}")
                for key, item in value.items()}
    if isinstance(wanted, type) and dataclasses.is_dataclass(wanted):
        return config_from_dict(wanted, value, where)
    return _checked_plain(value, wanted, where)


def _checked_plain(value: Any, wanted: type, where: str) -> Any:
    """`value` as a number, text or truth value."""
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    if wanted is float and is_number:
        return float(value)
    if wanted is int and is_number and float(value).is_integer():
        return int(value)
    if wanted in (bool, str) and isinstance(value, wanted):
        return value
    raise UserError(f"{where} must be {PLAIN_NAMES[wanted]}, not {value!r}")
