"""Tables with `id`, `gold` and `prediction` for each example: JSON Lines, CSV and Parquet.

Optional columns: `cluster` (or `group`), `type`, `subtype`, and `question` for the page. An answer is correct
that equals `gold` by `answer_key`, without thoughts.
"""

from collections.abc import Iterator
from pathlib import Path

from tuneyard.core.language.message import _
from tuneyard.eval.runs.logs import FIELDS, log_reader
from tuneyard.eval.runs.scored_run import Record
from tuneyard.eval.runs.tables import TABLES


@log_reader("plain", _("one example a row"), *TABLES, fields=(FIELDS,))
def plain(path: Path) -> Iterator[Record]:
    """Read a table whose columns have the names of a record. An empty cell of a CSV is none."""
    suffix = path.suffix.lower()
    for record in TABLES[suffix](path):
        if suffix in (".csv", ".tsv"):
            record = {name: cell for name, cell in record.items() if cell != "" or name in FIELDS}
        yield record
