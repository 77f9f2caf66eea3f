"""Tables with `id`, `gold` and `prediction` for each example: JSON Lines, CSV and Parquet.

Optional columns: `cluster` (or `group`), `type`, `subtype`, and `question` for the page. An answer is correct
that equals `gold`.
"""

from collections.abc import Iterator
from pathlib import Path

from tuneyard.eval.read.logs import FIELDS, TABLES, Record, log_reader


@log_reader("plain", "one example a row", *TABLES, fields=(FIELDS,))
def plain(path: Path) -> Iterator[Record]:
    """Read a table whose columns have the names of a record."""
    return TABLES[path.suffix.lower()](path)
