"""The size of rows as read, whatever their reader: one row has `LARGEST_RECORD` at most, as a line of JSON.

Readers keep to their own limits before rows are in memory. This one counts what came out of them.
"""

from collections.abc import Iterable, Iterator, Sequence

from tuneyard.compiler.rows import Rows, TableRows
from tuneyard.compiler.rows.problems import Problems
from tuneyard.core.files.bounded_reading import (
    LARGEST_RECORD,
    RUN,
    large_part,
    large_record,
    most_unpacked,
    refuse_expansion,
)
from tuneyard.core.language.message import _

BAD_ROW = 4
"""Times the cost of a row that a row with a problem takes."""
_OTHER = 2
"""Bytes of a number, a null or an empty list: as JSON it has so many with its comma."""


def measured(batches: Iterable[Rows], stored: int, problems: Problems) -> Iterator[Rows]:
    """Yield the rows of a file of `stored` bytes. `LargeDataError` names a row that is too large.

    The same for rows that together take far more than the file: a few bytes may stand for millions of rows.
    """
    row_count = cell_count = size = run_rows = run_size = 0
    bad_rows = problems.bad_rows
    most_of_run = most_unpacked(stored)
    for rows in batches:
        sizes = _batch_size(rows)
        if sizes > LARGEST_RECORD:
            for number in range(len(rows.lines)):
                if size_of(rows.row(number)) > LARGEST_RECORD:
                    raise large_record(rows.location(number))
        size += sizes
        run_rows += len(rows.lines)
        run_size += sizes
        if run_size > most_of_run:
            raise large_part(_("{count:,} rows", count=run_rows), run_size, most_of_run)
        if run_rows >= RUN:
            run_rows = run_size = 0
        row_count += len(rows.lines)
        cell_count += len(rows.lines) * len(rows.columns) if isinstance(rows, TableRows) else 0
        unusable = problems.bad_rows - bad_rows
        refuse_expansion(row_count + BAD_ROW * unusable, cell_count, size, stored)
        yield rows


def _batch_size(rows: Rows) -> int:
    """The size of all rows: that of the text that they were read from, if their reader knows it."""
    if rows.text_size is not None:
        return rows.text_size
    if isinstance(rows, TableRows):
        return sum(map(_size_of_values, rows.columns.values()))
    return _size_of_values(rows.rows)


def _size_of_values(values: Sequence[object]) -> int:
    """The size of several values. Those of a column of texts are counted in one call."""
    if set(map(type, values)) <= {str}:
        return sum(map(len, values))  # type: ignore[arg-type]  # they are texts
    return sum(map(size_of, values))


def size_of(value: object) -> int:
    """The characters of the texts in a value, and `_OTHER` for each other value in it."""
    total = 0
    values = [value]
    while values:
        inner = values.pop()
        if isinstance(inner, str | bytes):
            total += len(inner)
        elif isinstance(inner, dict):
            total += _OTHER + sum(map(len, map(str, inner)))
            values.extend(inner.values())
        elif isinstance(inner, list | tuple):
            total += _OTHER
            values.extend(inner)
        else:
            total += _OTHER
    return total
