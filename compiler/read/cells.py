"""Cells of Excel: dates as the sheet shows them, and why a cell has no value."""

import re
from bisect import bisect_right
from collections.abc import Sequence
from datetime import date, datetime, time, timedelta
from typing import NamedTuple

from tuneyard.compiler.rows import EmptyCell
from tuneyard.core.language.message import _

_NO_PLACEHOLDER = re.compile(r'"[^"]*"|\\.|_.|\[(?![hms]+\])[^]]*\]', re.IGNORECASE)
"""What stands for itself in a number format: texts in quotes, signs, colours and languages in brackets."""
_CLOCK = re.compile("[hs]", re.IGNORECASE)
RECALCULATE = _("open the file in Excel or LibreOffice, which computes it, and save it")
UNMERGE = _("unmerge it, and write the value into each of its rows")
CORRECT = _("correct its formula, or write the value into the cell")
NO_VALUE = EmptyCell(_("a formula without a computed value"), RECALCULATE)


class MergedCell(NamedTuple):
    """The first and the last row of a merged cell in one of its columns, and its name: `B2:C5`."""

    first: int
    last: int
    name: str


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


def part_of(merged_cells: Sequence[MergedCell], row: int) -> EmptyCell | None:
    """Why a cell at this row is empty, if one of its column's merged cells, which are sorted, has the row."""
    at = bisect_right(merged_cells, row, key=lambda merged_cell: merged_cell.first)
    if at:
        merged_cell = merged_cells[at - 1]
        if row <= merged_cell.last:
            cause = _(
                "a part of the merged cell {name}, whose value is in its first cell", name=merged_cell.name
            )
            return EmptyCell(cause, UNMERGE)
    return None
