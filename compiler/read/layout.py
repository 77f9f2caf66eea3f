"""What a JSON document is: lines, a list of rows, an object of rows or of a list of them, one row."""

import json
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TypeGuard

from compiler.read.scan import BrokenError, Scanner
from compiler.rows import MISSING, walker
from compiler.spec import Column
from compiler.specfile import no_row
from core.errors import show_value

LOOKED_AT = 1 << 20
TURNS = ({"from", "value"}, {"role", "content"})
_DECODER = json.JSONDecoder()


@dataclass(frozen=True, slots=True)
class Layout:
    """`steps` are the keys that lead to the rows (None: each line is a row), `said` is what to call it.

    `lists` hold objects: where there is more than one, nothing says which holds the rows.
    """

    steps: tuple[str, ...] | None
    said: str
    lists: dict[str, list[object]] = field(default_factory=dict)


LINES = Layout(None, "lines, each of them a row")
ROW = Layout((), "")  # nothing is said of it, since there may be thousands of such files


def layout_of(head: bytes, whole: bool, is_row: Callable[[object], bool] = no_row) -> Layout:
    """Return what a document is that begins (or as a whole is) so; after `LOOKED_AT` bytes it is a guess.

    `is_row` tells whether an object has what a row needs: such a document is one, unless it holds others.
    `lists` has the items of each list, as many as there are so far.
    """
    text = head.decode(errors="replace").strip()
    if text[:1] != "{":
        return Layout((), "a list of rows" if text[:1] == "[" else "")
    members, rest, ended = _members(text)
    line, _, others = text.partition("\n")
    alone = line.rstrip().endswith("}") and (whole or bool(others))
    if rest or (alone and not ended and others.lstrip()[:1] in ("", "{")):
        return LINES
    if is_row(members) and not any(is_row(value[0]) for value in members.values() if is_rows(value)):
        return ROW
    lists = {} if any(map(_is_talk, members.values())) else {k: v for k, v in members.items() if is_rows(v)}
    if lists:
        return Layout((next(iter(lists)),), f"a list of rows under {show_value(next(iter(lists)))}", lists)
    if members and all(isinstance(value, dict) for value in members.values()):
        return Layout((), "an object whose values are the rows")
    return LINES if alone or not (whole or others) else Layout((), "")


def row_of(columns: Sequence[Column]) -> Callable[[object], bool]:
    """Return what tells whether an object is one row: it has most of the columns that each row must have."""
    needed = [column for column in columns if column.required and column.kind != "label"]

    def has(row: dict[str, object], column: Column) -> bool:
        found = (walker(name)(row) for known in column.names for name in (known, known.lower()))
        return any(
            value is not MISSING and (column.kind in ("any", "best") or not is_rows(value) or _is_talk(value))
            for value in found
        )

    def is_row(value: object) -> bool:
        if not isinstance(value, dict):
            return False
        lower = {**{key.lower(): item for key, item in value.items()}, **value}
        return 2 * sum(has(lower, column) for column in needed) > len(needed)

    return is_row


def is_turn(value: object) -> bool:
    """Whether an object is a turn of a conversation."""
    return isinstance(value, dict) and any(keys <= value.keys() for keys in TURNS)


def _is_talk(value: object) -> bool:
    return is_rows(value) and is_turn(value[0])


def is_rows(value: object) -> TypeGuard[list[object]]:
    """Whether a value is a list of objects, with at least one of them."""
    return isinstance(value, list) and bool(value) and all(isinstance(item, dict) for item in value)


def _members(text: str) -> tuple[dict[str, object], str, bool]:
    """Return the members (so far) of the object that a text begins with, what follows, whether it ends.

    A list that the text ends in is there with its first item.
    """
    with suppress(ValueError, RecursionError):
        whole, end = _DECODER.raw_decode(text)
        return whole, text[end:].strip(), True
    found: dict[str, object] = {}
    scanner = Scanner([text.encode()], 1)
    scanner.next_sign()
    with suppress(BrokenError):
        for _ in scanner.items("}"):
            key = scanner.key()
            sign = scanner.next_sign()
            if sign == "[":
                found[key] = items = list[object]()
                try:
                    for number in scanner.items("]"):
                        items += [{}] if scanner.next_sign() == "{" else []
                        items[number:] = [scanner.value()]
                except BrokenError:
                    del items[1:]  # of a list that goes on, the first item tells: one further on is a bad row
                    raise
            else:
                found[key] = {} if sign == "{" else None
                found[key] = scanner.value()
    return found, "", False
