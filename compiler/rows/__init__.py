"""Rows on their way: as read from a file (`ObjectRows`, `TableRows`), then as checked columns (`Batch`).

Rows are consecutive rows of one file, and `prefix` and `line` are the location of each. `typed` is False if
all values are text cells (csv, tsv), so that "7" may mean 7.
"""

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain
from operator import itemgetter
from typing import Any, NamedTuple, Self, TypeGuard

from tuneyard.core.datasets import filled
from tuneyard.core.files import Fields as Fields
from tuneyard.core.language.message import PathText


class InList(NamedTuple):
    """The line of a row in a list that needs its number to be found: `12 rows[3]`, `1 record 7`.

    `before` and `after` are the text on both sides of the number `item`, equal for all rows of a list.
    """

    line: int
    item: int
    before: str
    after: str

    def __str__(self) -> str:
        return f"{self.line} {self.before}{self.item}{self.after}"


class AtKey(NamedTuple):
    """The line of a row at a key of an object: `12 key "faq-7"`. `item` is the number of the key, from 0."""

    line: int
    item: int
    text: str

    def __str__(self) -> str:
        return f"{self.line} {self.text}"


Line = int | str | InList | AtKey
"""The line or the number of a row in its file. A reader of a package may also give a text."""


class Prefix(NamedTuple):
    """The beginning of all locations in a file: its path in messages, and the text before the number."""

    file: str
    between: str = ":"


ROW = " row "
"""`between` for a file that has rows and no lines."""


class Location(PathText):
    """The location of a row as people read it (`file:12`), with the parts by which problems are sorted."""

    __slots__ = ("line", "prefix")

    def __new__(cls, prefix: Prefix, line: Line) -> Self:
        """A location is `prefix` and `line`, one after the other."""
        location = super().__new__(cls, f"{prefix.file}{prefix.between}{line}")
        location.prefix, location.line = prefix, line
        return location

    prefix: Prefix
    line: Line

    def __getnewargs__(self) -> tuple[Prefix, Line]:  # type: ignore[override]  # str's own has the text alone
        return self.prefix, self.line


class _Missing:
    """Marks a field that a row does not have. A field with `null` exists."""

    def __repr__(self) -> str:
        return "missing"


MISSING = _Missing()


class Cells(NamedTuple):
    """Cells of one column: the numbers of their rows, and their values."""

    rows: Sequence[int]
    values: Sequence[object]

    def filled(self) -> "Cells":
        """The cells that are not null and no empty text, list or object."""
        chosen = filled(self.values)
        return Cells([self.rows[at] for at in chosen], [self.values[at] for at in chosen])


@dataclass
class _Located:
    """Rows of one file with their locations: `lines` has the line of each row."""

    prefix: Prefix
    lines: Sequence[Line]

    def location(self, number: int) -> Location:
        """The address of a row, `file:line`."""
        return Location(self.prefix, self.lines[number])


class EmptyCell(NamedTuple):
    """Why a cell of a sheet is empty although it looks filled, and how to fill it."""

    cause: str
    fix: str


@dataclass
class ObjectRows(_Located):
    """JSON objects as read. `empty_cells` are those of a sheet with a cause, by line and column.

    `text_size` is the size of the text that they were read from, None if the reader does not know it.
    """

    rows: list[Fields]
    typed: bool = True
    empty_cells: "dict[tuple[Line, str], EmptyCell]" = field(default_factory=dict)
    text_size: int | None = None
    _names: list[str] = field(default_factory=list, init=False, repr=False, compare=False)

    def names(self) -> list[str]:
        """The keys of all rows, those of the first one first."""
        if not self._names:
            self._names = [*self.rows[0], *sorted(set().union(*self.rows).difference(self.rows[0]))]
        return self._names

    def column(self, name: str) -> list[object]:
        """The values of a field (`a.0.b` walks inwards), `MISSING` where it is not there."""
        try:
            return list(map(itemgetter(name), self.rows))
        except KeyError:
            return list(map(walker(name), self.rows))

    def cells(self, but: Collection[str]) -> "dict[str, Cells]":
        """The cells of each key `but` these, in one pass: every row may have keys that no other row has."""
        all_names = self.names()
        names = [name for name in all_names if name not in but]
        all_rows_have_all_names = sum(map(len, self.rows)) == len(all_names) * len(self.rows)
        if all_rows_have_all_names:  # as in most files
            all_rows = range(len(self.rows))
            return {name: Cells(all_rows, list(map(itemgetter(name), self.rows))) for name in names}
        cells: dict[str, tuple[list[int], list[object]]] = {name: ([], []) for name in names}
        for number, row in enumerate(self.rows):
            for name in row.keys() & cells.keys():
                numbers, values = cells[name]
                numbers.append(number)
                values.append(row[name])
        return {name: Cells(numbers, values) for name, (numbers, values) in cells.items()}

    def row(self, number: int) -> Fields:
        """One raw row."""
        return self.rows[number]


@dataclass
class TableRows(_Located):
    """Columns of equal length as read from csv, tsv or parquet."""

    columns: dict[str, Sequence[object]]
    typed: bool = True
    empty_cells: "dict[tuple[Line, str], EmptyCell]" = field(default_factory=dict)
    text_size: int | None = None

    def names(self) -> list[str]:
        """The names of the columns."""
        return list(self.columns)

    def column(self, name: str) -> list[object]:
        """The values of a field (`a.0.b` walks inwards), `MISSING` where it is not there."""
        if name in self.columns:
            return list(self.columns[name])
        head, _unused, rest = name.partition(".")
        list_name, _unused, position = name.rpartition(".")
        if list_name in self.columns and position.isdecimal():
            head, rest = list_name, position
        if head not in self.columns:
            return [MISSING] * len(self.lines)
        return list(map(walker(rest), self.columns[head]))

    def cells(self, but: Collection[str]) -> "dict[str, Cells]":
        """The cells of each column `but` these."""
        all_rows = range(len(self.lines))
        return {name: Cells(all_rows, values) for name, values in self.columns.items() if name not in but}

    def row(self, number: int) -> Fields:
        """One raw row."""
        return {name: values[number] for name, values in self.columns.items()}


Rows = ObjectRows | TableRows


@dataclass
class Batch(_Located):
    """Rows that passed the checks: one list per column of the spec, all of one length."""

    columns: dict[str, list[Any]]

    def __len__(self) -> int:
        return len(self.lines)

    def keep(self, numbers: Iterable[int]) -> "Batch":
        """A batch of the rows numbered so."""
        chosen = list(numbers)
        columns = {name: [values[i] for i in chosen] for name, values in self.columns.items()}
        return Batch(self.prefix, [self.lines[i] for i in chosen], columns)


def are_objects(value: object) -> TypeGuard[list[Fields]]:
    """True for a list of objects, with at least one of them."""
    return isinstance(value, list) and bool(value) and all(isinstance(item, dict) for item in value)


def without(fields: Mapping[str, object], *keys: str) -> Fields:
    """The fields of an object but these."""
    return {key: value for key, value in fields.items() if key not in keys}


def walker(path: str) -> Callable[[object], object]:
    """A function that follows a path such as `instruction.0.subtype` into a value.

    The name of a column may have dots, also before a position: `label.responses.0`.
    """
    steps = path.split(".")
    list_name, _unused, position = path.rpartition(".")
    is_position = "." in list_name and position.isdecimal()

    def walk(value: object) -> object:
        if isinstance(value, dict) and path in value:
            return value[path]
        if is_position and isinstance(value, dict) and list_name in value:
            items = value[list_name]
            is_inside = isinstance(items, list) and int(position) < len(items)
            return items[int(position)] if is_inside else MISSING
        for step in steps:
            if isinstance(value, dict) and step in value:
                value = value[step]
            elif isinstance(value, list) and step.isdecimal() and int(step) < len(value):
                value = value[int(step)]
            else:
                return MISSING
        return value

    return walk


def taken(rows: Rows, numbers: Sequence[int]) -> Rows:
    """The rows with these numbers."""
    lines = [rows.lines[number] for number in numbers]
    if isinstance(rows, ObjectRows):
        objects = [rows.rows[number] for number in numbers]
        return ObjectRows(rows.prefix, lines, objects, rows.typed, rows.empty_cells)
    columns: dict[str, Sequence[object]] = {}
    for name, values in rows.columns.items():
        columns[name] = [values[number] for number in numbers]
    return TableRows(rows.prefix, lines, columns, rows.typed)


def together(rows: Rows, batches: Sequence[Batch]) -> Batch:
    """Batches of rows as one, in the order of the rows."""
    number_of_line = {line: number for number, line in enumerate(rows.lines)}
    lines = list(chain.from_iterable(batch.lines for batch in batches))
    columns = {
        name: list(chain.from_iterable(batch.columns[name] for batch in batches))
        for name in batches[0].columns
    }
    order = sorted(range(len(lines)), key=lambda position: number_of_line[lines[position]])
    return Batch(rows.prefix, lines, columns).keep(order)
