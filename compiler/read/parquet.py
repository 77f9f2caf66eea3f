"""Parquet, batch by batch; places are row numbers (from 1)."""

import io
from collections.abc import Iterator, Sequence
from typing import Any, cast

from compiler.problems import Problems
from compiler.rows import MISSING, Line, walker
from core.errors import Problem

BATCH = 2048


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

    def head(self, count: int) -> "ArrowRows":
        """Return the first rows alone."""
        return ArrowRows(self.prefix, self.lines[:count], self.batch.slice(0, count))  # type: ignore[attr-defined]  # as above


def read_parquet(stream: io.BufferedReader, shown: str, problems: Problems) -> Iterator[ArrowRows]:
    """Yield the rows of a Parquet file; a broken one is a problem."""
    import pyarrow
    import pyarrow.parquet

    source = stream if stream.seekable() else io.BytesIO(stream.read())
    start = 1
    try:
        file = pyarrow.parquet.ParquetFile(source, pre_buffer=False)  # else all groups are read at once
        names = file.schema_arrow.names
        if len(set(names)) < len(names):
            twice = next(name for name in names if names.count(name) > 1)
            problems.bad_file(Problem("E009", shown, "the header names it twice", twice))
            return
        for batch in file.iter_batches(BATCH, use_threads=False):
            yield ArrowRows(f"{shown} row ", range(start, start + batch.num_rows), batch)
            start += batch.num_rows
    except (pyarrow.ArrowException, OSError) as error:
        message = str(error).splitlines()[0]
        problems.bad_file(Problem("E012", f"{shown} row {start}", f"Parquet cannot be read: {message}"))


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
