"""Cells of Excel: dates as the sheet shows them, and why a cell has no value."""

import re
from bisect import bisect_right
from collections import defaultdict
from datetime import date, datetime, time, timedelta
from functools import cached_property
from typing import Any
from xml.parsers import expat

from tuneyard.compiler.rows import EmptyCell

_NO_PLACEHOLDER = re.compile(r'"[^"]*"|\\.|_.|\[(?![hms]+\])[^]]*\]', re.IGNORECASE)
"""What stands for itself in a number format: texts in quotes, signs, colours and languages in brackets."""
_CLOCK = re.compile("[hs]", re.IGNORECASE)
RECALCULATE = "open the file in Excel or LibreOffice, which computes it, and save it"
UNMERGE = "unmerge it, and write the value into each of its rows"


def text_of_time(value: date | time | timedelta, number_format: str) -> str:
    """A date, a time or a duration as the sheet shows it.

    >>> text_of_time(datetime(2024, 1, 5), "yyyy-mm-dd")
    '2024-01-05'
    >>> text_of_time(timedelta(hours=26, minutes=5), "[h]:mm:ss")
    '26:05:00'
    """
    if isinstance(value, timedelta):
        minutes, seconds = divmod(round(abs(value).total_seconds()), 60)
        hours, minutes = divmod(minutes, 60)
        sign = "-" if value < timedelta() else ""
        return f"{sign}{hours:02}:{minutes:02}:{seconds:02}"
    shows_clock = _CLOCK.search(_NO_PLACEHOLDER.sub("", number_format.split(";")[0]))
    if isinstance(value, datetime) and not shows_clock:
        return str(value.date())
    return str(value)


class EmptyCells:
    """Why cells of a sheet have no value. The sheet is read for it once the first is asked for.

    openpyxl, row by row, knows no merged cells, and of a formula the computed value alone.
    """

    def __init__(self, sheet: Any) -> None:
        self.sheet = sheet

    def cause(self, row: int, column: int) -> EmptyCell | None:
        """Why the cell at a row and a column, both from 1 on, has no value; None for an empty cell."""
        formulas, merged_rows = self._causes
        if (row, column) in formulas:
            return EmptyCell("a formula without a computed value", RECALCULATE)
        ranges = merged_rows.get(column, [])
        at = bisect_right(ranges, (row, float("inf"), ""))
        if at:
            _, last, name = ranges[at - 1]
            if row <= last:
                return EmptyCell(
                    f"a part of the merged cell {name}, whose value is in its first cell", UNMERGE
                )
        return None

    @cached_property
    def _causes(self) -> tuple[set[tuple[int, int]], dict[int, list[tuple[int, float, str]]]]:
        """The places of formulas without a value, and by column the rows and the name of each merged cell."""
        from openpyxl.utils.cell import coordinate_to_tuple, range_boundaries

        formulas: set[tuple[int, int]] = set()
        merged: defaultdict[int, list[tuple[int, float, str]]] = defaultdict(list)
        place = (0, 0)
        parts: set[str] = set()  # of the cell that is being read

        def start(name: str, attributes: dict[str, str]) -> None:
            nonlocal place
            element = name.rpartition(":")[2]
            if element == "row":
                place = (int(attributes.get("r", place[0] + 1)), 0)
            elif element == "c":
                parts.clear()
                place = (place[0], place[1] + 1)
                if "r" in attributes:
                    place = coordinate_to_tuple(attributes["r"])
                if attributes.get("t") == "str":
                    parts.add("text")
            elif element in ("f", "v", "is"):
                parts.add(element)
            elif element == "mergeCell":
                first_column, first_row, last_column, last_row = range_boundaries(attributes["ref"])
                for column in range(first_column, min(last_column, self.sheet.max_column or last_column) + 1):
                    merged[column].append((first_row, last_row, attributes["ref"]))

        def text(_: str) -> None:
            if "v" in parts:
                parts.add("value")

        def end(name: str) -> None:
            if name.rpartition(":")[2] == "c" and "f" in parts and parts.isdisjoint(("value", "text", "is")):
                formulas.add(place)

        parser = expat.ParserCreate()
        parser.StartElementHandler, parser.EndElementHandler, parser.CharacterDataHandler = start, end, text
        with self.sheet._get_source() as source:
            parser.ParseFile(source)
        for ranges in merged.values():
            ranges.sort()
        return formulas, dict(merged)
