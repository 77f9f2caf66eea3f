"""python -m recipes.keys: write recipes/keys.json, what LLaMA-Factory's arguments and templates are called.

Importing LLaMA-Factory takes 12 s; `check` names a misspelt key at once from this snapshot, and asks
LLaMA-Factory itself afterwards. tests/integration/test_recipes_all.py holds the snapshot to be current.
"""

import enum
import typing
from collections.abc import Iterator
from functools import cache
from pathlib import Path

from core.files import read_object, versions, write_json

SNAPSHOT = Path(__file__).with_name("keys.json")
SIMPLE: dict[object, str] = {
    bool: "bool", int: "int", float: "float", str: "str", type(None): "null", dict: "dict", list: "list",
}  # fmt: skip


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
                types, choices = zip(*map(_kind, _plain(hints[name])), strict=True)
                limited = [choice for some in choices for choice in some]
                keys[name] = {"types": sorted(set(types)), **({"choices": limited} if limited else {})}
    return {
        "made_with": versions("llamafactory", "transformers"),
        "keys": dict(sorted(keys.items())),
        "templates": sorted(TEMPLATES),
    }


def _plain(hint: object) -> Iterator[object]:
    """Yield the parts of a type annotation that are no unions; of literals each for itself."""
    origin, parts = typing.get_origin(hint), typing.get_args(hint)
    if origin is typing.Literal:
        yield from (typing.Literal[part] for part in parts)
    elif origin in (None, list, dict):
        yield hint
    else:
        for part in parts:
            yield from _plain(part)


def _kind(hint: object) -> tuple[str, list[object]]:
    """Return what a part of an annotation is called in the snapshot, and to which values it is limited."""
    origin = typing.get_origin(hint)
    if origin is typing.Literal:
        (choice,) = typing.get_args(hint)
        return SIMPLE[type(choice)], [choice]
    if isinstance(hint, type) and issubclass(hint, enum.Enum):
        return "str", [member.value for member in hint]
    return origin.__name__ if isinstance(origin, type) else SIMPLE.get(hint, "other"), []


if __name__ == "__main__":
    write_json(SNAPSHOT, snapshot())
