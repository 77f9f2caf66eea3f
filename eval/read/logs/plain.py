"""Tables with `id`, `gold` and `prediction` for each example: JSON Lines, CSV and Parquet.

Optional columns: `cluster` (or `group`), `type`, `subtype`, and `question` for the page. An answer is correct
that equals `gold`.
"""

from collections.abc import Iterator
from pathlib import Path

from tuneyard.core.documents import json_lines
from tuneyard.core.errors import ContentError
from tuneyard.eval.read.logs import FIELDS, Record, csv_records, log_reader


@log_reader("plain", "one example a line", ".jsonl", ".ndjson", fields=(FIELDS,))
def plain_lines(path: Path) -> Iterator[Record]:
    """Read JSON Lines."""
    for number, record in json_lines(path):
        yield {**record, "place": f"{path}:{number}"}


@log_reader("csv", "a table in UTF-8", ".csv", fields=(FIELDS,))
def plain_csv(path: Path) -> Iterator[Record]:
    """Read CSV. An empty cell of an optional column means that the row has none."""
    for record in csv_records(path):
        yield {name: cell for name, cell in record.items() if cell != "" or name in FIELDS}


@log_reader("parquet", "a table", ".parquet", fields=(FIELDS,))
def plain_parquet(path: Path) -> Iterator[Record]:
    """Read Parquet, a batch of rows at a time."""
    import pyarrow as pa
    from pyarrow import parquet

    number = 0
    try:
        for batch in parquet.ParquetFile(path).iter_batches():
            for record in batch.to_pylist():
                number += 1
                yield {**record, "place": f"{path} row {number}"}
    except (pa.ArrowInvalid, OSError) as error:
        raise ContentError(f"{path}: damaged after row {number}: {str(error).splitlines()[0]}") from error
    except (UnicodeDecodeError, OverflowError) as error:  # of a cell: no UTF-8, a date that Python lacks
        raise ContentError(f"{path}: a cell after row {number} cannot be read: {error}") from error
