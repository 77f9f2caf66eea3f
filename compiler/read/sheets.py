"""Excel workbooks, read by openpyxl: the first sheet with rows. Its header is below its titles."""

import contextlib
import io
import zipfile
import zlib
from collections.abc import Iterator, Sequence
from datetime import date, time, timedelta
from itertools import chain, islice, takewhile, zip_longest
from typing import Any
from xml.parsers.expat import ExpatError

from tuneyard.compiler.problems import Problems
from tuneyard.compiler.read import OpenFile, reader, refuse_twice
from tuneyard.compiler.read.cells import EmptyCells, text_of_time
from tuneyard.compiler.read.stream import Readable, UnreadableFileError, opened, seekable
from tuneyard.compiler.read.tables import HEADER_AGAIN, JOINED
from tuneyard.compiler.rows import ROW, EmptyCell, Fields, Line, ObjectRows, Place, Prefix
from tuneyard.core.errors import Problem, show_value

BATCH = 1000
LOOKED_AT = 100  # rows of each sheet
TITLES = 5  # rows of one cell above the header, at most
CORRECT = "correct its formula, or write the value into the cell"


class _ErrorValue(str):
    """What a sheet shows for a formula that failed: `#N/A`. As a header or a title it is text."""


def sheet_names(path: Readable) -> list[str]:
    """The names of the sheets of a workbook. `UnreadableFileError` if it cannot be read."""
    with opened(path, "utf-8", in_order=False) as stream, _damage(str(path)):
        return [sheet.title for sheet in _workbook(stream).worksheets]


@reader(".xlsx", text=False)
def read_sheet(file: OpenFile, problems: Problems) -> Iterator[ObjectRows]:
    """Yield the rows of a workbook, read row by row."""
    with _damage(file.display_path):
        book = _workbook(file.stream)
        sheets = book.worksheets
        if file.names:
            sheets = [book[name] for name in file.names]
        for sheet in sheets:
            sheet.reset_dimensions()  # some exporters write them wrong, and the rows beyond would be lost
        first_rows = {sheet.title: list(islice(_filled_rows(sheet), LOOKED_AT)) for sheet in sheets}
        several_rows = [sheet for sheet in sheets if len(first_rows[sheet.title]) > 1]
        # One row is a title, or a header without rows. One column before a longer table is about the table.
        first = (several_rows or sheets)[0]
        if _is_column(first_rows[first.title]):
            for sheet in several_rows:
                rows = first_rows[sheet.title]
                if len(rows) > len(first_rows[first.title]) and not _is_column(rows):
                    first = sheet
                    break
        titles = [title for title, rows in first_rows.items() if rows and title != first.title]
        if titles:
            message = f"only the sheet {first.title} is read, not {', '.join(titles)}"
            hint = "save each sheet as a file of its own"
            problems.warn(Problem("W224", file.display_path, message, "", hint))
        yield from _rows(first, file.display_path, problems)


def _workbook(stream: io.BufferedReader) -> Any:
    """The workbook of openpyxl, whose rows are read one by one."""
    import openpyxl

    return openpyxl.load_workbook(seekable(stream), read_only=True, data_only=True)


@contextlib.contextmanager
def _damage(display_path: str) -> Iterator[None]:
    """`UnreadableFileError` for a workbook that openpyxl cannot read."""
    try:
        yield
    except (zipfile.BadZipFile, zlib.error, LookupError, ValueError, SyntaxError, ExpatError) as error:
        message, place = f"the workbook cannot be read: {error}", f"{display_path} row 1"
        raise UnreadableFileError("E012", message, "export the file again", place) from error


def _rows(sheet: Any, display_path: str, problems: Problems) -> Iterator[ObjectRows]:
    prefix = Prefix(display_path, ROW)
    filled_rows = _filled_rows(sheet)
    beginning = list(islice(filled_rows, TITLES + 1))
    titles = list(takewhile(lambda row: _filled(row[1]) == 1, beginning))
    if len(titles) < len(beginning) and _filled(beginning[len(titles)][1]) > 2:
        for number, cells in titles:
            title = next(cell for cell in cells if cell is not None)
            problems.notes.append(f"{Place(prefix, number)}: a title, not read: {show_value(title)}")
        del beginning[: len(titles)]
    filled_rows = chain(beginning, filled_rows)
    first, cells = next(filled_rows, (1, ()))
    header = ["" if cell is None else str(cell) for cell in cells]
    empty_cells = EmptyCells(sheet)
    refuse_twice(list(filter(None, header)), Place(prefix, first))
    while batch := list(islice(filled_rows, BATCH)):
        rows: dict[Line, Fields] = {}
        causes: dict[tuple[Line, str], EmptyCell] = {}
        for number, cells in batch:
            if ["" if cell is None else str(cell) for cell in cells] == header:
                problems.bad_row([Problem("E010", Place(prefix, number), HEADER_AGAIN, "", JOINED)], header)
                continue
            named = list(zip_longest(header, cells))
            unnamed = [value for name, value in named if not name and value is not None]
            if unnamed:
                message = f"found {show_value(unnamed[0])} in a column that the header does not name"
                fix = "name each column in the first row, and delete the rows above it"
                values = [value for _, value in named]
                problems.bad_row([Problem("E008", Place(prefix, number), message, "", fix)], values)
                continue
            rows[number] = {}
            for column, (name, value) in enumerate(named, 1):
                if not name:
                    continue
                cause = empty_cells.cause(number, column) if value is None else None
                if isinstance(value, _ErrorValue):
                    cause = EmptyCell(f"the error value {value}", CORRECT)
                    value = None
                if cause:
                    causes[number, name] = cause
                rows[number][name] = value
        if rows:
            yield ObjectRows(prefix, list(rows), list(rows.values()), empty_cells=causes)


def _filled_rows(sheet: Any) -> Iterator[tuple[int, Any]]:
    """The number and the cells of each row that has a value."""
    for number, cells in enumerate(sheet.iter_rows(), 1):
        values = list(map(_json_value, cells))
        if _filled(values):
            yield number, values


def _is_column(rows: Sequence[tuple[int, Sequence[object]]]) -> bool:
    return all(_filled(cells) <= 1 for _, cells in rows[:2])


def _filled(cells: Sequence[object]) -> int:
    return sum(cell is not None for cell in cells)


def _json_value(cell: Any) -> object:
    """A cell as a JSON value: dates as texts, whole numbers without a fraction."""
    value = cell.value
    if cell.data_type == "e":
        return _ErrorValue(value)
    if isinstance(value, float) and value.is_integer():
        return int(value)
    if value is None or isinstance(value, str | int | float):
        return value
    if isinstance(value, date | time | timedelta):
        return text_of_time(value, cell.number_format or "")
    return str(value)
