"""Tables with `id`, `gold` and `prediction` for each example: JSON Lines, CSV and Parquet.

Optional columns: `cluster` (or `group`), `type`, `subtype`, and `question` for the page. An answer is correct
that equals `gold`.
"""

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

from tuneyard.core.documents import json_lines
from tuneyard.core.errors import ContentError
from tuneyard.eval.read.logs import LoggedRow, csv_records, log_reader
from tuneyard.eval.read.scored_run import ScoredExample, kinds_of, optional_text
from tuneyard.eval.statistics.rates import group_of

FIELDS = ("id", "gold", "prediction")
QUESTIONS = ("question", "prompt", "instruction", "user", "input")


@log_reader("plain", "one example a line", ".jsonl", ".ndjson", fields=(FIELDS,))
def plain_lines(path: Path) -> Iterator[LoggedRow]:
    """Read JSON Lines."""
    return _rows(path, ((f"{path}:{number}", record) for number, record in json_lines(path)))


@log_reader("csv", "a table in UTF-8", ".csv", fields=(FIELDS,))
def plain_csv(path: Path) -> Iterator[LoggedRow]:
    """Read CSV. An empty cell of an optional column means that the row has none."""
    return _rows(path, ((place, _filled(record)) for place, record in csv_records(path)))


@log_reader("parquet", "a table", ".parquet", fields=(FIELDS,))
def plain_parquet(path: Path) -> Iterator[LoggedRow]:
    """Read Parquet, a batch of rows at a time."""
    return _rows(path, _parquet_records(path))


def _filled(record: Mapping[str, object]) -> dict[str, object]:
    return {name: cell for name, cell in record.items() if cell != "" or name in FIELDS}


def _parquet_records(path: Path) -> Iterator[tuple[str, dict[str, object]]]:
    import pyarrow as pa
    from pyarrow import parquet

    number = 0
    try:
        for batch in parquet.ParquetFile(path).iter_batches():
            for record in batch.to_pylist():
                number += 1
                yield f"{path} row {number}", record
    except (pa.ArrowInvalid, OSError) as error:
        raise ContentError(f"{path}: damaged after row {number}: {str(error).splitlines()[0]}") from error
    except (UnicodeDecodeError, OverflowError) as error:  # of a cell: no UTF-8, a date that Python lacks
        raise ContentError(f"{path}: a cell after row {number} cannot be read: {error}") from error


def _rows(path: Path, records: Iterable[tuple[str, Mapping[str, object]]]) -> Iterator[LoggedRow]:
    for place, record in records:
        row, gold, prediction = (optional_text(record, name) for name in FIELDS)
        if not row or gold is None:
            fields = ", ".join(name for name, value in record.items() if value not in (None, ""))
            raise ContentError(
                f"{place}: expected {', '.join(FIELDS)} in every row, found {fields or 'none'}"
            )
        predicted = prediction or ""
        example = ScoredExample(
            row, gold, predicted, gold == predicted, place, group_of(record), kinds_of(record, gold)
        )
        questions = [optional_text(record, name) for name in QUESTIONS]
        yield LoggedRow(example, path.stem, question="\n".join(text for text in questions if text))
