"""Tables of records: JSON Lines, CSV and Parquet, read row by row with the place of each.

A record has the row's values by column, and `place`: the file and the line or row, for messages.
"""

import csv
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from tuneyard.core.documents import json_lines
from tuneyard.core.errors import ContentError, show_value

Records = Iterator[Mapping[str, Any]]
DELIMITERS = (",", ";", "\t")  # spreadsheets save the one of their language
BATCH = 64  # rows of Parquet in memory at once, each with cells as long as LONGEST_CELL
LARGEST_TABLE = 1 << 32  # bytes that a Parquet unpacks to: a file of 1 MB may have one text in a million rows
LONGEST_CELL = 1 << 24  # characters: prompts and answers are longer than the 131,072 that csv allows


def placed_lines(path: Path) -> Records:
    """The objects of JSON Lines. Rows share the names of fields in memory, and models the questions."""
    for number, record in json_lines(path):
        shared = {
            sys.intern(name): sys.intern(value) if isinstance(value, str) else value
            for name, value in record.items()
        }
        yield {**shared, "place": f"{path}:{number}"}


def _csv(path: Path) -> Records:
    """Rows of a CSV."""
    csv.field_size_limit(LONGEST_CELL)  # of the whole process, whatever another reader set
    with path.open(encoding="utf-8-sig", newline="") as file:
        try:
            delimiter = max(DELIMITERS, key=file.readline().count)
            file.seek(0)
            lines = csv.reader(file, delimiter=delimiter, strict=True)
            header = next(lines, [])
            twice = [name for name in header if header.count(name) > 1]
            if twice:
                raise ContentError(f"{path}:1: found the column {show_value(twice[0])} twice: rename one")
            for cells in lines:
                place = f"{path}:{lines.line_num}"
                if not cells:
                    continue
                if len(cells) != len(header):
                    raise ContentError(f"{place}: found {len(cells)} cells, expected {len(header)}")
                yield {"place": place, **dict(zip(header, cells, strict=True))}
        except UnicodeDecodeError as error:  # the file is decoded in blocks: the line is not known
            raise ContentError(f"{path}: not CSV in UTF-8: {error}") from error
        except csv.Error as error:
            raise ContentError(f"{path}:{lines.line_num}: not CSV in UTF-8: {error}") from error


def parquet_rows(path: Path, columns: Sequence[str] | None = None) -> Records:
    """Rows of Parquet, a batch at a time, with some `columns` (`doc.id` inside of `doc`) or all of them."""
    import pyarrow as pa
    from pyarrow import parquet

    number = total = 0
    try:
        for batch in parquet.ParquetFile(path).iter_batches(batch_size=BATCH, columns=columns):
            for column in batch.columns:
                if pa.types.is_dictionary(column.type):
                    column = column.dictionary_decode()
                total += column.nbytes
            if total > LARGEST_TABLE:
                raise ContentError(
                    f"{path}: more than {LARGEST_TABLE >> 30} GiB after row {number}, expected less; "
                    "leave out long columns"
                )
            for record in batch.to_pylist():
                number += 1
                yield {**record, "place": f"{path} row {number}"}
    except (pa.ArrowInvalid, OSError, UnicodeDecodeError, OverflowError) as error:  # the last two of cells
        raise ContentError(
            f"{path}: not Parquet, or damaged after row {number}: {str(error).splitlines()[0]}"
        ) from error


TABLES: dict[str, Callable[[Path], Records]] = {
    ".jsonl": placed_lines,
    ".ndjson": placed_lines,
    ".csv": _csv,
    ".tsv": _csv,
    ".parquet": parquet_rows,
}
"""The records of a table by the suffix of its file."""
