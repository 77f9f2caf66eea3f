"""Parquet and Arrow, batch by batch; places are row numbers (from 1)."""

import io
from collections.abc import Iterable, Iterator
from functools import partial
from itertools import chain
from typing import Any, BinaryIO

from tuneyard.compiler.problems import Problems
from tuneyard.compiler.read import OpenFile, reader, refuse_twice
from tuneyard.compiler.read.stream import BLOCK, UnreadableFileError, seekable
from tuneyard.compiler.rows import ROW, Prefix, TableRows

BATCH = 2048
BATCH_BYTES = 1 << 22
PROBE = 16  # rows
MAGIC = b"ARROW1"
NOT_IN_PYTHON = (ValueError, OverflowError, LookupError)
"""What pyarrow raises at text that is not UTF-8, a date in the year 10000, a time zone of Mars."""


@reader(".parquet", ".arrow", text=False)
def read_columns(file: OpenFile, _: Problems) -> Iterator[TableRows]:
    """Yield the rows of a file of columns; a broken one is a problem."""
    import pyarrow

    open_table = partial(_arrow, file.stream)
    if file.kind == ".parquet":
        open_table = partial(_parquet, seekable(file.stream))  # here, since a full disk is no broken file
    start = 1
    try:
        schema, batches = open_table()
        str(schema)  # names inside of columns, too
        refuse_twice(schema.names, file.display_path)
        for batch in batches:
            lines = range(start, start + batch.num_rows)
            yield TableRows(Prefix(file.display_path, ROW), lines, batch.to_pydict())
            start += batch.num_rows
    except (pyarrow.ArrowException, OSError, *NOT_IN_PYTHON) as error:
        message = f"{file.kind[1:].capitalize()} cannot be read: {str(error).splitlines()[0]}"
        place = f"{file.display_path} row {start}"
        raise UnreadableFileError("E012", message, "export the file again", place) from error


def _parquet(whole: BinaryIO) -> tuple[Any, Iterator[Any]]:
    """The schema and the batches of a Parquet file, a few megabytes each."""
    import pyarrow.parquet

    pyarrow.set_memory_pool(pyarrow.system_memory_pool())  # Arrow's own allocator keeps 30 MB more
    # else all groups are read at once, and a group is held whole
    table = pyarrow.parquet.ParquetFile(whole, pre_buffer=False, buffer_size=BLOCK)
    groups = range(table.metadata.num_row_groups)
    # Rows of a batch by the average of the file, then by the first ones: values that repeat are stored once.
    size = sum(table.metadata.row_group(number).total_byte_size for number in groups)
    rows = _rows_of_batch(table.metadata.num_rows, size)
    first = next(table.iter_batches(min(rows, PROBE), use_threads=False), None)
    if first is not None:
        rows = min(rows, _rows_of_batch(first.num_rows, first.nbytes))
    # one by one: a batch of two groups would hold both
    batches = (table.iter_batches(rows, row_groups=[number], use_threads=False) for number in groups)
    return table.schema_arrow, chain.from_iterable(batches)


def _rows_of_batch(rows: int, size: int) -> int:
    """How many rows a batch has, if so many of them have this size in bytes."""
    return min(max(BATCH_BYTES * rows // max(size, 1), 1), BATCH)


def _arrow(stream: io.BufferedReader) -> tuple[Any, Iterator[Any]]:
    """The schema and the batches of a file as `datasets` saves it (a stream), or of one of record batches."""
    import pyarrow.ipc

    if stream.peek(len(MAGIC)).startswith(MAGIC):
        whole = pyarrow.ipc.open_file(seekable(stream))
        batches: Iterable[Any] = map(whole.get_batch, range(whole.num_record_batches))
    else:
        batches = whole = pyarrow.ipc.open_stream(stream)
    return whole.schema, (
        batch.slice(at, BATCH) for batch in batches for at in range(0, batch.num_rows, BATCH)
    )
