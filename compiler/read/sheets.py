"""Excel workbooks by openpyxl: the first sheet; its first row is the header."""

import importlib
import zipfile
import zlib
from collections.abc import Iterator
from typing import Any

from compiler.problems import Problems
from compiler.read import OpenFile, reader
from compiler.read.parquet import unpacked
from compiler.rows import ObjectRows
from core.errors import Problem, RequestError

BATCH = 1000


@reader(".xlsx", text=False)
def read_sheet(file: OpenFile, problems: Problems) -> Iterator[ObjectRows]:
    """Yield the rows of a workbook, read row by row; `RequestError` where openpyxl is not installed."""
    try:
        openpyxl: Any = importlib.import_module("openpyxl")
    except ImportError as error:
        raise RequestError(
            f"{file.shown}: reading .xlsx needs openpyxl: pip install openpyxl, or save the sheet as .csv"
        ) from error
    source = file.stream if file.stream.seekable() else unpacked(file.stream)
    try:
        book = openpyxl.load_workbook(source, read_only=True, data_only=True)
        yield from _rows(book.worksheets[0], f"{file.shown} row ", problems)
    except (zipfile.BadZipFile, zlib.error, LookupError, ValueError, SyntaxError) as error:
        problems.bad_file(Problem("E012", f"{file.shown} row 1", f"the workbook cannot be read: {error}"))


def _rows(sheet: Any, prefix: str, problems: Problems) -> Iterator[ObjectRows]:
    header: list[str] = []
    rows: list[dict[str, object]] = []
    lines: list[int] = []
    for number, cells in enumerate(sheet.iter_rows(values_only=True), 1):
        if all(cell is None for cell in cells):
            continue
        if not header:
            header = ["" if cell is None else str(cell) for cell in cells]
            twice = next((name for name in header if name and header.count(name) > 1), None)
            if twice:
                problems.bad_file(Problem("E009", f"{prefix}{number}", "the header names it twice", twice))
                return
            continue
        rows.append({name: _plain(cell) for name, cell in zip(header, cells, strict=False) if name})
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
