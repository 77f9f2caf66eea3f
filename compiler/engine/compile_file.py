"""Take one source file through a compile: read → check → filter → lint → render → write.

A file goes through all steps by itself, in this process or in a worker, and returns one plain record
(`Yielded`). That of the files before it decides on some of its rows.
"""

import contextlib
import os
import shutil
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from tuneyard.compiler.check.checker import Checker, LateColumnError, TextIdError, Types
from tuneyard.compiler.check.filters import RowFilter
from tuneyard.compiler.check.sources import find_source
from tuneyard.compiler.check.unused_columns import Unused
from tuneyard.compiler.engine.request import CompileRequest
from tuneyard.compiler.lint.fingerprints import Fingerprints
from tuneyard.compiler.lint.row_checks import Lint
from tuneyard.compiler.read import read
from tuneyard.compiler.read.inputs import Input
from tuneyard.compiler.rows import ObjectRows
from tuneyard.compiler.rows.counts import Counts
from tuneyard.compiler.rows.draw import apportioned
from tuneyard.compiler.rows.problems import NO_LIMIT, Problems
from tuneyard.compiler.spec.model import PART, ROW_NUMBER, Filter, Spec
from tuneyard.compiler.write.record_file import CountedRecords, RecordFile
from tuneyard.compiler.write.render import Renderer
from tuneyard.core.files import Moved
from tuneyard.core.plugins import guarded


def rows_of_parts(spec: Spec) -> dict[str, int]:
    """The rows that each part of a mixture should have, {} without a mixture."""
    if spec.mix is None:
        return {}
    return apportioned(spec.mix.total, {name: part.share for name, part in spec.mix.parts.items()})


def most_kept(spec: Spec, part: str) -> int:
    """The kept rows after which a part is not read on: its rows in a mixture, if it streams from a hub."""
    if spec.mix and spec.of_part(part).source.hub.get("stream"):
        return rows_of_parts(spec)[part]
    return NO_LIMIT


TypesOfParts = Mapping[str, Types]
"""The types of columns, by part, that an earlier reading has found in later rows."""


@dataclass
class Yielded:
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

    def add(self, other: "Yielded") -> None:
        """Put together what these files and the next ones yield."""
        self.problems.add(other.problems)
        self.unused.add_rows(other.unused)
        self.fingerprints.append(other.fingerprints)
        self.types = {**other.types, **self.types}
        for column, counts in other.values.items():
            self.values[column].update(counts)
        self.counts.add(other.counts)
        self.readable += other.readable

    def fits(self, alone: "Yielded") -> bool:
        """True if a file that was compiled as the first one would yield the same after these files."""
        return all(self.types.get(name, cell_type) == cell_type for name, cell_type in alone.types.items())


def compile_alone(
    settings: tuple[Spec, CompileRequest, TypesOfParts], item: Input, folder: Path | None
) -> Yielded:
    """Compile a file in a worker, as if it were the first one, into its own folder, or only check it (None).

    It leaves the same files if it runs twice.
    """
    if folder:
        shutil.rmtree(folder, ignore_errors=True)  # of a worker that was lost
        folder.mkdir()
    spec, request, types = settings
    with contextlib.ExitStack() as stack:
        files = [stack.enter_context(file) for file in part_files(spec.of_part(item.split), folder)]
        before = Yielded(Problems(), types=dict(types.get(item.split, {})))
        return compile_file(spec, request, item, before, files, folder)


def part_files(spec: Spec, folder: Path | None) -> Iterator[RecordFile]:
    """The files of all outputs, for the rows of one source file or of several that are to be put in order.

    Without a folder, in a check, they only count.
    """
    for number, output in enumerate(spec.outputs):
        if folder is None:
            yield CountedRecords(Path(output.file))
            continue
        suffix = Path(output.file).suffix
        yield RecordFile(folder / f"{number}{suffix}", has_keys=spec.is_indexed(output), is_part=True)


def compile_file(
    spec: Spec,
    request: CompileRequest,
    item: Input,
    before: Yielded,
    files: Sequence[RecordFile],
    folder: Path | None,
    moved: Moved | None = None,
) -> Yielded:
    """Read a file, or the rows of it that are wanted, and append the records to the file of each output.

    `before` is what the files of its split before it have yielded. Rejected rows go to a file in `folder`,
    which a check lacks.
    `moved` gets the numbers of bytes read, for a progress bar.

    The file is read again if a later row shows what its earlier rows are. `TextIdError` if the files before
    it must be, too.
    """
    types = dict(before.types)
    late: dict[str, str] = {}
    marks = [file.mark() for file in files]
    rejected = request.problems_in(folder).rejected
    rejected_size = rejected.stat().st_size if rejected and rejected.exists() else 0
    while True:
        try:
            return _compile_rows(spec, request, item, before, files, folder, moved, types, late)
        except LateColumnError as error:
            late |= error.sources
        except TextIdError as error:
            if before.types.get(error.column):
                raise
            types[error.column] = "text"
        for file, mark in zip(files, marks, strict=True):
            file.back_to(mark)
        if rejected and rejected.exists():
            os.truncate(rejected, rejected_size)


def _compile_rows(
    spec: Spec,
    request: CompileRequest,
    item: Input,
    before: Yielded,
    files: Sequence[RecordFile],
    folder: Path | None,
    moved: Moved | None,
    types: Types,
    late: Mapping[str, str],
) -> Yielded:
    """Read a file once. `types` and `late` are what is known of its ids and of its later rows."""
    split_of_rows = PART if spec.mix else item.split
    most_rows, most_written = request.limit or NO_LIMIT, most_kept(spec, item.split)
    spec = spec.of_part(item.split)
    problems = request.problems_in(folder)
    result = Yielded(problems, types=dict(types))
    checker = Checker(
        spec, item.display_path, problems, result.unused, result.types, before.counts.read, late
    )
    row_filter = None if spec.filter == Filter() else RowFilter(spec, result.counts)
    lint = Lint(spec, problems)
    outputs = [(Renderer(spec, output), file) for output, file in zip(spec.outputs, files, strict=True)]
    judged = [column for column in spec.columns if column.type.judges_values]
    for rows in read(
        item.path, item.display_path, spec.source, problems, item.split, moved, names=item.names
    ):
        room = most_rows - before.readable - result.readable
        if room < len(rows.lines):
            first_rows = list(map(rows.row, range(room)))
            rows = ObjectRows(rows.prefix, rows.lines[:room], first_rows, rows.typed, rows.empty_cells)
        result.readable += len(rows.lines)
        batch = checker.check(rows)
        if batch is None:  # reading goes on, for the counts
            result.counts.drop("column missing", len(rows.lines))
        else:
            if row_filter:
                batch = row_filter.kept(batch)
            batch = checker.of_one_type(batch, rows)
            if batch.lines:
                result.counts.kept += len(batch)
                for column in judged:
                    with guarded(column.type.plugin):
                        result.values[column.name].update(batch.columns[column.name])
                lint.see(result.fingerprints, batch, "idx" in checker.known)
                for renderer, file in outputs:
                    file.add(*renderer.block(batch, file.between))
        kept = before.counts.kept + result.counts.kept
        if before.readable + result.readable >= most_rows or kept >= most_written:
            break
    problems.end_batch()
    result.counts.read = result.readable + problems.bad_rows - checker.bad + problems.dropped.total()
    for reason, number in problems.dropped.items():
        result.counts.drop(reason, number)
    result.counts.drop("no gold label", checker.unlabelled)
    problems.notes += checker.notes()
    problems.notes += result.unused.notes_on_splits(item.display_path, split_of_rows)
    return result


def numbers_rows(item: Input, spec: Spec) -> bool:
    """True if the rows of a file get their numbers as ids: its first rows have no source of ids."""
    numbered = [column for column in spec.columns if column.default == ROW_NUMBER]
    rows = None
    if numbered:
        rows = next(
            read(item.path, item.display_path, spec.source, Problems(), item.split, names=item.names), None
        )
    return rows is not None and any(find_source(column, rows.names(), rows) is None for column in numbered)
