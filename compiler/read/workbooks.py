"""A workbook (.xlsx), row by row in bounded memory: its sheets, their rows, and the values of their cells.

A part of a workbook is a file in a zip archive (ECMA-376). A row without cells takes no memory, whatever its
number. openpyxl, which keeps all parts in memory, serves for dates alone.
"""

import posixpath
import re
import sys
import zipfile
from collections.abc import Iterator
from datetime import date, datetime, time, timedelta
from functools import cached_property
from typing import NamedTuple

from tuneyard.compiler.read.cells import MergedCell, text_of_time
from tuneyard.compiler.read.stream import too_long
from tuneyard.compiler.read.xml_parts import broken, parse, refuse_large
from tuneyard.core.errors import show_value
from tuneyard.core.files.bounded_reading import LARGEST_RECORD
from tuneyard.core.language.message import _

MOST_ROWS = 1 << 20
"""The rows of a sheet in Excel, and the most formats of cells that are read."""
MOST_COLUMNS = 1 << 14
MOST_STRINGS = 8 * MOST_ROWS
LARGEST_STRINGS = 1 << 30  # bytes in memory of all shared texts
MOST_OTHERS = MOST_ROWS
"""The most elements of a row, or between two rows, that are no parts of cells: formats of texts, say."""
MOST_MERGED = 4 * MOST_ROWS  # columns of all merged cells
LONGEST_FORMAT = 255  # characters of a number format in Excel
CONTENT_TYPES = "[Content_Types].xml"
_WORKBOOKS = re.compile(r"(sheet|template)(\.macroEnabled)?\.main\+xml$")
_LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
_REFERENCE = re.compile(r"\$?([A-Za-z]{1,3})\$?[0-9]{1,7}", re.ASCII)
_RANGE = re.compile(r"([A-Z]{1,3})([0-9]{1,7})(?::([A-Z]{1,3})([0-9]{1,7}))?", re.ASCII)


class ErrorValue(str):
    """What a sheet shows for a formula that failed: `#N/A`. As a header or a title it is text."""


class SheetRow(NamedTuple):
    """A row with values: its number from 1, its values by column from 1, and its size in characters.

    `formulas` are the columns of formulas without a computed value.
    """

    number: int
    cells: dict[int, object]
    formulas: frozenset[int]
    size: int


class NumberFormat(NamedTuple):
    """How cells of a style show numbers, and whether these are dates or durations."""

    code: str = "General"
    is_moment: bool = False
    is_duration: bool = False


class Sheet(NamedTuple):
    """The title of a sheet, and its part in the archive."""

    title: str
    path: str


class Workbook:
    """A workbook as it is read. Errors name `location`, and a row of a sheet if they are in one."""

    def __init__(self, archive: zipfile.ZipFile, location: str) -> None:
        """Read the list of sheets. `UnreadableFileError` for a damaged workbook."""
        self.archive = archive
        self.location = location
        types = self._elements(CONTENT_TYPES, "Override")
        self._parts = {each.get("ContentType", ""): each.get("PartName", "")[1:] for each in types}
        main = [path for kind, path in self._parts.items() if _WORKBOOKS.search(kind)]
        self._main = main[0] if main else "xl/workbook.xml"
        self.sheets = self._read_sheets()

    def _read_sheets(self) -> list[Sheet]:
        folder, name = posixpath.split(self._main)
        targets = {}
        for each in self._elements(f"{folder}/_rels/{name}.rels", "Relationship"):
            if each.get("Type", "").endswith("/worksheet"):
                target = posixpath.normpath(posixpath.join("/", folder, each.get("Target", "")))
                targets[each.get("Id", "")] = target[1:]
            elif each.get("Type", "").endswith("/chartsheet"):
                targets[each.get("Id", "")] = ""
        sheets = []
        titles: dict[str, str] = {}
        names = set(self.archive.namelist())
        for attributes in self._elements(self._main, "sheet"):
            title = attributes.get("name", "")
            identity = next((value for key, value in attributes.items() if key.endswith(":id")), "")
            path = targets.get(identity)
            if path == "":  # a chart alone
                continue
            if path is None or path not in names:
                missing = path or _("no part {identity}", identity=identity)
                raise broken(
                    self.location,
                    _(
                        "the sheet {title} names {missing}, which is missing",
                        title=show_value(title),
                        missing=missing,
                    ),
                )
            if path in titles:
                message = _(
                    "the sheets {titles} and {title} are one part, {path}",
                    titles=show_value(titles[path]),
                    title=show_value(title),
                    path=path,
                )
                raise broken(self.location, message)
            titles[path] = title
            sheets.append(Sheet(title, path))
        return sheets

    def _elements(self, path: str, name: str) -> list[dict[str, str]]:
        """The attributes of all elements of this name in a small part."""
        refuse_large(self.archive, path, self.location)
        handlers = _Elements(name, self.location)
        for _unused in parse(self.archive, path, handlers, lambda: self.location):
            pass
        return handlers.attributes

    def rows(self, sheet: Sheet) -> Iterator[SheetRow]:
        """Yield the rows that have a value."""
        handlers = _Rows(self, sheet)
        for _unused in parse(self.archive, sheet.path, handlers, handlers.location):
            yield from handlers.rows
            handlers.rows.clear()

    def merged(self, sheet: Sheet, columns: frozenset[int]) -> dict[int, list[MergedCell]]:
        """The merged cells in each of these columns that has one, sorted."""
        handlers = _MergedCells(columns, self.location)
        for _unused in parse(self.archive, sheet.path, handlers, lambda: self.location):
            pass
        for merged_cells in handlers.merged.values():
            merged_cells.sort()
        return handlers.merged

    @cached_property
    def strings(self) -> list[str]:
        """The texts that cells share, by their number."""
        for kind, path in self._parts.items():
            if kind.endswith("sharedStrings+xml"):
                handlers = _Strings(self.location)
                for _unused in parse(self.archive, path, handlers, lambda: self.location):
                    pass
                return handlers.strings
        return []

    @cached_property
    def formats(self) -> list[NumberFormat]:
        """The number formats of cells, by the number of their style."""
        from openpyxl.styles.numbers import BUILTIN_FORMATS, is_date_format, is_timedelta_format

        path = next((path for kind, path in self._parts.items() if kind.endswith("styles+xml")), "")
        if path not in self.archive.namelist():
            return []
        refuse_large(self.archive, path, self.location)
        handlers = _Formats(self.location)
        for _unused in parse(self.archive, path, handlers, lambda: self.location):
            pass
        formats = {}
        for number, code in {**BUILTIN_FORMATS, **handlers.codes}.items():
            formats[number] = NumberFormat(code, is_date_format(code), is_timedelta_format(code))
        return [formats.get(number, NumberFormat()) for number in handlers.numbers]

    @cached_property
    def epoch(self) -> datetime:
        """The day 0 of this workbook's dates: Excel for Mac began in 1904."""
        for attributes in self._elements(self._main, "workbookPr"):
            if attributes.get("date1904") in ("1", "true", "on"):
                return datetime(1904, 1, 1)
        return datetime(1899, 12, 30)


class _Ignoring:
    """Handlers that take nothing."""

    has_ended = False

    def __init__(self, location: str) -> None:
        self.location_of_file = location

    def start(self, name: str, attributes: dict[str, str]) -> None:
        """Ignore it."""

    def end(self, name: str) -> None:
        """Ignore it."""

    def text(self, text: str) -> None:
        """Ignore it."""


class _Elements(_Ignoring):
    """The attributes of the elements of one name, some thousands at most."""

    most = 100_000

    def __init__(self, name: str, location: str) -> None:
        super().__init__(location)
        self.name = name
        self.attributes: list[dict[str, str]] = []

    def start(self, name: str, attributes: dict[str, str]) -> None:
        """Keep the attributes of an element of that name."""
        if name != self.name:
            return
        self.attributes.append(attributes)
        if len(self.attributes) > self.most:
            message = _(
                "found more than {most:,} {name}s, expected one for each sheet", most=self.most, name=name
            )
            raise broken(self.location_of_file, message)


class _Texts(_Ignoring):
    """The text of an element, without that for reading it aloud (`rPh`); it is refused above 16 MiB."""

    def __init__(self, location: str) -> None:
        super().__init__(location)
        self.pieces: list[str] | None = None
        self.size = 0
        self.is_phonetic = False

    def location(self) -> str:
        """The location of the text that is being read."""
        return self.location_of_file

    def text(self, text: str) -> None:
        """Keep a piece of a text that is wanted."""
        if self.pieces is None:
            return
        self.size += len(text)
        if self.size > LARGEST_RECORD:
            raise too_long(self.location())
        self.pieces.append(text)


class _Strings(_Texts):
    """The shared texts. All of them together take `LARGEST_STRINGS` at most."""

    def __init__(self, location: str) -> None:
        super().__init__(location)
        self.strings: list[str] = []
        self.parts: list[str] = []
        self.total = 0

    def location(self) -> str:
        """The number of the text from 1."""
        return f"{self.location_of_file}, shared text {len(self.strings) + 1}"

    def start(self, name: str, attributes: dict[str, str]) -> None:  # noqa: ARG002  as all handlers
        """A text begins, or a piece of it."""
        if name == "t" and not self.is_phonetic:
            self.pieces = self.parts
        elif name == "si":
            self.parts = []
            self.size = 0
        elif name == "rPh":
            self.is_phonetic = True

    def end(self, name: str) -> None:
        """A text ends."""
        if name == "t":
            self.pieces = None
        elif name == "si":
            text = "".join(self.parts).replace("x005F_", "")
            self.strings.append(text)
            self.total += sys.getsizeof(text)
            if self.total > LARGEST_STRINGS or len(self.strings) > MOST_STRINGS:
                message = _(
                    "found {number:,} shared texts of {size:,} bytes and more, expected at "
                    "most {most_texts:,} of {most_bytes:,} bytes",
                    number=len(self.strings),
                    size=self.total,
                    most_texts=MOST_STRINGS,
                    most_bytes=LARGEST_STRINGS,
                )
                raise broken(self.location_of_file, message, _("export the rows as CSV"))
        elif name == "rPh":
            self.is_phonetic = False


class _Formats(_Ignoring):
    """The number formats: their own codes by number, and the number of each style of cells."""

    def __init__(self, location: str) -> None:
        super().__init__(location)
        self.codes: dict[int, str] = {}
        self.numbers: list[int] = []
        self.is_of_cells = False

    def start(self, name: str, attributes: dict[str, str]) -> None:
        """A format begins, or the list of styles."""
        if name == "cellXfs":
            self.is_of_cells = True
        elif name == "xf" and self.is_of_cells:
            self.numbers.append(int(attributes.get("numFmtId", "0")))
        elif name == "numFmt":
            code = attributes.get("formatCode", "General")
            if len(code) > LONGEST_FORMAT:
                length = _("{number:,} characters", number=len(code))
                message = _(
                    "found a number format of {length}, expected at most {most}",
                    length=length,
                    most=LONGEST_FORMAT,
                )
                raise broken(self.location_of_file, message)
            self.codes[int(attributes.get("numFmtId", "0"))] = code
        if len(self.numbers) > MOST_ROWS or len(self.codes) > MOST_ROWS:
            raise broken(
                self.location_of_file,
                _("found more than {most:,} formats of cells", most=MOST_ROWS),
            )

    def end(self, name: str) -> None:
        """The list of styles ends."""
        if name == "cellXfs":
            self.is_of_cells = False


class _MergedCells(_Ignoring):
    """The merged cells of a sheet in these columns."""

    def __init__(self, columns: frozenset[int], location: str) -> None:
        super().__init__(location)
        self.columns = sorted(columns)
        self.others = 0
        self.merged: dict[int, list[MergedCell]] = {}
        self.count = 0

    def start(self, name: str, attributes: dict[str, str]) -> None:
        """Keep the rows of a merged cell in each of the columns."""
        if name == "row":
            self.others = 0
        if name != "mergeCell":
            self.others += 1
            if self.others > MOST_OTHERS:
                message = _(
                    "found more than {most:,} elements before its merged cells",
                    most=MOST_OTHERS,
                )
                raise broken(self.location_of_file, message)
            return
        reference = _RANGE.fullmatch(attributes.get("ref", ""))
        if not reference:
            text = show_value(attributes.get("ref", ""))
            raise broken(
                self.location_of_file, _("found a merged cell {text}, expected one such as A1:B2", text=text)
            )
        first_letters, first_row, last_letters, last_row = reference.groups()
        first, last = int(first_row), int(last_row or first_row)
        first_column, last_column = _number(first_letters), _number(last_letters or first_letters)
        for column in self.columns:
            if first_column <= column <= last_column:
                self.merged.setdefault(column, []).append(MergedCell(first, last, reference[0]))
                self.count += 1
        if self.count > MOST_MERGED:
            message = _("its merged cells have more than {most:,} columns", most=MOST_MERGED)
            raise broken(self.location_of_file, message, _("unmerge them, or export the rows as CSV"))

    def end(self, name: str) -> None:
        """The list of merged cells ends."""
        if name == "mergeCells":
            self.has_ended = True


class _Rows(_Texts):
    """The rows of a sheet. `rows` has those that ended since it was emptied."""

    def __init__(self, book: Workbook, sheet: Sheet) -> None:
        super().__init__(book.location)
        self.book = book
        self.sheet = sheet
        self.rows: list[SheetRow] = []
        self.number = 0
        self.columns: dict[str, int] = {}
        """The columns of letters that came before."""
        self._begin_row()
        self._begin_cell({})

    def location(self) -> str:
        """The row that is being read."""
        return f"{self.location_of_file} row {max(self.number, 1)}"

    def _begin_row(self) -> None:
        self.cells: dict[int, object] = {}
        self.formulas: set[int] = set()
        self.column = 0
        self.size = 0
        self.others = 0

    def _begin_cell(self, attributes: dict[str, str]) -> None:
        self.kind = attributes.get("t", "n")
        self.style = attributes.get("s", "0")
        self.value: str | None = None
        self.inline: list[str] | None = None
        self.has_formula = False
        self.pieces = None

    def start(self, name: str, attributes: dict[str, str]) -> None:
        """A row, a cell or a part of a cell begins."""
        if name == "c":
            self._begin_cell(attributes)
            self._find_column(attributes.get("r"))
        elif name == "v":
            self.pieces = []
        elif name == "row":
            self._find_row(attributes.get("r"))
        elif name == "t":
            if self.inline is not None and not self.is_phonetic:
                self.pieces = self.inline
        elif name == "f":
            self.has_formula = True
        elif name == "is":
            self.inline = []
        elif name == "rPh":
            self.is_phonetic = True
        else:
            self.others += 1
            if self.others > MOST_OTHERS:
                raise broken(
                    self.location(),
                    _("found more than {most:,} elements that are no cells", most=MOST_OTHERS),
                )

    def end(self, name: str) -> None:
        """A part of a cell, a cell or a row ends."""
        if name == "c":
            self._end_cell()
        elif name == "v":
            if self.pieces is not None:
                self.value = "".join(self.pieces)
            self.pieces = None
        elif name == "row":
            if self.cells:
                self.rows.append(SheetRow(self.number, self.cells, frozenset(self.formulas), self.size))
            self._begin_row()
        elif name == "t":
            self.pieces = None
        elif name == "rPh":
            self.is_phonetic = False
        elif name == "sheetData":
            self.has_ended = True

    def _find_row(self, written: str | None) -> None:
        before = self.number
        if written is None:
            self.number += 1
        else:
            self.number = int(written) if written.isdecimal() else int(float(written))
        if not before < self.number <= MOST_ROWS:
            number, self.number = self.number, before
            message = _(
                "found row {number:,} after it, expected a larger number, {most:,} at most",
                number=number,
                most=MOST_ROWS,
            )
            raise broken(self.location(), message)

    def _find_column(self, reference: str | None) -> None:
        if reference is None:
            self.column += 1
        else:
            letters = reference.rstrip("0123456789")
            column = self.columns.get(letters)
            if column is None:
                match = _REFERENCE.fullmatch(reference)
                if not match:
                    message = _(
                        "found a cell {reference}, expected one such as B2", reference=show_value(reference)
                    )
                    raise broken(self.location(), message)
                column = _number(match[1])
                if column <= MOST_COLUMNS:
                    self.columns[letters] = column
            self.column = column
        if self.column > MOST_COLUMNS:
            message = _(
                "found a cell in column {column:,}, expected {most:,} columns at most",
                column=self.column,
                most=MOST_COLUMNS,
            )
            raise broken(self.location(), message)

    def _end_cell(self) -> None:
        value = self._value()
        if value is not None:
            self.cells[self.column] = value
        elif self.has_formula and self.inline is None and not self.value and self.kind != "str":
            self.formulas.add(self.column)

    def _value(self) -> object:
        """The value of the cell as JSON has it; None for an empty cell."""
        if self.kind == "inlineStr":
            return None if self.inline is None else "".join(self.inline)
        text = self.value
        if not text:
            return None
        if self.kind == "n":
            return self._number_value(text)
        if self.kind == "s":
            return self._shared(text)
        if self.kind == "e":
            return ErrorValue(text)
        if self.kind == "b":
            return bool(int(text))
        if self.kind == "d":
            from openpyxl.utils.datetime import from_ISO8601

            return text_of_time(from_ISO8601(text), self._format().code)
        return text

    def _shared(self, text: str) -> str:
        index = int(text)
        strings = self.book.strings
        if not 0 <= index < len(strings):
            message = _("found the shared text {index:,}, of {total:,}", index=index + 1, total=len(strings))
            raise broken(self.location(), message)
        shared = strings[index]
        self.size += len(shared)
        if self.size > LARGEST_RECORD:
            raise too_long(self.location())
        return shared

    def _number_value(self, text: str) -> object:
        """A number, or the date that it stands for in this style. Whole numbers have no fraction."""
        is_float = "." in text or "E" in text or "e" in text
        number = float(text) if is_float else int(text)
        if self.style != "0":
            moment = self._moment(number)
            if moment is not None:
                return moment
        if isinstance(number, float) and number.is_integer():
            return int(number)
        return number

    def _moment(self, number: float) -> str | None:
        """The text of a date, a time or a duration; None if the style is that of a number."""
        number_format = self._format()
        if not number_format.is_moment:
            return None
        from openpyxl.utils.datetime import from_excel

        try:
            moment: date | time | timedelta = from_excel(number, self.book.epoch, number_format.is_duration)
        except (OverflowError, ValueError):
            return ErrorValue("#VALUE!")  # as Excel shows a date before 1900
        return text_of_time(moment, number_format.code)

    def _format(self) -> NumberFormat:
        """The number format of the cell's style."""
        formats = self.book.formats
        index = int(self.style)
        if not formats:
            return NumberFormat()
        if not 0 <= index < len(formats):
            raise broken(
                self.location(),
                _(
                    "found the style {index:,}, expected one of {total:,}",
                    index=index,
                    total=len(formats),
                ),
            )
        return formats[index]


def _number(letters: str) -> int:
    """The number of a column from 1: B is 2, AA is 27."""
    number = 0
    for letter in letters.upper():
        number = number * 26 + _LETTERS.index(letter) + 1
    return number


def letters_of(column: int) -> str:
    """The letters of a column: 27 is AA."""
    letters = ""
    while column:
        column, rest = divmod(column - 1, 26)
        letters = _LETTERS[rest] + letters
    return letters
