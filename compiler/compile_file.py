"""Take one source file through a compile: read → check → filter → lint → render → write.

A file goes through all steps by itself, in this process or in a worker, and returns one plain record. Its
`FileStart` has what the files before it decide.
"""

import contextlib
import gc
import shutil
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from tuneyard.compiler.check.checker import Checker
from tuneyard.compiler.check.filters import RowFilter
from tuneyard.compiler.check.unused_columns import Unused
from tuneyard.compiler.kinds import kind_of
from tuneyard.compiler.lint.fingerprints import Fingerprints
from tuneyard.compiler.lint.row_checks import Lint
from tuneyard.compiler.problems import Problems
from tuneyard.compiler.read import read, reading
from tuneyard.compiler.read.inputs import Input
from tuneyard.compiler.rows import Batch, Rows
from tuneyard.compiler.spec.model import REJECTED, Spec
from tuneyard.compiler.write.record_file import RecordFile
from tuneyard.compiler.write.render import Renderer

NO_LIMIT = sys.maxsize


@dataclass(frozen=True, slots=True)
class CompileJob:
    """A compile as each of its files sees it.

    - `kept_problems`: the most errors and warnings to keep as text, None for all.
    - `reject`: bad rows are written down and do not end the compile.
    - `compares_rows`: rows are compared with each other; otherwise they are only counted.
    - `limit`: the most readable rows of each split. `enough`: by part, the kept rows after which it ends.
    """

    spec: Spec
    kept_problems: int | None
    reject: bool
    compares_rows: bool
    limit: int = NO_LIMIT
    enough: Mapping[str, int] = field(default_factory=dict)

    def spec_of(self, part: str) -> Spec:
        """The spec of a part: its own in a mixture."""
        return self.spec.mix.parts[part] if self.spec.mix else self.spec


@dataclass(slots=True)
class FileResult:
    """What a file yields besides its records.

    - `values`: by column, how often each kept value is there, of kinds that judge them all together.
    - `types`: the type of each kept column. `uses_numbers`: rows got their numbers as ids.
    - `read`, `readable`, `kept`: numbers of rows. `dropped`: the others, by reason.
    """

    problems: Problems
    unused: Unused
    prints: Fingerprints
    types: dict[str, str]
    values: dict[str, Counter[object]] = field(default_factory=dict)
    dropped: Counter[str] = field(default_factory=Counter)
    read: int = 0
    readable: int = 0
    kept: int = 0
    uses_numbers: bool = False


@dataclass(frozen=True, slots=True)
class FileStart:
    """The files of a split before a file: their rows, and the types of the kept columns."""

    read: int = 0
    readable: int = 0
    kept: int = 0
    types: Mapping[str, str] = field(default_factory=dict)

    def after(self, result: FileResult) -> "FileStart":
        """The start of the next file."""
        return FileStart(
            self.read + result.read,
            self.readable + result.readable,
            self.kept + result.kept,
            {**result.types, **self.types},
        )

    def fits(self, result: FileResult) -> bool:
        """True if a file that was compiled as the first one would yield the same after these files."""
        if result.uses_numbers and self.read:
            return False
        return all(self.types.get(name, kind) == kind for name, kind in result.types.items())


def compile_alone(job: CompileJob, item: Input, folder: Path) -> FileResult:
    """Compile a file in a worker, as if it were the first one, into a folder of its own.

    It leaves the same files if it runs twice.
    """
    shutil.rmtree(folder, ignore_errors=True)  # of a worker that was lost
    folder.mkdir()
    rejected = folder / REJECTED if job.reject else None
    with contextlib.ExitStack() as stack:
        files = [stack.enter_context(file) for file in part_files(job.spec_of(item.split), folder)]
        return compile_file(job, item, FileStart(), files, rejected)


def part_files(spec: Spec, folder: Path) -> Iterator[RecordFile]:
    """The files of all outputs, for the rows of one source file or of several that are to be put in order."""
    for number, output in enumerate(spec.outputs):
        suffix = Path(output.file).suffix
        yield RecordFile(folder / f"{number}{suffix}", has_keys=spec.is_indexed(output), is_part=True)


def compile_file(
    job: CompileJob,
    item: Input,
    start: FileStart,
    files: Sequence[RecordFile],
    rejected: Path | None,
    moved: Callable[[int], object] | None = None,
) -> FileResult:
    """Read a file, or the rows of it that are wanted, and append the records to the file of each output.

    `moved` gets the numbers of bytes read, for a progress bar.
    """
    problems, unused = Problems(job.kept_problems, rejected), Unused()
    result = FileResult(problems, unused, Fingerprints(counted_only=not job.compares_rows), dict(start.types))
    spec = job.spec_of(item.split)
    checker = Checker(spec, item.display_path, problems, unused, result.types, start.read)
    steps = _KeptRows(spec, result, files)
    enough = job.enough.get(item.split, NO_LIMIT)
    with _no_collection():
        batches = read(item.path, item.display_path, reading(spec), problems, item.split, moved)
        for rows in batches:
            room = job.limit - start.readable - result.readable
            if room < len(rows.lines):
                rows = rows.head(room)
            result.readable += len(rows.lines)
            batch = checker.check(rows)
            if batch is None:  # reading goes on, for the counts
                result.dropped["column missing"] += len(rows.lines)
            else:
                steps.keep(batch, has_ids="idx" in checker.sources)
            if start.readable + result.readable >= job.limit:
                problems.end_batch(rows.place(len(rows.lines) - 1))
                break
            if start.kept + result.kept >= enough:
                break
        problems.end_batch()
    result.read = result.readable + problems.bad_rows - checker.bad
    result.dropped += Counter({"no gold label": checker.unlabelled}) + steps.row_filter.dropped
    result.uses_numbers = checker.uses_numbers
    problems.notes += checker.notes()
    return result


class _KeptRows:
    """Filters, lints, renders and writes the checked rows of a file."""

    def __init__(self, spec: Spec, result: FileResult, files: Sequence[RecordFile]) -> None:
        self.result = result
        self.row_filter = RowFilter(spec)
        self.lint = Lint(spec, result.problems)
        self.outputs = [
            (Renderer(spec, output), file) for output, file in zip(spec.outputs, files, strict=True)
        ]
        for column in spec.columns:
            if kind_of(column.kind).judge:
                result.values[column.name] = Counter()

    def keep(self, batch: Batch, *, has_ids: bool) -> None:
        """Take a batch through these steps."""
        batch = self.row_filter.kept(batch)
        if not batch.lines:
            return
        self.result.kept += len(batch)
        for name, counts in self.result.values.items():
            counts.update(batch.columns[name])
        self.lint.see(self.result.prints, batch, has_ids)
        for renderer, file in self.outputs:
            file.add(*renderer.block(batch, file.between))


def first_rows(item: Input, spec: Spec) -> Rows | None:
    """The first rows of a file that can be read, None without any."""
    return next(read(item.path, item.display_path, reading(spec), Problems(), item.split), None)


def numbers_rows(item: Input, spec: Spec) -> bool:
    """True if the rows of a file get their numbers as ids, by its first rows."""
    rows = first_rows(item, spec)
    if rows is None:
        return False
    checker = Checker(spec, item.display_path, Problems(), Unused(), {})
    checker.check(rows)
    return checker.uses_numbers


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
