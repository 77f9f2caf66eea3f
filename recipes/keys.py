"""python -m recipes.keys: write recipes/keys.json, what LLaMA-Factory's arguments and templates are called.

Importing LLaMA-Factory takes 12 s; `check` names a misspelt key at once from this snapshot, and asks
LLaMA-Factory itself afterwards. tests/integration/test_recipes_keys.py holds the snapshot to be current.
"""

import enum
import typing
from collections.abc import Iterator
from functools import cache
from pathlib import Path

from core.files import read_object, versions, write_json

SNAPSHOT = Path(__file__).with_name("keys.json")


@cache
def known_keys() -> dict[str, dict[str, object]]:
    """Return the snapshot's keys: for each its `types` and, where there are any, its `choices`."""
    keys = read_object(SNAPSHOT)["keys"]
    return keys if isinstance(keys, dict) else {}


@cache
def known_templates() -> list[str]:
    """Return the names of LLaMA-Factory's templates."""
    templates = read_object(SNAPSHOT)["templates"]
    return templates if isinstance(templates, list) else []


def snapshot() -> dict[str, object]:
    """Return keys and templates of the installed LLaMA-Factory (imports it)."""
    from llamafactory.data.template import TEMPLATES
    from llamafactory.hparams import parser

    keys: dict[str, dict[str, object]] = {}
    for arguments in parser._TRAIN_ARGS:
        hints = typing.get_type_hints(arguments)
        for name, field in arguments.__dataclass_fields__.items():
            if field.init:
                types, choices = sorted(set(_types(hints[name]))), list(_choices(hints[name]))
                keys[name] = {"types": types, **({"choices": choices} if choices else {})}
    return {
        "made_with": versions("llamafactory", "transformers"),
        "keys": dict(sorted(keys.items())),
        "templates": sorted(TEMPLATES),
    }


def _types(hint: object) -> Iterator[str]:
    """Yield the names of the plain kinds that a type annotation accepts."""
    simple = {
        bool: "bool",
        int: "int",
        float: "float",
        str: "str",
        type(None): "null",
        dict: "dict",
        list: "list",
    }
    origin = typing.get_origin(hint)
    if origin is typing.Literal:
        for choice in typing.get_args(hint):
            yield simple[type(choice)]
    elif origin in (list, dict):
        yield origin.__name__
    elif origin is None:
        yield "str" if isinstance(hint, type) and issubclass(hint, enum.Enum) else simple.get(hint, "other")  # type: ignore[call-overload]  # hint is a key or falls to "other"
    else:
        for part in typing.get_args(hint):
            yield from _types(part)


def _choices(hint: object) -> Iterator[object]:
    """Yield the values that an annotation of literals or an enumeration is limited to."""
    if typing.get_origin(hint) is typing.Literal:
        yield from typing.get_args(hint)
    elif isinstance(hint, type) and issubclass(hint, enum.Enum):
        yield from (member.value for member in hint)
    elif typing.get_origin(hint) not in (None, list, dict):
        for part in typing.get_args(hint):
            yield from _choices(part)


if __name__ == "__main__":
    write_json(SNAPSHOT, snapshot())
