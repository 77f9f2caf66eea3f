"""Parquet and Arrow, batch by batch; places are row numbers (from 1)."""

import io
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO, cast

from tuneyard.compiler.problems import Problems
from tuneyard.compiler.read import OpenFile, reader, refuse_twice
from tuneyard.compiler.read.spans import WHOLE, Span
from tuneyard.compiler.read.stream import BLOCK, RECORD, Readable, opened, seekable, too_long
from tuneyard.compiler.rows import TableRows
from tuneyard.compiler.spec.file import Source
from tuneyard.core.errors import Problem, show_value

BATCH = 2048
BATCH_BYTES = 1 << 22
PROBE = 16  # rows
PARTS_OF_GROUP = 4  # at most: the rows before a part of a row group are decoded, and then left aside
MAGIC = b"ARROW1"
UNREADABLE = (ValueError, OverflowError, LookupError)
Opened = Callable[[], tuple[Any, Iterator[Any]]]  # a file's schema and record batches


class Unreadable:
    """A value that Python cannot represent: text that is not UTF-8, a date in the year 10000."""

    def __init__(self, kind: str) -> None:
        self.kind = kind

    def __repr__(self) -> str:
        return f"a value that is no valid {self.kind}"


def cut_parquet(path: Readable, source: Source, split: str, size: int) -> Iterator[Span]:
    """Yield row groups, some together, and parts of a large group: reading one means to skip those before."""
    del source, split
    import pyarrow

    try:
        with opened(path, "utf-8", in_order=False) as file:
            table, rows_of_batch = _open_parquet(file)
            groups = [table.metadata.row_group(number) for number in range(table.metadata.num_row_groups)]
    except (pyarrow.ArrowException, OSError, UnicodeDecodeError):
        yield WHOLE  # the reader reports it
        return
    ends: list[int] = []
    end = bytes_waiting = 0
    for group in groups:
        parts = min(max(group.total_byte_size // size, 1), PARTS_OF_GROUP)
        batches = -(-group.num_rows // rows_of_batch)
        step = max(-(-batches // parts), 1) * rows_of_batch
        bytes_waiting += group.total_byte_size
        if parts > 1:
            ends += range(end + step, end + group.num_rows, step)
        end += group.num_rows
        if bytes_waiting >= size:
            ends.append(end)
            bytes_waiting = 0
    yield from _spans_of_rows(ends, end)


def cut_arrow(path: Readable, source: Source, split: str, size: int) -> Iterator[Span]:
    """Yield record batches, some together. A remote file is one part: only reading it finds its batches."""
    del source, split
    import pyarrow

    if not isinstance(path, Path):
        yield WHOLE
        return

    ends: list[int] = []
    end = bytes_waiting = 0
    try:
        with pyarrow.memory_map(str(path)) as mapped:
            is_file = mapped.read(len(MAGIC)) == MAGIC
            mapped.seek(0)
            for batch in _record_batches(mapped, is_file=is_file)[1]:
                end += batch.num_rows
                bytes_waiting += batch.nbytes
                if bytes_waiting >= size:
                    ends.append(end)
                    bytes_waiting = 0
    except (pyarrow.ArrowException, OSError, UnicodeDecodeError):
        yield WHOLE
        return
    yield from _spans_of_rows(ends, end)


def _spans_of_rows(ends: Sequence[int], rows: int) -> Iterator[Span]:
    """Yield the spans that end before these rows, and the last one."""
    start = 0
    for end in ends:
        if start < end < rows:
            yield Span(start, end, first=start + 1, lines=end - start)
            start = end
    yield Span(start, None, first=start + 1, lines=rows - start)


@reader(".parquet", text=False, cut=cut_parquet)
def read_parquet(file: OpenFile, problems: Problems) -> Iterator[TableRows]:
    """Yield the rows of a Parquet file; a broken one is a problem."""
    whole = seekable(file.stream)  # here, since a full disk is no broken file
    yield from _rows("Parquet", partial(_parquet, whole, file.span), file, problems)


@reader(".arrow", text=False, cut=cut_arrow)
def read_arrow(file: OpenFile, problems: Problems) -> Iterator[TableRows]:
    """Yield the rows of an Arrow file, as `datasets` saves it (a stream) or of record batches; as above."""
    yield from _rows("Arrow", partial(_arrow, file.stream, file.span), file, problems)


def _rows(format_name: str, open_table: Opened, file: OpenFile, problems: Problems) -> Iterator[TableRows]:
    import pyarrow

    start = file.span.first
    try:
        schema, batches = open_table()
        str(schema)  # names inside of columns, too
        if refuse_twice(schema.names, file.display_path, problems):
            return
        for batch in batches:
            if batch.nbytes > RECORD:
                for row in range(batch.num_rows):
                    if batch.slice(row, 1).nbytes > RECORD:
                        problems.bad_file(too_long(f"{file.display_path} row {start + row}"))
                        return
            lines = range(start, start + batch.num_rows)
            columns = {name: _values(batch.column(name)) for name in batch.schema.names}
            yield TableRows(f"{file.display_path} row ", lines, columns)
            start += batch.num_rows
        return
    except UnicodeDecodeError as error:
        name = show_value(error.object.decode(errors="backslashreplace"))
        message = f"a column's name is not UTF-8: {name}"
    except (pyarrow.ArrowException, OSError) as error:
        message = f"{format_name} cannot be read: {str(error).splitlines()[0]}"
    problems.bad_file(Problem("E012", f"{file.display_path} row {start}", message))


def _parquet(whole: BinaryIO, span: Span) -> tuple[Any, Iterator[Any]]:
    table, rows = _open_parquet(whole)

    def batches() -> Iterator[Any]:
        first = 0  # row of the group
        for number in range(table.metadata.num_row_groups):
            group_rows = table.metadata.row_group(number).num_rows
            if _overlap(span, first, first + group_rows):
                each = table.iter_batches(rows, row_groups=[number], use_threads=False)
                yield from _of_span(each, span, first)
            first += group_rows

    return table.schema_arrow, batches()


def _overlap(span: Span, first: int, stop: int) -> bool:
    return span.start < stop and (span.stop is None or first < span.stop)


def _of_span(batches: Iterable[Any], span: Span, first: int) -> Iterator[Any]:
    """Yield the batches in a span, of those that begin with the row `first`. Spans end where batches end."""
    for batch in batches:
        if span.stop is not None and first >= span.stop:
            return
        if first >= span.start:
            yield batch
        first += batch.num_rows


def _open_parquet(whole: BinaryIO) -> tuple[Any, int]:
    """An open file, and how many rows its batches have."""
    import pyarrow.parquet

    pyarrow.set_memory_pool(pyarrow.system_memory_pool())  # Arrow's own allocator keeps 30 MB more
    # else all groups are read at once, and a group is held whole
    table = pyarrow.parquet.ParquetFile(whole, pre_buffer=False, buffer_size=BLOCK)
    # Rows of a batch by the average of the file, then by the first ones: values that repeat are stored once.
    size = sum(table.metadata.row_group(n).total_byte_size for n in range(table.metadata.num_row_groups))
    rows = min(max(BATCH_BYTES * table.metadata.num_rows // max(size, 1), 1), BATCH)
    for first in table.iter_batches(min(rows, PROBE), use_threads=False):
        rows = min(rows, max(BATCH_BYTES * int(first.num_rows) // max(int(first.nbytes), 1), 1))
        break
    return table, rows


def _arrow(stream: io.BufferedReader, span: Span) -> tuple[Any, Iterator[Any]]:
    is_file = stream.peek(len(MAGIC)).startswith(MAGIC)
    schema, batches = _record_batches(seekable(stream) if is_file else stream, is_file=is_file)
    chosen = _of_span(batches, span, 0)
    return schema, (batch.slice(at, BATCH) for batch in chosen for at in range(0, batch.num_rows, BATCH))


def _record_batches(source: Any, *, is_file: bool) -> tuple[Any, Iterator[Any]]:
    """The schema of a file of record batches or of a stream of them, and the batches."""
    import pyarrow.ipc

    if is_file:
        whole = pyarrow.ipc.open_file(source)
        return whole.schema, map(whole.get_batch, range(whole.num_record_batches))
    parts = pyarrow.ipc.open_stream(source)
    return parts.schema, iter(parts)


def _values(column: Any) -> Sequence[object]:
    """A column's values. If one of them cannot be read, each is read alone."""
    try:
        return cast("list[object]", column.to_pylist())
    except UNREADABLE:
        return [_value(cell) for cell in column]


def _value(cell: Any) -> object:
    try:
        return cell.as_py()
    except UNREADABLE:
        return Unreadable(str(cell.type))
