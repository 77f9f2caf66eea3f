"""Values in tool calls as Python (lfm2) and Gemma write them, and the error of unreadable calls."""

import ast
import json
import re
from typing import Any

from tuneyard.core.files import JsonObject
from tuneyard.core.records.calls import read_strict

LONGEST_NAME = 200  # characters of a tool's name
PYTHON_TEXT = re.compile(r"\"(?:[^\"\\\n]|\\.)*\"|'(?:[^'\\\n]|\\.)*'", re.DOTALL)
GEMMA_TEXT = '<|"|>'
WORDS = {"true": True, "True": True, "false": False, "False": False, "null": None, "None": None}
WORD = re.compile(r"[^\s,:()\[\]{}<>\"']+")
SPACE = re.compile(r"\s*")


class UnreadableCallError(Exception):
    """A call begins in an answer and cannot be read."""


class ValueReader:
    """Reads values as Python and Gemma write them: words of both languages, and keys without quotes."""

    def __init__(self, text: str) -> None:
        self.text = text

    def read(self, place: int) -> tuple[Any, int]:
        """The value that begins here, and the place after it."""
        try:
            return self._value(place)
        except RecursionError as error:
            raise UnreadableCallError from error

    def read_object(self, place: int) -> tuple[JsonObject, int]:
        """The object that begins here, and the place after it."""
        value, end = self.read(place)
        if not isinstance(value, dict):
            raise UnreadableCallError
        return value, end

    def _value(self, place: int) -> tuple[Any, int]:
        place = self._after_space(place)
        sign = self.text[place : place + 1]
        if self.text.startswith(GEMMA_TEXT, place) or sign in ('"', "'"):
            return self._string(place)
        if sign == "{":
            return self._object(place + 1)
        if sign == "[":
            return self._list(place + 1)
        word = WORD.match(self.text, place)
        if word is None:
            raise UnreadableCallError
        if word[0] in WORDS:
            return WORDS[word[0]], word.end()
        try:
            number = read_strict(word[0])
        except ValueError as error:
            raise UnreadableCallError from error
        return number, word.end()

    def _string(self, place: int) -> tuple[str, int]:
        if self.text.startswith(GEMMA_TEXT, place):
            start = place + len(GEMMA_TEXT)
            end = self.text.find(GEMMA_TEXT, start)
            if end < 0:
                raise UnreadableCallError
            return self.text[start:end], end + len(GEMMA_TEXT)
        literal = PYTHON_TEXT.match(self.text, place)
        if literal is None:
            raise UnreadableCallError
        return python_literal(literal[0]), literal.end()

    def _object(self, place: int) -> tuple[JsonObject, int]:
        fields: JsonObject = {}
        place = self._after_space(place)
        while not self.text.startswith("}", place):
            if self.text.startswith((GEMMA_TEXT, '"', "'"), place):
                key, place = self._string(place)
                place = self._after_space(place)
                if not self.text.startswith(":", place):
                    raise UnreadableCallError
            else:
                colon = self.text.find(":", place, place + LONGEST_NAME)
                if colon < 0:
                    raise UnreadableCallError
                key, place = self.text[place:colon].strip(), colon
            if key in fields:
                raise UnreadableCallError
            fields[key], place = self._value(place + 1)
            place = self._after_comma(place, "}")
        return fields, place + 1

    def _list(self, place: int) -> tuple[list[Any], int]:
        items = []
        place = self._after_space(place)
        while not self.text.startswith("]", place):
            item, place = self._value(place)
            items.append(item)
            place = self._after_comma(place, "]")
        return items, place + 1

    def _after_comma(self, place: int, closing: str) -> int:
        """The next item's place, or that of the closing sign."""
        place = self._after_space(place)
        if self.text.startswith(",", place):
            return self._after_space(place + 1)
        if not self.text.startswith(closing, place):
            raise UnreadableCallError
        return place

    def _after_space(self, place: int) -> int:
        space = SPACE.match(self.text, place)
        return space.end() if space else place


def python_literal(text: str) -> str:
    """A text in quotes, with Python's escapes. JSON has the same, and pairs of halves of a character."""
    try:
        value = json.loads(text) if text.startswith('"') else ast.literal_eval(text)
    except ValueError:
        try:
            value = ast.literal_eval(text)
        except (ValueError, SyntaxError) as error:
            raise UnreadableCallError from error
    except SyntaxError as error:
        raise UnreadableCallError from error
    return str(value)
