"""One chat as a document of several objects, as Google AI Studio saves it: settings, system text, turns."""

import re
from collections.abc import Iterator, Sequence
from typing import Any, TypeGuard

from tuneyard.compiler.kinds.turn_forms import ASSISTANT, SYSTEM, USER, speaker
from tuneyard.compiler.read.turn_rows import MESSAGES, joined_turns
from tuneyard.compiler.rows import Fields, are_objects, without
from tuneyard.compiler.spec.column_meanings import USUAL_NAMES
from tuneyard.compiler.spec.column_names import snake_case
from tuneyard.core.files import JsonObject

_SETTINGS = re.compile(r"(^|_)(settings?|config|configuration|parameters|generation_config)$")
_CONVERSATION = re.compile("conv|dialog|thread|session|chat|ticket")
_TEXTS = ("parts", "text", "content")
"""The keys of a turn's text. Parts come first: a text next to them is all of them joined."""
_OUTERMOST_TEXTS = ("text",)
"""The same for turns that are a column of the row: under the other keys the column itself is read."""


def has_form(row: Fields) -> bool:
    """True for a document with one list of turns, and with settings or a system text next to it."""
    return len(list(_turn_lists(row))) == 1 and any(map(_is_about_chat, _members(row)))


def with_turns(row: Fields) -> Fields:
    """Put `messages` and `system` in place of the turns and the system text of a document."""
    if not has_form(row):
        return row
    ((path, turns),) = _turn_lists(row)
    others = _without_path(row, path)
    system = ""
    for name, value in list(_members(row)):
        if snake_case(name) in USUAL_NAMES[SYSTEM] and (text := _text_of(value)):
            system = text
            others = _without_path(others, (name,) if name in row else (path[0], name))
    messages = [_turn(turn) for turn in turns]
    return {MESSAGES: joined_turns(messages), **({SYSTEM: system} if system else {}), **others}


def _members(row: JsonObject) -> Iterator[tuple[str, Any]]:
    """Yield the members of a document, and those of the object that has the turns."""
    yield from row.items()
    for (name, *rest), _ in _turn_lists(row):
        if rest:
            yield from row[name].items()


def _is_about_chat(member: tuple[str, Any]) -> bool:
    """True for settings, and for a system text."""
    name, value = snake_case(member[0]), member[1]
    if name in USUAL_NAMES[SYSTEM]:
        return isinstance(value, dict) or bool(_text_of(value))
    return isinstance(value, dict) and bool(_SETTINGS.search(name))


def _turn_lists(row: JsonObject) -> Iterator[tuple[tuple[str, ...], list[Fields]]]:
    """Yield each list of turns of a user and a model in a document, or in an object of it, with its path."""
    for name, value in row.items():
        if _are_turns(value, _OUTERMOST_TEXTS):
            yield (name,), value
        elif isinstance(value, dict):
            for inner_name, inner in value.items():
                if _are_turns(inner, _TEXTS):
                    yield (name, inner_name), inner


def _are_turns(value: object, texts: Sequence[str]) -> TypeGuard[list[Fields]]:
    """True for the turns of one chat. Turns with a column of conversations are a table of several."""
    if not are_objects(value):
        return False
    keys = set().union(*value)
    if any(_CONVERSATION.search(snake_case(key)) for key in keys):
        return False
    speakers = {speaker({"role": turn.get("role"), "content": ""}) for turn in value}
    return {USER, ASSISTANT} <= speakers <= {USER, ASSISTANT, SYSTEM} and not keys.isdisjoint(texts)


def _turn(turn: Fields) -> Fields:
    """A turn with its text under `content`, or with its parts."""
    key = next((name for name in _TEXTS if turn.get(name)), "text")
    name = "parts" if key == "parts" and are_objects(turn[key]) else "content"
    rest = without(turn, "role", *_TEXTS)
    return {"role": turn["role"], name: turn.get(key), **rest}


def _text_of(value: object) -> str:
    """The text of a system instruction: a text, an object with it, or its parts; "" for anything else."""
    if isinstance(value, dict):
        value = value.get("text") or value.get("parts")
    texts = []
    for part in value if isinstance(value, list) else [value]:
        text = part.get("text") if isinstance(part, dict) else part
        if isinstance(text, str):
            texts.append(text)
    return "".join(texts)


def _without_path(row: JsonObject, path: tuple[str, ...]) -> Fields:
    """A document without the value under a path of one or two keys."""
    if len(path) == 1 or not isinstance(row.get(path[0]), dict):
        return without(row, path[0])
    inner = without(row[path[0]], path[1])
    return {**row, path[0]: inner} if inner else without(row, path[0])
