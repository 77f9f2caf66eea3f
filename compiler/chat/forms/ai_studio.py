"""One chat as a document of several values, as Google AI Studio saves it: settings, system text, messages.

Other programs save a title in place of the settings.
"""

import re
from collections.abc import Iterator, Sequence
from typing import Any, TypeGuard

from tuneyard.compiler.chat.message_forms import (
    ASSISTANT,
    SYSTEM,
    USER,
    common_messages,
    role_and_content,
    speaker,
)
from tuneyard.compiler.chat.message_rows import MESSAGES, joined_messages
from tuneyard.compiler.rows import Fields, are_objects, without
from tuneyard.compiler.spec.export_forms import ExportForm
from tuneyard.core.datasets.column_meanings import USUAL_NAMES, snake_case
from tuneyard.core.files import JsonObject

Keys = tuple[str, ...]
"""The keys that lead to a value of a document."""
MOST_LEVELS = 3
"""Objects in one another that are looked into for the messages."""
_SETTINGS = re.compile(r"(^|_)(settings?|config|configuration|parameters)$")
_CONVERSATION = re.compile("conv|dialog|thread|session|chat|ticket")
_TITLE = re.compile("title|name|subject|topic|headline|id|uuid|.*_id|标题|主题|名称|话题|题目|编号")
"""Names of a text that belongs to one chat as a whole."""
_TABLE = re.compile(
    "rows?|data|dataset|items?|records?|examples?|samples?|entries|lines?|train|test|eval|数据|样本"
)
"""Names of lists of rows: with a title alone next to them, their messages may be those of several chats."""
_TEXTS = ("parts", "text", "content", "value", "message", "utterance")
"""The keys of a message's text. Parts come first: a text next to them is all of them joined."""
_MEDIUM = re.compile("(drive|inline)_(image|picture|video|audio|document|file|data)|you_?tube_video")
"""Keys of a message that is a file, in snake case."""


def has_form(row: Fields) -> bool:
    """True for a document with one list of messages, and with settings, a system text or a title next to it.

    Messages in a usual form that are a column of a row have no form: that column is read.
    """
    return _is_chat(row) and not any(
        len(path) == 1 and _is_usual(messages[0]) for path, messages in _message_lists(row)
    )


def is_document(document: Fields) -> bool:
    """The same for a whole document, whose messages may be under any name but those that every spec reads."""
    names = [
        path[0] for path, messages in _message_lists(document) if len(path) == 1 and "text" not in messages[0]
    ]
    return _is_chat(document) and not any(snake_case(name) in USUAL_NAMES["turns"] for name in names)


def with_messages(row: Fields) -> Fields:
    """Put `common` and `system` in place of the messages and the system text of a document."""
    if not _is_chat(row):
        return row
    ((path, messages),) = _message_lists(row)
    others = _without_path(row, path)
    system = ""
    for system_path, value in _members(row, path):
        text = _text_of(value)
        if snake_case(system_path[-1]) in USUAL_NAMES[SYSTEM] and text:
            system = text
            others = _without_path(others, system_path)
    common = common_messages(list(map(_message, messages)), {})
    changed: Fields = {MESSAGES: joined_messages(common) if are_objects(common) else common}
    if system:
        changed[SYSTEM] = system
    return {**changed, **others}


def _is_usual(message: Fields) -> bool:
    """True for a message whose keys every column of messages reads."""
    keys = role_and_content(message)
    return "text" not in message or message.keys() >= set(keys)


def _is_chat(row: Fields) -> bool:
    """True for one list of messages, with settings, a system text or a title next to it."""
    paths = [path for path, _unused in _message_lists(row)]
    if len(paths) != 1:
        return False
    members = list(_members(row, paths[0]))
    if any(map(_is_about_chat, members)):
        return True
    is_table = any(_TABLE.fullmatch(snake_case(key)) for key in paths[0][-1:])
    return not is_table and any(map(_is_title, members))


def _is_title(member: tuple[Keys, Any]) -> bool:
    """True for the title or the id of a chat."""
    value = member[1]
    return bool(_TITLE.fullmatch(snake_case(member[0][-1]))) and isinstance(value, str | int) and value != ""


def _members(row: JsonObject, path: Keys) -> Iterator[tuple[Keys, Any]]:
    """Yield the members of a document and of the objects that lead to its messages, with their paths."""
    inner: Any = row
    for level, key in enumerate(path):
        for name, value in inner.items():
            yield (*path[:level], name), value
        inner = inner[key]


def _is_about_chat(member: tuple[Keys, Any]) -> bool:
    """True for settings, and for a system text."""
    name, value = snake_case(member[0][-1]), member[1]
    if name in USUAL_NAMES[SYSTEM]:
        return isinstance(value, dict) or bool(_text_of(value))
    return isinstance(value, dict) and bool(_SETTINGS.search(name))


def _message_lists(row: JsonObject, before: Keys = ()) -> Iterator[tuple[Keys, list[Fields]]]:
    """Yield each list of messages of a user and a model in a document or in its objects, with its path."""
    for name, value in row.items():
        path = (*before, name)
        if _are_messages(value):
            yield path, value
        elif isinstance(value, dict) and len(path) < MOST_LEVELS:
            yield from _message_lists(value, path)


def _are_messages(value: object) -> TypeGuard[list[Fields]]:
    """True for the messages of one chat. Messages with a column of conversations are a table of several."""
    if not are_objects(value):
        return False
    keys = set().union(*value)
    if any(_CONVERSATION.search(snake_case(key)) for key in keys) or keys.isdisjoint(_TEXTS):
        return False
    speakers = {speaker({"role": message.get(_role_key(message)), "content": ""}) for message in value}
    return {USER, ASSISTANT} <= speakers <= {USER, ASSISTANT, SYSTEM}


def _role_key(message: Fields) -> str:
    """The key of a message's speaker."""
    return "role" if "role" in message else role_and_content(message)[0]


def _message(message: Fields) -> Fields:
    """A message with its text under `content`, or with its parts."""
    key = next((name for name in _TEXTS if message.get(name)), "text")
    name = "parts" if key == "parts" and are_objects(message[key]) else "content"
    role = _role_key(message)
    content = message.get(key)
    media = [medium for medium in message if _MEDIUM.fullmatch(snake_case(medium)) and message[medium]]
    if media and name == "content":  # parts of a type that is none of a text: reading them names it
        texts = [{"type": "text", "text": content}] if isinstance(content, str) and content else []
        content = [*texts, *({"type": medium} for medium in media)]
    return {"role": message[role], name: content, **without(message, role, *_TEXTS, *media)}


def _text_of(value: object) -> str:
    """The text of a system instruction: a text, an object with it, or its parts; "" for anything else."""
    if isinstance(value, dict):
        value = next((value[key] for key in ("text", "content", "parts", "value") if value.get(key)), None)
    parts: Sequence[object] = value if isinstance(value, list) else [value]
    texts = []
    for part in parts:
        text = part.get("text") if isinstance(part, dict) else part
        if isinstance(text, str):
            texts.append(text)
    return "".join(texts)


def _without_path(row: JsonObject, path: Keys) -> Fields:
    """A document without the value under a path, and without objects that are empty then."""
    first, *rest = path
    if not rest:
        return without(row, first)
    inner = _without_path(row[first], tuple(rest))
    return {**row, first: inner} if inner else without(row, first)


AI_STUDIO = ExportForm("ai_studio", has_form, with_messages)
