"""Excel workbooks by openpyxl: the first sheet; its first row is the header."""

import importlib
import zipfile
import zlib
from collections.abc import Iterator
from typing import Any

from compiler.problems import Problems
from compiler.read import OpenFile, reader, refuse_twice
from compiler.read.stream import seekable
from compiler.rows import ObjectRows
from core.errors import Problem, RequestError, show_value

BATCH = 1000


@reader(".xlsx", text=False)
def read_sheet(file: OpenFile, problems: Problems) -> Iterator[ObjectRows]:
    """Yield the rows of a workbook, read row by row; `RequestError` where openpyxl is not installed."""
    try:
        openpyxl: Any = importlib.import_module("openpyxl")
    except ImportError as error:
        fix = "pip install openpyxl, or save the sheet as .csv"
        raise RequestError(f"{file.shown}: reading .xlsx needs openpyxl: {fix}") from error
    try:
        book = openpyxl.load_workbook(seekable(file.stream), read_only=True, data_only=True)
        first, *others = book.worksheets
        if left := [sheet.title for sheet in others if sheet.max_row or sheet.max_column]:
            problems.notes.append(f"{file.shown}: only the first sheet is read, not {', '.join(left)}")
        yield from _rows(first, file.shown, problems)
    except (zipfile.BadZipFile, zlib.error, LookupError, ValueError, SyntaxError) as error:
        problems.bad_file(Problem("E012", f"{file.shown} row 1", f"the workbook cannot be read: {error}"))


def _rows(sheet: Any, shown: str, problems: Problems) -> Iterator[ObjectRows]:
    prefix, header = f"{shown} row ", list[str]()
    rows: list[dict[str, object]] = []
    lines: list[int] = []
    for number, cells in enumerate(sheet.iter_rows(values_only=True), 1):
        if all(cell is None for cell in cells):
            continue
        if not header:
            header = ["" if cell is None else str(cell) for cell in cells]
            if refuse_twice([name for name in header if name], f"{prefix}{number}", problems):
                return
            continue
        names = [*header, *[""] * (len(cells) - len(header))]
        if odd := [cell for name, cell in zip(names, cells, strict=False) if not name and cell is not None]:
            message = f"found {show_value(_plain(odd[0]))} in a column that the header does not name"
            problems.bad_row([Problem("E008", f"{prefix}{number}", message)], list(map(_plain, cells)))
            continue
        rows.append({name: _plain(cell) for name, cell in zip(names, cells, strict=False) if name})
        lines.append(number)
        if len(rows) == BATCH:
            yield ObjectRows(prefix, lines, rows)
            rows, lines = [], []
    if rows:
        yield ObjectRows(prefix, lines, rows)


def _plain(cell: object) -> object:
    """Return a cell as JSON has it: dates as text, whole numbers without a fraction."""
    if isinstance(cell, float) and cell.is_integer():
        return int(cell)
    return cell if cell is None or isinstance(cell, str | int | float) else str(cell)
