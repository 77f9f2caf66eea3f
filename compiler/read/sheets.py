"""Excel workbooks: the first sheet that has a header of several columns, with rows below it."""

import contextlib
import io
from collections.abc import Iterator
from itertools import chain, islice, takewhile
from typing import NamedTuple

from tuneyard.compiler.read import OpenFile, reader, refuse_twice
from tuneyard.compiler.read.archives import opened_archive
from tuneyard.compiler.read.cells import CORRECT, NO_VALUE, MergedCell, part_of
from tuneyard.compiler.read.stream import Readable, opened, seekable
from tuneyard.compiler.read.tables import FIELD_COUNT, HEADER_AGAIN, JOINED, REPEATED_HEADER
from tuneyard.compiler.read.workbooks import ErrorValue, Sheet, SheetRow, Workbook, letters_of
from tuneyard.compiler.rows import ROW, EmptyCell, Fields, Line, Location, ObjectRows, Prefix
from tuneyard.compiler.rows.problem_codes import NOT_READ, UNREADABLE_TABLE
from tuneyard.compiler.rows.problems import Problems
from tuneyard.core.errors import Problem, show_value
from tuneyard.core.language.message import _

BATCH = 1000
BATCH_SIZE = 1 << 26
"""The characters of a batch of rows, and eight for each of its cells."""
LOOKED_AT = 100  # rows of each sheet
TITLES = 5  # rows of one cell above the header, at most


def sheet_names(path: Readable) -> list[str]:
    """The names of the sheets of a workbook. `UnreadableFileError` if it cannot be read."""
    with opened(path, "utf-8", in_order=False) as stream, _workbook(stream, str(path)) as book:
        return [sheet.title for sheet in book.sheets]


@reader(".xlsx", text=False)
def read_sheet(file: OpenFile, problems: Problems) -> Iterator[ObjectRows]:
    """Yield the rows of a workbook, read row by row."""
    with _workbook(file.stream, file.display_path) as book:
        sheets = book.sheets
        if file.names:
            by_title = {sheet.title: sheet for sheet in reversed(sheets)}
            sheets = [by_title[name] for name in file.names]
        if not sheets:
            return
        beginnings = {sheet.title: _beginning(book, sheet) for sheet in sheets}
        tables = [sheet for sheet in sheets if beginnings[sheet.title].has_table]
        columns = [sheet for sheet in sheets if beginnings[sheet.title].rows > 1]
        first = (tables or columns or sheets)[0]
        titles = [title for title, each in beginnings.items() if each.rows and title != first.title]
        if titles:
            message = _(
                "only the sheet {title} is read, not {titles}", title=first.title, titles=", ".join(titles)
            )
            hint = _("save each sheet as a file of its own")
            problems.warn(Problem(NOT_READ, file.display_path, message, "", hint))
        yield from _read_rows(book, first, file.display_path, problems)


@contextlib.contextmanager
def _workbook(stream: io.BufferedReader, display_path: str) -> Iterator[Workbook]:
    with opened_archive(seekable(stream), UNREADABLE_TABLE, "workbook") as archive:
        yield Workbook(archive, display_path)


class _Beginning(NamedTuple):
    """How many of the first rows of a sheet have values, and whether one with several has a row below it."""

    rows: int
    has_table: bool


def _beginning(book: Workbook, sheet: Sheet) -> _Beginning:
    count = 0
    has_header = has_table = False
    for row in islice(book.rows(sheet), LOOKED_AT):
        count += 1
        has_table = has_table or has_header
        has_header = has_header or len(row.cells) > 1
    return _Beginning(count, has_table)


def _read_rows(book: Workbook, sheet: Sheet, display_path: str, problems: Problems) -> Iterator[ObjectRows]:
    prefix = Prefix(display_path, ROW)
    filled_rows = book.rows(sheet)
    beginning = list(islice(filled_rows, TITLES + 1))
    titles = list(takewhile(lambda row: len(row.cells) == 1, beginning))
    if len(titles) < len(beginning) and len(beginning[len(titles)].cells) > 2:
        for row in titles:
            (title,) = row.cells.values()
            problems.notes.append(
                _(
                    "{place}: a title, not read: {title}",
                    place=Location(prefix, row.number),
                    title=show_value(title),
                )
            )
        del beginning[: len(titles)]
    filled_rows = chain(beginning, filled_rows)
    header_row = next(filled_rows, None)
    if header_row is None:
        return
    header = _named(header_row)
    refuse_twice(list(header.values()), Location(prefix, header_row.number))
    table = _Table(book, sheet, header, prefix)
    count = size = 0  # since the last batch, also bad rows, which would pile up without one
    for row in filled_rows:
        problem = table.add(row)
        if problem:
            values = {letters_of(column): value for column, value in row.cells.items()}
            problems.bad_row([problem], values)
        size += row.size + 8 * (len(header) + len(row.cells))
        count += 1
        if count == BATCH or size > BATCH_SIZE:
            yield table.batch()
            count = size = 0
    yield table.batch()


def _named(row: SheetRow) -> dict[int, str]:
    """The texts of a row by column, without empty ones."""
    return {column: str(value) for column, value in sorted(row.cells.items()) if value != ""}


class _Table:
    """Rows below a header: good ones become a batch."""

    def __init__(self, book: Workbook, sheet: Sheet, header: dict[int, str], prefix: Prefix) -> None:
        self.book = book
        self.sheet = sheet
        self.header = header
        self.prefix = prefix
        self.empty: Fields = dict.fromkeys(header.values())
        self.merged: dict[int, list[MergedCell]] | None = None
        """By column. None until a row lacks a value."""
        self.rows: dict[Line, Fields] = {}
        self.causes: dict[tuple[Line, str], EmptyCell] = {}

    def batch(self) -> ObjectRows:
        """The rows since the last batch."""
        rows, causes = self.rows, self.causes
        self.rows, self.causes = {}, {}
        return ObjectRows(self.prefix, list(rows), list(rows.values()), empty_cells=causes)

    def add(self, row: SheetRow) -> Problem | None:
        """Take a row, or return why it is none."""
        location = Location(self.prefix, row.number)
        if len(row.cells) >= len(self.header) and _named(row) == self.header:
            return Problem(REPEATED_HEADER, location, HEADER_AGAIN, "", JOINED)
        fields = dict(self.empty)
        for column, value in row.cells.items():
            name = self.header.get(column)
            if name is None:
                message = _(
                    "found {value} in a column that the header does not name", value=show_value(value)
                )
                fix = _("name each column in the first row, and delete the rows above it")
                return Problem(FIELD_COUNT, location, message, "", fix)
            if isinstance(value, ErrorValue):
                self.causes[row.number, name] = EmptyCell(_("the error value {value}", value=value), CORRECT)
            else:
                fields[name] = value
        for column in row.formulas & self.header.keys():
            self.causes[row.number, self.header[column]] = NO_VALUE
        if len(row.cells) < len(self.header):
            self._add_merged(row)
        self.rows[row.number] = fields
        return None

    def _add_merged(self, row: SheetRow) -> None:
        """The causes of cells that are parts of merged cells."""
        if self.merged is None:
            self.merged = self.book.merged(self.sheet, frozenset(self.header))
        for column, merged_cells in self.merged.items():
            if column in row.cells or column in row.formulas:
                continue
            cause = part_of(merged_cells, row.number)
            if cause:
                self.causes[row.number, self.header[column]] = cause
