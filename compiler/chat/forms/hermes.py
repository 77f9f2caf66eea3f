"""Hermes' function calls: messages with tools in the system text (`<tools>`), calls and results in tags."""

import ast
import re
from contextlib import suppress

from tuneyard.compiler.rows import Fields, are_objects
from tuneyard.compiler.spec.export_forms import ExportForm
from tuneyard.core.files import JsonObject
from tuneyard.core.records.calls import RESULTS, read_strict

TURNS = "conversations"  # the key of a row's messages
TOOLS = "<tools>"
"""What is before the tools in a system text."""
_TAGGED = re.compile(
    r"(?:(?<!\s)\s+)?<(?:tool_call|tool_response|functioncall)>\s*+"
    r"(.*?)(?:(?<!\s)\s+)?(?:</tool_\w+>\s*|$)",
    re.DOTALL,
)
"""A call or a result in its tags. The lookbehinds read long white space once."""
_ARGUMENTS = '"arguments": '
"""What is before Glaive's JSON in single quotes."""


def has_form(row: Fields) -> bool:
    """True for messages with tools in their system text that have a column, too."""
    messages = row.get(TURNS)
    if not (row.get("tools") and are_objects(messages)):
        return False
    tools = str(messages[0].get("value")).rpartition(TOOLS)[2]
    return tools.lstrip().startswith(("[", "{"))


def with_roles(row: JsonObject) -> Fields:
    """Leave tools that have a column, too, out of the system text, and take calls out of their tags."""
    if not has_form(row):
        return row
    messages = row[TURNS]
    about = str(messages[0].get("value")).rpartition(TOOLS)[0]
    return {**row, TURNS: [{**messages[0], "value": about.rstrip()}, *map(without_tags, messages[1:])]}


def without_tags(message: Fields) -> Fields:
    """A message of calls or of results. One with other text stays."""
    text = str(message.get("value"))
    bodies = _TAGGED.findall(text)
    if not bodies or _TAGGED.sub("", text):
        return message
    if message.get("from") == "tool":
        return {**message, "value": RESULTS.join(bodies)}
    return {**message, "value": "", "tool_calls": list(map(_value, bodies))}


def _value(text: str) -> object:
    """The value of JSON or of Python's notation. Other text stays, and its message is refused."""
    text = _without_quotes(text)
    for read in (read_strict, ast.literal_eval):
        with suppress(ValueError, SyntaxError, TypeError, RecursionError, MemoryError):
            return read(text)
    return text


def _without_quotes(text: str) -> str:
    """The text without the single quotes around the object of Glaive's arguments."""
    begin = text.find(f"{_ARGUMENTS}'{{")
    end = text.rfind("}'")
    if begin < 0 or end < begin:
        return text
    quote = begin + len(_ARGUMENTS)
    return f"{text[:quote]}{text[quote + 1 : end + 1]}{text[end + 2 :]}"


HERMES = ExportForm("hermes", has_form, with_roles, by_one_row=True)
