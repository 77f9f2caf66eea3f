"""What a check sees of the records that it does not write: what a compile finds in its files."""

from array import array
from collections.abc import Iterator, Sequence
from itertools import chain, repeat

import orjson

from tuneyard.compiler.lint.retyped import LINES, RetypedWatch
from tuneyard.compiler.rows import Batch
from tuneyard.compiler.spec.model import Output
from tuneyard.compiler.write.entries import entry_of
from tuneyard.compiler.write.pieces import SEPARATOR
from tuneyard.compiler.write.render import Renderer
from tuneyard.compiler.write.shards import first_records, is_empty, refuse_empty_columns
from tuneyard.core.datasets import shard_name
from tuneyard.core.splits import ROW_TYPE


class RecordWatch:
    """Watches the records of all outputs of a part: texts that are all dates, and columns of shards."""

    def __init__(self) -> None:
        self.retyped = RetypedWatch()
        self._columns: dict[int, EmptyColumns] = {}

    def see(self, number: int, renderer: Renderer, batch: Batch) -> None:
        """Look at a batch of the output with this number."""
        output = renderer.output
        if output.dataset and output.file.endswith(LINES):
            self.retyped.see(renderer, batch, entry_of(renderer.spec, output, output.file)["columns"])
        if output.shards is not None:
            self._columns.setdefault(number, EmptyColumns()).see(renderer.render(batch))

    def join(self, other: "RecordWatch") -> None:
        """Add what was seen in further records."""
        self.retyped.join(other.retyped)
        for number, columns in other._columns.items():
            self._columns.setdefault(number, EmptyColumns()).join(columns)

    def refuse_shards(self, split: str, outputs: Sequence[tuple[int, Output]], order: Sequence[int]) -> None:
        """`ContentError` if shards of rows in this order could not be loaded together, as a compile finds."""
        for number, output in outputs:
            if output.shards is not None and order:
                empty_by_shard = self._columns[number].by_shard(order, output.shards)
                refuse_empty_columns(output.published_name(split), empty_by_shard)


class EmptyColumns:
    """The columns without a value in each row of an output: a byte a row for a column that is ever empty."""

    def __init__(self) -> None:
        self._rows = 0
        self._flags: dict[str, bytearray] = {}
        self._records = array(ROW_TYPE)  # of each row

    def see(self, rendered: Sequence[bytes]) -> None:
        """Look at the records of further rows. Those that are pieces of one row have the same columns."""
        for row, records in enumerate(rendered, self._rows):
            first, *others = records.split(SEPARATOR)
            self._records.append(1 + len(others))
            for column, value in orjson.loads(first).items():
                if is_empty(value):
                    flags = self._flags.setdefault(column, bytearray())
                    flags.extend(bytes(row - len(flags)))
                    flags.append(1)
        self._rows += len(rendered)

    def join(self, other: "EmptyColumns") -> None:
        """Add what was seen in further rows."""
        for column, others in other._flags.items():
            flags = self._flags.setdefault(column, bytearray())
            flags.extend(bytes(self._rows - len(flags)))
            flags.extend(others)
        self._rows += other._rows
        self._records.extend(other._records)

    def by_shard(self, order: Sequence[int], shards: int) -> dict[str, set[str]]:
        """The columns without a value in each of the shards of these rows, by the name of the shard."""
        row_of_record = array(ROW_TYPE, self._rows_of_records(order))
        count = min(shards, len(row_of_record))
        firsts = [*first_records(len(row_of_record), count), len(row_of_record)]
        empty: dict[str, set[str]] = {}
        for number in range(count):
            rows = row_of_record[firsts[number] : firsts[number + 1]]
            columns = {column for column, flags in self._flags.items() if _all_set(flags, rows)}
            empty[shard_name(number, count)] = columns
        return empty

    def _rows_of_records(self, order: Sequence[int]) -> Iterator[int]:
        return chain.from_iterable(repeat(row, self._records[row]) for row in order)


def _all_set(flags: bytearray, rows: Sequence[int]) -> bool:
    """True if each row has its flag. The rows after the last flag have none."""
    return all(row < len(flags) and flags[row] for row in rows)
