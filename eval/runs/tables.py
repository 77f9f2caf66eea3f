"""Tables of records: JSON Lines, CSV and Parquet, read row by row with the place of each.

A record has the row's values by column, and `place`: the file and the line or row, for messages.
"""

import csv
import itertools
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from tuneyard.core.documents import json_lines
from tuneyard.core.errors import ContentError, show_value
from tuneyard.core.files import first_repeated
from tuneyard.core.files.bounded_columns import decoded_size, parquet_batches, record_slices
from tuneyard.core.files.bounded_reading import LARGEST_RECORD, LargeDataError, text_lines, too_large
from tuneyard.core.language.message import _, relative
from tuneyard.eval.statistics.rates import Row

Records = Iterator[Row]
DELIMITERS = (",", ";", "\t")  # spreadsheets save the one of their language
BATCH = 64  # rows of Parquet in memory at once, each with cells as long as LONGEST_CELL
LARGEST_TABLE = 1 << 32  # bytes that a Parquet unpacks to: a file of 1 MB may have one text in a million rows
LONGEST_CELL = LARGEST_RECORD  # characters: prompts and answers are longer than the 131,072 that csv allows


def placed_lines(path: Path) -> Records:
    """The objects of JSON Lines. Rows share the names of fields in memory, and models the questions."""
    file = relative(path)
    for number, record in json_lines(path):
        shared = {
            sys.intern(name): sys.intern(value) if isinstance(value, str) else value
            for name, value in record.items()
        }
        yield {**shared, "place": f"{file}:{number}"}


class _RowText:
    """The lines of a CSV for `csv.reader`, of which one row has `LARGEST_RECORD` characters at most."""

    def __init__(self, path: Path, lines: Iterator[tuple[int, str]]) -> None:
        self.path = path
        self.in_row = 0
        """Characters since the last row; whoever takes a row sets it to 0."""
        self._lines = lines

    def __iter__(self) -> Iterator[str]:
        """Yield the lines. `ContentError` for a row that goes on."""
        for number, line in self._lines:
            self.in_row += len(line)
            if self.in_row > LARGEST_RECORD:
                raise too_large(f"{relative(self.path)}:{number}", _("row"))
            yield line


def csv_rows(
    path: Path, errors: str = "strict", *, longest_cell: int = LONGEST_CELL
) -> Iterator[tuple[int, list[str]]]:
    """Yield (number of its last line, cells) of each row, the header first; the header shows the delimiter.

    `errors` is what to do about bytes that are not UTF-8.
    """
    csv.field_size_limit(longest_cell)  # of the whole process, whatever another reader set
    lines = text_lines(path, errors)
    number, first_line = next(lines, (1, ""))
    text = _RowText(path, itertools.chain([(number, first_line)], lines))
    reader = csv.reader(text, delimiter=max(DELIMITERS, key=first_line.count), strict=errors == "strict")
    try:
        for cells in reader:
            text.in_row = 0
            yield reader.line_num, cells
    except csv.Error as error:
        raise ContentError(
            _(
                "{path}:{line}: not CSV in UTF-8: {error}",
                path=path,
                line=reader.line_num,
                error=error,
            )
        ) from error


def _csv(path: Path) -> Records:
    """Rows of a CSV."""
    rows = csv_rows(path)
    _line, header = next(rows, (1, []))
    twice = first_repeated(header)
    if twice is not None:
        raise ContentError(
            _("{path}:1: found the column {name} twice: rename one", path=path, name=show_value(twice))
        )
    file = relative(path)
    for number, cells in rows:
        place = f"{file}:{number}"
        if not cells:
            continue
        if len(cells) != len(header):
            raise ContentError(
                _(
                    "{place}: found {number} cells, expected {expected}",
                    place=place,
                    number=len(cells),
                    expected=len(header),
                )
            )
        yield {"place": place, **dict(zip(header, cells, strict=True))}


def parquet_rows(path: Path, columns: Sequence[str] | None = None) -> Records:
    """Rows of Parquet, a batch at a time, with some `columns` (`doc.id` inside of `doc`) or all of them."""
    import pyarrow as pa

    file = relative(path)
    number = total = 0
    try:
        with path.open("rb") as table:
            _fields, batches = parquet_batches(table, columns, BATCH)
            for batch in batches:
                total += decoded_size(batch)
                if total > LARGEST_TABLE:
                    raise ContentError(
                        _(
                            "{path}: more than {size} GiB after row {row}, expected less; leave out long "
                            "columns",
                            path=path,
                            size=LARGEST_TABLE >> 30,
                            row=number,
                        )
                    )
                for rows in record_slices(batch, number + 1):
                    for record in rows.to_pylist():
                        number += 1
                        yield {**record, "place": f"{file} row {number}"}
    except LargeDataError as error:
        place = f"{file} {error.place}".rstrip()
        raise ContentError(
            _("{place}: {problem}; write it again in smaller parts", place=place, problem=error.message)
        ) from error
    except (pa.ArrowInvalid, OSError, ValueError, OverflowError) as error:  # the last two of cells
        raise ContentError(
            _(
                "{path}: not Parquet, or damaged after row {number}: {reason}",
                path=path,
                number=number,
                reason=str(error).splitlines()[0],
            )
        ) from error


TABLES: dict[str, Callable[[Path], Records]] = {
    ".jsonl": placed_lines,
    ".ndjson": placed_lines,
    ".csv": _csv,
    ".tsv": _csv,
    ".parquet": parquet_rows,
}
"""The records of a table by the suffix of its file."""
