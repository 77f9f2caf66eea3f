"""Excel workbooks by openpyxl: the first sheet; its first row is the header."""

import zipfile
import zlib
from collections.abc import Iterator
from itertools import islice
from typing import Any

from tuneyard.compiler.problems import Problems
from tuneyard.compiler.read import OpenFile, reader, refuse_twice
from tuneyard.compiler.read.stream import seekable
from tuneyard.compiler.rows import ObjectRows
from tuneyard.core.errors import Problem, show_value

BATCH = 1000


@reader(".xlsx", text=False)
def read_sheet(file: OpenFile, problems: Problems) -> Iterator[ObjectRows]:
    """Yield the rows of a workbook, read row by row."""
    import openpyxl

    try:
        book = openpyxl.load_workbook(seekable(file.stream), read_only=True, data_only=True)
        first, *others = book.worksheets
        if left := [sheet.title for sheet in others if sheet.max_row or sheet.max_column]:
            problems.notes.append(f"{file.shown}: only the first sheet is read, not {', '.join(left)}")
        yield from _rows(first, file.shown, problems)
    except (zipfile.BadZipFile, zlib.error, LookupError, ValueError, SyntaxError) as error:
        problems.bad_file(Problem("E012", f"{file.shown} row 1", f"the workbook cannot be read: {error}"))


def _rows(sheet: Any, shown: str, problems: Problems) -> Iterator[ObjectRows]:
    prefix = f"{shown} row "
    numbered = enumerate(sheet.iter_rows(values_only=True), 1)
    filled = ((number, cells) for number, cells in numbered if any(cell is not None for cell in cells))
    first, cells = next(filled, (1, ()))
    header = ["" if cell is None else str(cell) for cell in cells]
    if refuse_twice([name for name in header if name], f"{prefix}{first}", problems):
        return
    while some := list(islice(filled, BATCH)):
        rows: dict[int, dict[str, object]] = {}
        for number, cells in some:
            names = [*header, *[""] * (len(cells) - len(header))]
            named = list(zip(names, map(_plain, cells), strict=False))
            if odd := [cell for name, cell in named if not name and cell is not None]:
                message = f"found {show_value(odd[0])} in a column that the header does not name"
                problems.bad_row([Problem("E008", f"{prefix}{number}", message)], list(map(_plain, cells)))
            else:
                rows[number] = {name: cell for name, cell in named if name}
        if rows:
            yield ObjectRows(prefix, list(rows), list(rows.values()))


def _plain(cell: object) -> object:
    """Return a cell as JSON has it: dates as text, whole numbers without a fraction."""
    if isinstance(cell, float) and cell.is_integer():
        return int(cell)
    return cell if cell is None or isinstance(cell, str | int | float) else str(cell)
