"""Chunks: one task takes some rows through a compile: read → check → filter → lint → render → write.

A chunk is a run of the batches that one process would read. Its task writes files with its records and
returns what the next steps need: counts, problems, fingerprints. What one batch tells the next ones is the
`Carry`. A task begins with the carry that its caller expects, and returns the one with which it ended. So the
caller can tell whether a chunk began as it would have begun in one process.
"""

import contextlib
import gc
import shutil
import sys
from array import array
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from tuneyard.compiler.check.checker import Checker
from tuneyard.compiler.check.filters import RowFilter
from tuneyard.compiler.check.unused_columns import Unused
from tuneyard.compiler.kinds import KeptValues, kind_of
from tuneyard.compiler.lint.fingerprints import Fingerprints
from tuneyard.compiler.lint.row_checks import LINT_CODES, Lint
from tuneyard.compiler.problems import Problems
from tuneyard.compiler.read import read_unsettled, reading
from tuneyard.compiler.read.row_limit import within_limit
from tuneyard.compiler.read.spans import OpenRecordError, Span
from tuneyard.compiler.read.stream import Readable
from tuneyard.compiler.rows import Batch
from tuneyard.compiler.spec.model import REJECTED, Spec
from tuneyard.compiler.write.joined_file import copy_rows
from tuneyard.compiler.write.readback import record_file
from tuneyard.compiler.write.record_file import RecordFile, WrittenPart
from tuneyard.compiler.write.record_watch import RecordWatch
from tuneyard.compiler.write.render import Renderer
from tuneyard.core.errors import ContentError

NO_LIMIT = sys.maxsize
CHUNK_FOLDER = ".chunk-"


@dataclass(frozen=True, slots=True)
class CompileJob:
    """A compile as its tasks see it.

    - `staged`: the folder to write into, None for a check, which writes nothing.
    - `kept_problems`: the most errors and warnings to keep as text, None for all.
    - `reject`: bad rows are written down and do not end the compile.
    - `compares_rows`: rows are compared with each other; otherwise they are only counted.
    - `limit`: the most rows to read of each part.
    """

    spec: Spec
    staged: Path | None
    kept_problems: int | None
    reject: bool
    compares_rows: bool
    limit: int = NO_LIMIT

    def spec_of(self, part: str) -> Spec:
        """The spec of a part: its own in a mixture."""
        return self.spec.mix.parts[part] if self.spec.mix else self.spec


@dataclass(frozen=True, slots=True)
class FilePart:
    """A part of a source file. `number` counts the files of the compile."""

    path: Readable
    display_path: str
    number: int
    span: Span

    @property
    def is_whole(self) -> bool:
        """True if it is the whole file."""
        return self.span.begins and self.span.ends


@dataclass(frozen=True, slots=True)
class Chunk:
    """Some rows of a split, or of a part of a mixture: whole files, or a part of one file.

    `enough`: reading ends once so many rows are kept. `first` and `last`: of its split.
    """

    number: int
    part: str
    files: tuple[FilePart, ...]
    enough: int = NO_LIMIT
    first: bool = False
    last: bool = False

    @property
    def cut_file(self) -> FilePart | None:
        """The file of which it is a part, None for whole files."""
        file = self.files[0]
        return None if file.is_whole else file


@dataclass(frozen=True, slots=True)
class Carry:
    """What the rows before a chunk tell of it.

    - `stopped`: the compile will publish nothing, so that rows are only checked.
    - `types`: the type of each kept column so far. `sources`: the source columns of the file so far.
      `failed`: a required one is missing. `ended`: the rest of the file cannot be read.
    - `read`: the rows read of the split before the file. `number`: that of the next row.
    - `counted`: the names of unused and of ignored columns so far.
    """

    stopped: bool = False
    types: Mapping[str, str] = field(default_factory=dict)
    sources: Mapping[str, str] = field(default_factory=dict)
    failed: bool = False
    ended: bool = False
    read: int = 0
    number: int = 0
    counted: tuple[tuple[str, ...], tuple[str, ...]] = ((), ())


@dataclass(slots=True)
class ChunkResult:
    """What a task returns. `carry` is that of the next chunk.

    - `read`, `kept`, `not_written`: numbers of rows. `dropped_early`: those that the filter never saw, by
      reason. `filtered`: those that the filter dropped.
    - `tallies`: what the readers of columns counted in a part of a file.
    - `files`: the written records of each output, None for an output without records.
    - `is_cut`: the chunk ends inside a record. Nothing of it counts.
    - `uses_numbers`: rows got their numbers as ids.
    """

    carry: Carry
    problems: Problems
    unused: Unused
    prints: Fingerprints
    kept_values: dict[str, KeptValues]
    watch: RecordWatch | None
    read: int = 0
    kept: int = 0
    not_written: int = 0
    dropped_early: Counter[str] = field(default_factory=Counter)
    filtered: Counter[str] = field(default_factory=Counter)
    tallies: list[Counter[object]] = field(default_factory=list)
    files: list[WrittenPart | None] = field(default_factory=list)
    is_cut: bool = False
    uses_numbers: bool = False

    def only_checked(self) -> "ChunkResult | None":
        """The result as if the compile had stopped before: rows are checked, and neither linted nor written.

        None if too many warnings were found: those of the lint may have displaced others.
        """
        problems = self.problems.without(LINT_CODES)
        if problems is None:
            return None
        not_written = self.not_written + self.kept + self.filtered.total()
        return replace(
            self,
            problems=problems,
            prints=Fingerprints(counted_only=self.prints.counted_only),
            kept_values={},
            watch=None,
            kept=0,
            not_written=not_written,
            filtered=Counter(),
            files=[],
        )


def compile_chunk(job: CompileJob, chunk: Chunk, carry: Carry) -> ChunkResult:
    """Take the rows of a chunk through all steps. It leaves the same files if it runs twice."""
    with _no_collection():
        return _ChunkTask(job, chunk, carry).run()


def folder_of_chunk(job: CompileJob, chunk: Chunk) -> Path | None:
    """Where a task writes; None for a check."""
    return job.staged / f"{CHUNK_FOLDER}{chunk.number}" if job.staged else None


def arrange_chunk(
    job: CompileJob,
    name: str,
    split: str,
    output_number: int,
    staged_rows: Path,
    offsets: "array[int]",
    lengths: "array[int]",
) -> WrittenPart:
    """Write rows of one output, by their places among the staged ones, into a folder of this name."""
    if job.staged is None:
        raise ValueError("a check writes no rows")
    folder = job.staged / f"{CHUNK_FOLDER}{name}"
    shutil.rmtree(folder, ignore_errors=True)  # of a worker that was lost
    folder.mkdir()
    output = job.spec.outputs[output_number]
    with record_file(job.spec, output, folder / output.file.format(split=split)) as file:
        copy_rows(staged_rows, offsets, lengths, file)
    part = file.part()
    if part is None:
        raise ValueError(f"{name}: no rows to arrange")
    return part


class _ChunkTask:
    """Reads the files of a chunk, and writes each kept row into one file for each output."""

    def __init__(self, job: CompileJob, chunk: Chunk, carry: Carry) -> None:
        self.job, self.chunk, self.carry = job, chunk, carry
        self.spec = spec = job.spec_of(chunk.part)
        self.folder = folder_of_chunk(job, chunk)
        rejected = self.folder / REJECTED if self.folder and job.reject else None
        self.problems = Problems(job.kept_problems, rejected, stopped_before=carry.stopped)
        self.unused = Unused(*(dict.fromkeys(names, 0) for names in carry.counted))
        self.types = dict(carry.types)
        self.prints = Fingerprints(counted_only=not job.compares_rows)
        self.kept_values: dict[str, KeptValues] = {}
        for column in spec.columns:
            follow = kind_of(column.kind).kept_values
            if follow:
                self.kept_values[column.name] = follow()
        self.watch = RecordWatch() if job.staged is None else None
        self.result = ChunkResult(
            carry, self.problems, self.unused, self.prints, self.kept_values, self.watch
        )
        self.renderers = [Renderer(spec, output) for output in spec.outputs]
        self.lint = Lint(spec, self.problems)
        self.row_filter = RowFilter(spec)
        self.source = reading(spec)
        self.all_read = carry.read  # rows of the split, also of chunks before this one
        self.next_number = carry.number

    def run(self) -> ChunkResult:
        """Read all files, or until enough rows are kept, and write the rows."""
        result = self.result
        with contextlib.ExitStack() as stack:
            files = [stack.enter_context(file) for file in self._new_files()]
            try:
                for file in self.chunk.files:
                    if result.kept < self.chunk.enough and result.read < self.job.limit:
                        self._read_file(file, files)
            except OpenRecordError:
                result.is_cut = True
        result.filtered = self.row_filter.dropped
        if not (self.problems.stopped or result.is_cut):
            result.files = [file.part() for file in files]
        return result

    def _new_files(self) -> Iterator[RecordFile]:
        """Yield a file for each output, in an empty folder. A check writes none."""
        if self.folder is None:
            return
        shutil.rmtree(self.folder, ignore_errors=True)  # of a worker that was lost
        self.folder.mkdir()
        for number, output in enumerate(self.spec.outputs):
            if self.job.spec.arranged:
                yield RecordFile(self.folder / f"{number}.rows")
            else:
                path = self.folder / output.file.format(split=self.chunk.part)
                is_whole = self.chunk.first and self.chunk.last
                yield record_file(self.spec, output, path, is_whole=is_whole)

    def _read_file(self, file: FilePart, files: Sequence[RecordFile]) -> None:
        """Read a file or a part of it."""
        result, problems, span = self.result, self.problems, file.span
        start = self.all_read if span.begins else self.next_number
        checker = Checker(self.spec, file.display_path, problems, self.unused, self.types, start)
        if not span.begins:
            checker.resume(self.carry.sources, failed=self.carry.failed)
        failed_before = checker.failed
        bad_before, bad_files_before = problems.bad_rows, problems.bad_files
        room = self.job.limit - result.read
        rows_read = settled = column_missing = 0
        part = self.chunk.part
        for rows in read_unsettled(file.path, file.display_path, self.source, problems, part, span):
            count = within_limit(room - rows_read - settled, problems, rows.prefix, rows.lines)
            if count < len(rows.lines):
                rows = rows.head(count)
            rows_read += count
            batch = checker.check(rows) if count else None
            if batch is not None:
                self._keep(batch, "idx" in checker.sources, files)
            else:  # reading goes on, for the counts
                column_missing += count
            problems.settle()
            settled = problems.bad_rows - bad_before - checker.bad
            if rows_read + settled >= room or result.kept >= self.chunk.enough:
                break
        within_limit(room - rows_read - settled, problems)
        problems.settle()
        unreadable = problems.bad_rows - bad_before - checker.bad
        result.read += rows_read + unreadable
        dropped = {"column missing": column_missing, "no gold label": checker.unlabelled}
        result.dropped_early += Counter(dropped)
        result.uses_numbers |= checker.uses_numbers
        if file.is_whole:
            problems.notes += checker.notes()
        else:
            result.tallies = [reader.tally for reader in checker.readers]
            self._check_tallies(checker, result.tallies)
        self.all_read += rows_read + unreadable
        self.next_number = checker.number
        missing_files = int(checker.failed and not failed_before)
        result.carry = Carry(
            stopped=problems.stopped,
            types=self.types,
            sources=checker.sources,
            failed=checker.failed,
            ended=problems.bad_files - bad_files_before > missing_files,
            read=self.all_read,
            number=self.next_number,
            counted=self.unused.names(),
        )

    def _check_tallies(self, checker: Checker, tallies: Sequence[Counter[object]]) -> None:
        """`ContentError` for a reader whose notes need more than its tally, which alone is sent."""
        again = Checker(self.spec, checker.display_path, Problems(), Unused(), {})
        again.resume(checker.sources, failed=checker.failed)
        again.add_tallies(tallies)
        for reader, from_tally in zip(checker.readers, again.readers, strict=True):
            if reader.notes() != from_tally.notes():
                column = reader.column
                raise ContentError(
                    f"column {column.name}: the notes of `is: {column.kind}` need more than the `tally` of "
                    "its reader, which is all that is known of parts of a file; count in `tally` "
                    "(docs/extending.md), or compile with --workers 1"
                )

    def _keep(self, batch: Batch, has_ids: bool, files: Sequence[RecordFile]) -> None:
        """Filter, lint, render and write a batch of checked rows."""
        result = self.result
        if not self.problems.stopped:
            batch = self.row_filter.kept(batch)
        if self.problems.stopped:
            result.not_written += len(batch.lines)
        if self.problems.stopped or not batch.lines:
            return
        result.kept += len(batch)
        for name, values in self.kept_values.items():
            values.add(batch.columns[name])
        self.lint.see(self.prints, batch, has_ids)
        for renderer, file in zip(self.renderers, files, strict=False):  # a check writes no files
            file.add(renderer.block(batch, file.between), len(batch))
        if self.watch:
            for number, renderer in enumerate(self.renderers):
                self.watch.see(number, renderer, batch)


@contextlib.contextmanager
def _no_collection() -> Iterator[None]:
    """Stop Python's garbage collector: rows are trees without cycles, and it would walk over them again."""
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()
