"""Parquet and Arrow in bounded memory: how much rows unpack to is known before they are unpacked.

A text of 10 MB is stored once, and a million rows refer to it. A column of nulls takes no bytes at all.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

from tuneyard.core.files.arrow_messages import MAGIC, ArrowMessageError, messages_of
from tuneyard.core.files.bounded_reading import (
    LARGEST_BATCH,
    LARGEST_RECORD,
    LARGEST_RUN,
    RUN,
    large_part,
    large_record,
    refuse_expansion,
)
from tuneyard.core.files.parquet_pages import DELTA_TEXTS, PageError, pages_of
from tuneyard.core.language.message import _, message_of

SMALLEST_CELL = 2  # bytes: as a number and a comma in JSON
ELEMENT_COST = 16
"""Bytes of an element of a list: its value, and two levels that say to which list it belongs."""
MOST_ELEMENTS = LARGEST_RUN // ELEMENT_COST
BATCH = 2048
BATCH_BYTES = 1 << 22
PROBE = 16  # rows
MOST_COPIED = 1 << 23
"""Bytes of a dictionary that is looked into: Arrow copies it twice."""
BUFFER = 1 << 17


def parquet_batches(
    file: BinaryIO, columns: Sequence[str] | None = None, rows: int = BATCH
) -> tuple[Any, Iterator[Any]]:
    """The schema and the record batches of a Parquet file, a few megabytes each, `rows` at most.

    `LargeDataError` for a page, a record or a whole that is too large.
    """
    import pyarrow
    import pyarrow.parquet

    pyarrow.set_memory_pool(pyarrow.system_memory_pool())  # Arrow's own allocator keeps 30 MB more
    table = _open_parquet(file, ())
    return table.schema_arrow, _batches_of_groups(table, file, columns, rows)


def _open_parquet(file: BinaryIO, encoded: tuple[str, ...], metadata: Any = None) -> Any:
    """A Parquet file, of which the `encoded` columns keep their dictionaries."""
    import pyarrow.parquet

    # else all groups are read at once, and a group is held whole
    return pyarrow.parquet.ParquetFile(
        file, pre_buffer=False, buffer_size=BUFFER, read_dictionary=list(encoded), metadata=metadata
    )


def _batches_of_groups(
    table: Any, file: BinaryIO, columns: Sequence[str] | None, most_rows: int
) -> Iterator[Any]:
    metadata = table.metadata
    groups = range(metadata.num_row_groups)
    stored = file.seek(0, 2)
    refuse_expansion(metadata.num_rows, metadata.num_rows * max(metadata.num_columns, 1), 0, stored)
    # Rows of a batch by the average of the file, then by the first ones: values that repeat are stored once.
    size = sum(metadata.row_group(number).total_byte_size for number in groups)
    rows = min(_rows_of_batch(metadata.num_rows, size, BATCH_BYTES), most_rows)
    tables: dict[tuple[str, ...], Any] = {(): table}
    is_first = True
    for number in groups:
        limits = _limits(table, file, number, rows)
        if limits.encoded not in tables:
            tables[limits.encoded] = _open_parquet(file, limits.encoded, metadata)
        group = tables[limits.encoded]
        if is_first:
            some = min(rows, limits.rows, PROBE)
            first = next(
                group.iter_batches(some, row_groups=[number], columns=columns, use_threads=False), None
            )
            if first is not None:
                rows = min(rows, _rows_of_batch(first.num_rows, decoded_size(first), BATCH_BYTES))
                is_first = False
        # one by one: a batch of two groups would hold both
        yield from group.iter_batches(
            min(rows, limits.rows), row_groups=[number], columns=columns, use_threads=False
        )


def _rows_of_batch(rows: int, size: int, most_bytes: int) -> int:
    """How many rows a batch has, if so many of them have this size in bytes."""
    return min(max(most_bytes * rows // max(size, 1), 1), BATCH)


class GroupLimits(NamedTuple):
    """How to read a row group: the most rows at once, and the columns that keep their dictionaries."""

    rows: int
    encoded: tuple[str, ...]


def _limits(table: Any, file: BinaryIO, number: int, usual_rows: int) -> GroupLimits:
    """The limits of a row group, by the headers of its pages. `LargeDataError` for one beyond all limits."""
    group = table.metadata.row_group(number)
    rows = usual_rows
    encoded = []
    for at in range(group.num_columns):
        column = group.column(at)
        about = table.schema.column(at)
        name = column.path_in_schema
        place = _("row group {number}, column {name}", number=number + 1, name=name)
        start = column.data_page_offset
        if column.has_dictionary_page and 0 < column.dictionary_page_offset < start:
            start = column.dictionary_page_offset
        is_nested = about.max_repetition_level > 0
        is_text = about.physical_type == "BYTE_ARRAY"
        values = dictionary = 0
        largest_value = width = about.length if about.physical_type == "FIXED_LEN_BYTE_ARRAY" else 0
        try:
            for page in pages_of(file, start, column.total_compressed_size):
                if page.size > LARGEST_RUN:
                    raise large_part(_("a page"), page.size, place=place)
                if page.is_dictionary:
                    dictionary = max(dictionary, page.size)
                    continue
                values += page.values
                if page.values * width > LARGEST_RUN:  # Arrow makes room for all of them
                    raise large_part(_("a page"), page.values * width, place=place)
                if page.values > 0:
                    rows = min(rows, _rows_of_batch(page.values, page.size, LARGEST_BATCH))
                if page.encoding == DELTA_TEXTS:
                    largest_value = max(largest_value, page.size)
        except PageError as error:
            raise ValueError(_("{place}: {error}", place=place, error=error)) from error
        if is_nested and values > MOST_ELEMENTS:
            elements = _("{number:,} elements of lists", number=values)
            raise large_part(elements, ELEMENT_COST * values, place=place)
        if largest_value:
            rows = min(rows, _rows_of_batch(1, largest_value, LARGEST_BATCH))
        if not is_text or dictionary * (values if is_nested else rows) <= LARGEST_BATCH:
            continue
        if is_nested and dictionary > LARGEST_BATCH:
            raise large_part(_("a dictionary"), dictionary, LARGEST_BATCH, place)
        if is_nested:
            encoded.append(name)
            continue
        largest = dictionary
        if dictionary <= MOST_COPIED:
            largest = _largest_in_dictionary(table, file, number, name)
        rows = min(rows, _rows_of_batch(1, largest, LARGEST_BATCH))
    return GroupLimits(rows, tuple(encoded))


def _largest_in_dictionary(table: Any, file: BinaryIO, number: int, name: str) -> int:
    """The bytes of the largest text in the dictionary of a column, of which one row is read."""
    import pyarrow

    group = _open_parquet(file, (name,), table.metadata)
    batch = next(group.iter_batches(1, row_groups=[number], columns=[name], use_threads=False), None)
    if batch is None:
        return 0
    values = batch.column(0)
    while not pyarrow.types.is_dictionary(values.type):
        values = values.field(0)  # a column inside of objects
    return _largest(values.dictionary)


def arrow_batches(file: BinaryIO, path: Path | None = None) -> tuple[Any, Iterator[Any]]:
    """The schema and the record batches of Arrow data: a stream as `datasets` saves it, or a file.

    `path` is the file itself if it is a plain one: large batches are mapped into memory then, not read.
    `LargeDataError` for a batch that unpacks to more than `LARGEST_RUN`.
    """
    import pyarrow.ipc

    largest = rows = cells = 0
    try:
        for message in messages_of(file):
            if not message.is_dictionary:
                rows += message.rows
                cells += message.rows * message.columns
            is_mapped = path is not None and not message.is_packed
            if message.size > LARGEST_RUN and not is_mapped:
                part = _("a dictionary")
                if not message.is_dictionary:
                    part = _("a batch of {number:,} rows", number=message.rows)
                raise large_part(part, message.size)
            largest = max(largest, message.size)
    except ArrowMessageError as error:
        raise ValueError(message_of(error)) from error
    stored = file.seek(0, 2)
    refuse_expansion(rows, cells, 0, stored)
    file.seek(0)
    is_file = file.read(len(MAGIC)) == MAGIC
    file.seek(0)
    source: Any = file
    if path is not None and largest > LARGEST_BATCH:
        source = pyarrow.memory_map(str(path))
    if is_file:
        whole = pyarrow.ipc.open_file(source)
        batches: Iterator[Any] = map(whole.get_batch, range(whole.num_record_batches))
    else:
        batches = whole = pyarrow.ipc.open_stream(source)
    return whole.schema, _valid_slices(batches)


def _valid_slices(batches: Iterator[Any]) -> Iterator[Any]:
    """Some rows of each batch at a time. Places inside of the data are checked: nothing else does."""
    for batch in batches:
        batch.validate(full=True)
        for at in range(0, batch.num_rows, BATCH):
            yield batch.slice(at, BATCH)


def record_slices(batch: Any, start: int) -> Iterator[Any]:
    """Cut a batch whose first row is number `start`, so that each slice unpacks to `LARGEST_RECORD` or less.

    `LargeDataError` for a row that alone is larger, and for a run of rows beyond `LARGEST_RUN`.
    """
    size = decoded_size(batch)
    if size <= LARGEST_RECORD:
        yield _without_dictionaries(batch)
        return
    rows = batch.num_rows
    if rows == 1:
        raise large_record(_("row {row}", row=start))
    if rows <= RUN and size > LARGEST_RUN:
        raise large_part(_("{count:,} rows", count=rows), size, place=_("row {row}", row=start))
    half = rows // 2
    yield from record_slices(batch.slice(0, half), start)
    yield from record_slices(batch.slice(half), start + half)


def _without_dictionaries(batch: Any) -> Any:
    """The same rows with plain columns, which pyarrow turns into Python's values several times faster."""
    import pyarrow as pa

    columns = []
    for column in batch.columns:
        if pa.types.is_dictionary(column.type):
            column = column.dictionary_decode()
        columns.append(column)
    return pa.RecordBatch.from_arrays(columns, names=batch.schema.names) if columns else batch


def decoded_size(batch: Any) -> int:
    """The bytes of a batch's values, with those that repeat counted as often as they are there."""
    return sum(map(_size, batch.columns))


def _size(array: Any) -> int:
    """The bytes of the values of an array, `SMALLEST_CELL` at least for each."""
    import pyarrow as pa
    import pyarrow.compute as pc

    kind, count = array.type, len(array)
    if count == 0:
        return 0
    least = SMALLEST_CELL * count
    if pa.types.is_dictionary(kind):
        if _has_lengths(kind.value_type):
            lengths = pc.binary_length(array.dictionary).take(array.indices)
            return least + (pc.sum(lengths).as_py() or 0)
        return least + count * _largest(array.dictionary)
    if _has_lengths(kind):
        return least + (pc.sum(pc.binary_length(array)).as_py() or 0)
    if pa.types.is_string_view(kind) or pa.types.is_binary_view(kind):
        return least + sum(_view_lengths(array))
    if pa.types.is_struct(kind):
        return least + sum(map(_size, array.flatten()))
    if pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind):
        return least + _size(array.flatten())
    if pa.types.is_map(kind):
        offsets = array.offsets
        first, last = offsets[0].as_py(), offsets[-1].as_py()
        count = last - first
        return least + _size(array.keys.slice(first, count)) + _size(array.items.slice(first, count))
    if pa.types.is_list_view(kind) or pa.types.is_large_list_view(kind):
        lengths = array.value_lengths()
        return least + (pc.sum(lengths).as_py() or 0) * max(_largest(array.values), SMALLEST_CELL)
    if pa.types.is_run_end_encoded(kind):
        return least + count * _largest(array.values)
    if pa.types.is_union(kind):
        return least + count * max(_largest(array.field(at)) for at in range(kind.num_fields))
    if isinstance(array, pa.ExtensionArray):
        return _size(array.storage)
    return least


def _has_lengths(kind: Any) -> bool:
    import pyarrow as pa

    return bool(
        pa.types.is_string(kind)
        or pa.types.is_binary(kind)
        or pa.types.is_large_string(kind)
        or pa.types.is_large_binary(kind)
        or pa.types.is_fixed_size_binary(kind)
    )


def _view_lengths(array: Any) -> Iterator[int]:
    """The lengths of texts that are kept anywhere: the first of the four numbers of each."""
    views = memoryview(array.buffers()[1]).cast("B").cast("i")
    for at in range(array.offset, array.offset + len(array)):
        yield views[4 * at]


def _largest(array: Any) -> int:
    """The bytes of the largest value of an array."""
    import pyarrow.compute as pc

    if len(array) == 0:
        return 0
    if _has_lengths(array.type):
        return pc.max(pc.binary_length(array)).as_py() or 0
    return max(_size(array.slice(at, 1)) for at in range(len(array)))
