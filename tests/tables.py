"""Tables of Markdown that we print, by the names of their columns: a new column changes no test of others."""

from dataclasses import dataclass
from itertools import groupby


@dataclass(frozen=True)
class Table:
    """The header, and the cells of each row."""

    header: list[str]
    rows: list[list[str]]

    def cell(self, row: str, column: str) -> str:
        """The cell of the first row whose name begins with this one, in the column of this name."""
        number = next(place for place, name in enumerate(self.header) if is_named(name, column))
        return next(cells for cells in self.rows if cells[0].startswith(row))[number]

    def column(self, name: str) -> list[str]:
        """The cells of a column from above."""
        number = self.header.index(name)
        return [cells[number] for cells in self.rows]

    def has(self, other: "Table") -> bool:
        """True if the columns and rows of another table are here in their order. There may be more."""
        if not all(name in self.header for name in other.header):
            return False
        places = [self.header.index(name) for name in other.header]
        kept = [[cells[place] for place in places] for cells in self.rows]
        return places == sorted(places) and [cells for cells in kept if cells in other.rows] == other.rows


def is_row(line: str) -> bool:
    return line.startswith("|")


def tables_of(text: str) -> list[Table]:
    """The tables of a text, from above. A bar inside of a cell is escaped."""
    tables = []
    for is_table, lines in groupby(text.splitlines(), is_row):
        if is_table:
            header, _line, *rows = [cells_of(line) for line in lines]
            tables.append(Table(header, rows))
    return tables


def cells_of(line: str) -> list[str]:
    parts = line.replace(r"\|", "\0").strip().strip("|").split("|")
    return [part.replace("\0", "|").strip() for part in parts]


def without_tables(text: str) -> str:
    return "\n".join(line for line in text.splitlines() if not is_row(line))


def is_named(header: str, column: str) -> bool:
    """True for a column's header: its name, which a unit or a number of rows may follow."""
    return header == column or header.startswith((f"{column} ", f"{column},"))


def table_with(text: str, column: str) -> Table:
    """The first table that has a column of this name."""
    for table in tables_of(text):
        if any(is_named(name, column) for name in table.header):
            return table
    raise LookupError(f"no table has a column {column}: {[table.header for table in tables_of(text)]}")
