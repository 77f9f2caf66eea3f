"""Parquet and Arrow, batch by batch; locations are row numbers (from 1)."""

from collections.abc import Iterator
from pathlib import Path

from tuneyard.compiler.read import OpenFile, reader, refuse_twice
from tuneyard.compiler.read.stream import seekable
from tuneyard.compiler.rows import ROW, Prefix, TableRows
from tuneyard.compiler.rows.problem_codes import UNREADABLE_TABLE
from tuneyard.compiler.rows.problems import Problems, UnreadableFileError
from tuneyard.core.files.bounded_columns import arrow_batches, decoded_size, parquet_batches, record_slices
from tuneyard.core.files.bounded_reading import LargeDataError
from tuneyard.core.language.message import _

NOT_IN_PYTHON = (ValueError, OverflowError, LookupError)
"""What pyarrow raises at text that is not UTF-8, a date in the year 10000, a time zone of Mars."""


@reader(".parquet", ".arrow", text=False)
def read_columns(file: OpenFile, _unused: Problems) -> Iterator[TableRows]:
    """Yield the rows of a file of columns; a broken one is a problem."""
    import pyarrow

    whole = seekable(file.stream)  # here, since a full disk is no broken file
    plain_path = file.path if whole is file.stream and isinstance(file.path, Path) else None
    start = 1
    try:
        if file.suffix == ".parquet":
            schema, batches = parquet_batches(whole)
        else:
            schema, batches = arrow_batches(whole, plain_path)
        str(schema)  # names inside of columns, too
        refuse_twice(schema.names, file.display_path)
        for batch in batches:
            for rows in record_slices(batch, start):
                lines = range(start, start + rows.num_rows)
                size = decoded_size(rows)
                yield TableRows(Prefix(file.display_path, ROW), lines, rows.to_pydict(), text_size=size)
                start += rows.num_rows
    except LargeDataError:
        raise
    except (pyarrow.ArrowException, OSError, *NOT_IN_PYTHON) as error:
        message = _(
            "{format} cannot be read: {reason}",
            format=file.suffix[1:].capitalize(),
            reason=str(error).splitlines()[0],
        )
        location = f"{file.display_path} row {start}"
        raise UnreadableFileError(UNREADABLE_TABLE, message, _("export the file again"), location) from error
