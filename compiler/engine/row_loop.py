"""The one loop over the rows of a source file: read → check → filter → one type for each column.

A compile renders and writes what the loop yields, `data show` prints a row of it on its way. `data init`,
which has no spec yet, takes the rows as they are read.
"""

from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import NamedTuple

from tuneyard.compiler.check.checker import Checker, LateColumnError, TextIdError, Types
from tuneyard.compiler.check.filters import RowFilter
from tuneyard.compiler.check.unused_columns import Unused
from tuneyard.compiler.lint.fingerprints import Fingerprints
from tuneyard.compiler.read import read
from tuneyard.compiler.read.inputs import Input
from tuneyard.compiler.read.stream import Readable
from tuneyard.compiler.rows import Batch, ObjectRows, Rows
from tuneyard.compiler.rows.counts import Counts
from tuneyard.compiler.rows.problems import NO_LIMIT, Problems
from tuneyard.compiler.spec.file import Source
from tuneyard.compiler.spec.model import Filter, Spec
from tuneyard.core.datasets import TRAIN_SPLIT
from tuneyard.core.files import Moved
from tuneyard.core.language.message import _


class SourceRows(NamedTuple):
    """The rows of a split in a file, and how the file is written.

    `display_path` is its path in messages. `names` are the members of an archive, or the sheets of a
    workbook, to read; () for all.
    """

    path: Readable
    display_path: str
    source: Source
    split: str = TRAIN_SPLIT
    names: tuple[str, ...] = ()

    @classmethod
    def of(cls, item: Input, spec: Spec) -> "SourceRows":
        """The rows of an input as the spec describes its source."""
        return cls(item.path, item.display_path, spec.source, item.input_name, item.names)

    def read(
        self, problems: Problems, most_rows: int = NO_LIMIT, moved: Moved | None = None
    ) -> Iterator[Rows]:
        """Yield the rows, at most `most_rows` (1 or more), some hundreds at a time.

        `moved` gets the numbers of bytes read.
        """
        room = most_rows
        for rows in read(
            self.path, self.display_path, self.source, problems, self.split, moved, names=self.names
        ):
            if room < len(rows.lines):
                first_rows = list(map(rows.row, range(room)))
                rows = ObjectRows(rows.prefix, rows.lines[:room], first_rows, rows.typed, rows.empty_cells)
            room -= len(rows.lines)
            yield rows
            if room == 0:
                break

    def first(self) -> Rows | None:
        """The first of the rows, None if none can be read."""
        return next(self.read(Problems()), None)


@dataclass
class FileResult:
    """What files of a split yield besides their records: one file, or those before another one together.

    - `types`: the type of each kept column. `values`: by column, how often each kept value is there, if its
      column type judges them all together.
    - `counts`: the rows that were read, kept and dropped. `readable`: those that could be read.
    """

    problems: Problems
    unused: Unused = field(default_factory=Unused)
    fingerprints: Fingerprints = field(default_factory=Fingerprints)
    types: Types = field(default_factory=dict)
    values: defaultdict[str, Counter[object]] = field(default_factory=partial(defaultdict, Counter))
    counts: Counts = field(default_factory=Counts)
    readable: int = 0

    def add(self, other: "FileResult") -> None:
        """Put together what these files and the next ones yield."""
        self.problems.add(other.problems)
        self.unused.add_rows(other.unused)
        self.fingerprints.append(other.fingerprints)
        self.types = {**other.types, **self.types}
        for column, counts in other.values.items():
            self.values[column].update(counts)
        self.counts.add(other.counts)
        self.readable += other.readable

    def fits(self, alone: "FileResult") -> bool:
        """True if a file that was compiled as the first one would yield the same after these files."""
        return all(self.types.get(name, cell_type) == cell_type for name, cell_type in alone.types.items())


@dataclass(frozen=True)
class RowLoop:
    """The loop over one file. `before` is what the files of its split before it have yielded.

    - `spec`: that of the file's source in a mixture.
    - `most_rows`, `most_kept`: the readable and the kept rows of the split after which reading ends.
    """

    spec: Spec
    rows: SourceRows
    before: FileResult
    most_rows: int = NO_LIMIT
    most_kept: int = NO_LIMIT
    moved: Moved | None = None

    def readings(self, new_problems: Callable[[], Problems]) -> Iterator["Reading"]:
        """Yield a reading of the file, and another one if a later row shows what its earlier rows are.

        The last one is complete. `new_problems` makes the problems of each. `TextIdError` if the files before
        it must be read again, too: their ids were written as numbers, and are text.
        """
        types = dict(self.before.types)
        late: dict[str, str] = {}
        while True:
            reading = Reading(self, FileResult(new_problems(), types=dict(types)), late)
            yield reading
            error = reading.ended_by
            if error is None:
                return
            if isinstance(error, LateColumnError):
                late |= error.sources
            elif self.before.types.get(error.column):
                raise error
            else:
                types[error.column] = "text"


class Reading:
    """One reading of a file, with its result. `ended_by` says what a later row has shown, None if nothing.

    `late` are the columns that an earlier reading has found in later rows (`LateColumnError`).
    """

    def __init__(self, loop: RowLoop, result: FileResult, late: Mapping[str, str]) -> None:
        self.loop, self.result = loop, result
        self.ended_by: LateColumnError | TextIdError | None = None
        start = loop.before.counts.read
        problems, unused, types = result.problems, result.unused, result.types
        display_path = loop.rows.display_path
        self._checker = Checker(loop.spec, display_path, problems, unused, types, start, late)
        self._filter = None
        if loop.spec.filter != Filter() or loop.spec.empty:
            self._filter = RowFilter(loop.spec, result.counts)

    @property
    def has_ids(self) -> bool:
        """True if the rows so far have ids of their own."""
        return "idx" in self._checker.source_by_column

    def batches(self) -> Iterator[tuple[Rows, Batch]]:
        """Yield rows as they are read, with those of them that are kept, as checked columns.

        Batches without a kept row only count. The result is that of the rows so far.
        """
        try:
            yield from self._kept_batches()
        except (LateColumnError, TextIdError) as error:
            self.ended_by = error

    def _kept_batches(self) -> Iterator[tuple[Rows, Batch]]:
        loop, result = self.loop, self.result
        most_rows = loop.most_rows - loop.before.readable
        most_kept = loop.most_kept - loop.before.counts.kept
        for rows in loop.rows.read(result.problems, most_rows, loop.moved):
            result.readable += len(rows.lines)
            batch = self._checker.check(rows)
            if batch is None:  # reading goes on, for the counts: a later row may have the column
                result.counts.drop(_("column missing"), len(rows.lines))
                continue
            if self._filter is not None:
                batch = self._filter.kept(batch)
            batch = self._checker.of_one_type(batch, rows)
            if batch.lines:
                result.counts.kept += len(batch)
                yield rows, batch
            if result.counts.kept >= most_kept:
                break

    def complete(self, split: str) -> FileResult:
        """Count the rows that are not kept, and note what people should know. `split` has the rows."""
        result, problems, checker = self.result, self.result.problems, self._checker
        problems.end_batch()
        result.counts.read = result.readable + problems.bad_rows - checker.bad + problems.dropped.total()
        for reason, number in problems.dropped.items():
            result.counts.drop(reason, number)
        result.counts.drop(_("no gold label"), checker.unlabelled)
        problems.notes += checker.notes()
        problems.notes += result.unused.notes_on_splits(self.loop.rows.display_path, split)
        return result
