"""Parquet, batch by batch; places are row numbers (from 1)."""

import io
from collections.abc import Iterator, Sequence

from compiler.problems import Problems
from compiler.rows import MISSING, Line, walker
from core.errors import Problem

BATCH = 2048


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
        values: list[object] = self.batch.column(head).to_pylist()  # type: ignore[attr-defined]  # as above
        return list(map(walker(rest), values)) if rest else values

    def row(self, number: int) -> object:
        """Return one row as an object."""
        return self.batch.slice(number, 1).to_pylist()[0]  # type: ignore[attr-defined]  # as above

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
        for batch in file.iter_batches(BATCH, use_threads=False):
            yield ArrowRows(f"{shown} row ", range(start, start + batch.num_rows), batch)
            start += batch.num_rows
    except (pyarrow.ArrowException, OSError) as error:
        message = str(error).splitlines()[0]
        problems.bad_file(Problem("E012", f"{shown} row {start}", f"Parquet cannot be read: {message}"))
