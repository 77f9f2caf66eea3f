"""Parquet, batch by batch; places are row numbers (from 1)."""

import io
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from typing import Any, BinaryIO, cast

from compiler.problems import Problems
from compiler.read import OpenFile, reader
from compiler.read.stream import BLOCK, RECORD, TOO_LONG
from compiler.rows import MISSING, Line, walker
from core.datasets import filled
from core.errors import Problem, show_value

BATCH = 2048
BATCH_BYTES = 1 << 22
PROBE = 16  # rows


class Unreadable:
    """Stands for a value that Python cannot hold: text that is no UTF-8, a date after the year 9999."""

    def __init__(self, kind: str) -> None:
        self.kind = kind

    def __repr__(self) -> str:
        return f"a value that is no valid {self.kind}"


class ArrowRows:
    """Rows of an Arrow record batch; columns become Python lists only when they are asked for."""

    typed = True

    def __init__(self, prefix: str, lines: Sequence[Line], batch: object) -> None:
        self.prefix = prefix
        self.lines = lines
        self.batch = batch

    def names(self) -> list[str]:
        """Return the column names."""
        return list(self.batch.schema.names)  # type: ignore[attr-defined]  # a pyarrow RecordBatch, untyped

    def column(self, name: str) -> list[object]:
        """Return a column, or a path into the values of one."""
        head, _, rest = (name, "", "") if name in self.names() else name.partition(".")
        if head not in self.names():
            return [MISSING] * len(self.lines)
        values = _values(self.batch.column(head))  # type: ignore[attr-defined]  # as above
        return list(map(walker(rest), values)) if rest else values

    def row(self, number: int) -> object:
        """Return one row as an object."""
        cells = self.batch.slice(number, 1).columns  # type: ignore[attr-defined]  # as above
        return {name: _values(cell)[0] for name, cell in zip(self.names(), cells, strict=True)}

    def filled(self, name: str) -> list[int]:
        """Return the numbers of the rows in which a column holds something."""
        import pyarrow.compute as pc
        import pyarrow.types as kinds

        column = self.batch.column(name)  # type: ignore[attr-defined]  # as above
        if kinds.is_struct(column.type):  # images lie in such: none is copied only to be counted
            return cast("list[int]", pc.indices_nonzero(column.is_valid()).to_pylist())
        if kinds.is_list(column.type) or kinds.is_large_list(column.type):
            return cast("list[int]", pc.indices_nonzero(pc.list_value_length(column)).to_pylist())
        return filled(_values(column))

    def head(self, count: int) -> "ArrowRows":
        """Return the first rows alone."""
        return ArrowRows(self.prefix, self.lines[:count], self.batch.slice(0, count))  # type: ignore[attr-defined]  # as above


@reader(".parquet", text=False)
def read_parquet(file: OpenFile, problems: Problems) -> Iterator[ArrowRows]:
    """Yield the rows of a Parquet file; a broken one is a problem."""
    import pyarrow
    import pyarrow.parquet

    shown = file.shown
    source = file.stream if file.stream.seekable() else unpacked(file.stream)
    start = 1
    try:
        # else all groups are read at once, and a group is held whole
        table = pyarrow.parquet.ParquetFile(source, pre_buffer=False, buffer_size=BLOCK)
        names = table.schema_arrow.names
        str(table.schema_arrow)  # names inside of columns, too
        if refuse_twice(names, shown, problems):
            return
        for batch in table.iter_batches(_batch_rows(table), use_threads=False):
            if batch.nbytes > RECORD and (long := _too_long(batch)) is not None:
                problems.bad_file(Problem("E014", f"{shown} row {start + long}", TOO_LONG))
                return
            yield ArrowRows(f"{shown} row ", range(start, start + batch.num_rows), batch)
            start += batch.num_rows
    except UnicodeDecodeError as error:
        message = (
            f"a column's name is not UTF-8: {show_value(error.object.decode(errors='backslashreplace'))}"
        )
        problems.bad_file(Problem("E012", f"{shown} row {start}", message))
    except (pyarrow.ArrowException, OSError) as error:
        message = str(error).splitlines()[0]
        problems.bad_file(Problem("E012", f"{shown} row {start}", f"Parquet cannot be read: {message}"))


def refuse_twice(names: Sequence[str], shown: str, problems: Problems) -> bool:
    """Tell whether one column's name is that of another, which is a problem: only one would be read."""
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        problems.bad_file(Problem("E009", shown, "the header names it twice", twice or '""'))
    return twice is not None


def unpacked(stream: io.BufferedReader) -> BinaryIO:
    """Return a file that can be read in any order: a temporary one with the same bytes."""
    file = tempfile.TemporaryFile()  # noqa: SIM115  # goes with the reader that holds it
    shutil.copyfileobj(stream, file)
    return file


def _batch_rows(table: Any) -> int:
    """Return the rows of a batch, by the average and by the first ones: what repeats is stored once."""
    size = sum(table.metadata.row_group(n).total_byte_size for n in range(table.metadata.num_row_groups))
    rows: int = min(max(BATCH_BYTES * table.metadata.num_rows // max(size, 1), 1), BATCH)
    for first in table.iter_batches(min(rows, PROBE), use_threads=False):
        return min(rows, max(BATCH_BYTES * int(first.num_rows) // max(int(first.nbytes), 1), 1))
    return rows


def _too_long(batch: Any) -> int | None:
    sizes = (batch.slice(row, 1).nbytes for row in range(batch.num_rows))
    return next((row for row, size in enumerate(sizes) if size > RECORD), None)


def _values(column: Any) -> list[object]:
    """Return a column's values; each alone where one of them cannot be read."""
    try:
        return cast("list[object]", column.to_pylist())
    except (ValueError, OverflowError):
        return [_value(cell) for cell in column]


def _value(cell: Any) -> object:
    try:
        return cell.as_py()
    except (ValueError, OverflowError):
        return Unreadable(str(cell.type))
