"""A table without a header: whether its first row is a row, and what its columns are by what is in them."""

import csv
import re
from collections.abc import Sequence

MOST_VALUES = 30
PROSE = 15  # characters on average
_NUMBER = re.compile(r"-?\d+(\.\d+)?")
_SENTENCE = re.compile(r"[.?!。？！]$")


def header_of(text: str, delimiter: str, quoted: bool) -> tuple[str, ...]:
    """Return names for the columns of a table that begins with a row, () where it begins with a header.

    `text` is its beginning. A first row is a row where a cell of it is a number among numbers, a label that
    comes again, or a sentence.
    """
    lines = text.splitlines()[:200]
    try:
        rows = list(csv.reader(lines, delimiter=delimiter)) if quoted else [x.split(delimiter) for x in lines]
    except csv.Error:
        return ()
    width = len(rows[0]) if rows else 0
    rows = [row for row in rows if len(row) == width]
    if width < 2 or len(rows) < 2 or rows[0] == [str(number) for number in range(width)]:
        return ()
    columns = list(zip(*rows, strict=True))
    return _named(columns) if any(map(_is_row, columns)) else ()


def _is_row(cells: Sequence[str]) -> bool:
    first, others = cells[0], cells[1:]
    if _NUMBER.fullmatch(first):
        return all(_NUMBER.fullmatch(cell) for cell in others)
    again = first in others and len(set(others)) <= MOST_VALUES
    return bool(first) and (again or (len(first) > 40 and bool(_SENTENCE.search(first))))


def _named(columns: Sequence[Sequence[str]]) -> tuple[str, ...]:
    """Return names that tell the roles: idx, label, and the texts by how many there are."""
    names = [f"column_{number}" for number in range(1, len(columns) + 1)]
    texts = [n for n, cells in enumerate(columns) if sum(map(len, cells)) >= PROSE * len(cells)]
    few = [n for n, cells in enumerate(columns) if n not in texts and _are_labels(cells)]
    for number, cells in enumerate(columns):
        if all(map(_NUMBER.fullmatch, cells)) and len(set(cells)) == len(cells):
            names[number] = "idx" if "idx" not in names else names[number]
    if few:
        names[few[-1]] = "label"
    roles = ("premise", "hypothesis") if few else ("question", "answer")
    for number, role in zip(texts, roles if len(texts) > 1 else ("text",), strict=False):
        names[number] = role
    return tuple(names)


def _are_labels(cells: Sequence[str]) -> bool:
    distinct = len(set(cells))
    return 2 <= distinct <= MOST_VALUES and 2 * distinct <= len(cells) and "" not in cells
