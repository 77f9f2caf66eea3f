"""Hermes' function calls: turns with tools in the system text (`<tools>`), calls and results in tags."""

import ast
import re
from contextlib import suppress

from tuneyard.compiler.rows import Fields, are_objects
from tuneyard.core.files import JsonObject
from tuneyard.core.records.calls import RESULTS, read_strict

TURNS = "conversations"  # the key of a row's turns
TOOLS = "<tools>"
"""What is before the tools in a system text."""
_TAGGED = re.compile(
    r"\s*<(?:tool_call|tool_response|functioncall)>\s*(.*?)\s*(?:</tool_\w+>\s*|$)", re.DOTALL
)
_ARGUMENTS = re.compile(r"""(?<="arguments": )'(\{.*\})'""", re.DOTALL)  # Glaive's: JSON in single quotes


def has_form(row: Fields) -> bool:
    """True for turns with tools in their system text that have a column, too."""
    turns = row.get(TURNS)
    if not (row.get("tools") and are_objects(turns)):
        return False
    tools = str(turns[0].get("value")).rpartition(TOOLS)[2]
    return tools.lstrip().startswith(("[", "{"))


def with_roles(row: JsonObject) -> Fields:
    """Leave tools that have a column, too, out of the system text, and take calls out of their tags."""
    if not has_form(row):
        return row
    turns = row[TURNS]
    about = str(turns[0].get("value")).rpartition(TOOLS)[0]
    return {**row, TURNS: [{**turns[0], "value": about.rstrip()}, *map(without_tags, turns[1:])]}


def without_tags(turn: Fields) -> Fields:
    """A turn of calls or of results. One with other text stays."""
    text = str(turn.get("value"))
    bodies = _TAGGED.findall(text)
    if not bodies or _TAGGED.sub("", text):
        return turn
    if turn.get("from") == "tool":
        return {**turn, "value": RESULTS.join(bodies)}
    return {**turn, "value": "", "tool_calls": list(map(_value, bodies))}


def _value(text: str) -> object:
    """The value of JSON or of Python's notation. Other text stays, and its turn is refused."""
    text = _ARGUMENTS.sub(r"\1", text)
    for read in (read_strict, ast.literal_eval):
        with suppress(ValueError, SyntaxError, TypeError, RecursionError, MemoryError):
            return read(text)
    return text
