"""One part of a set on its way through the stages: read → check → sift → look at → render → write."""

import contextlib
import sys
from collections.abc import Iterable, Iterator, Sequence
from functools import partial
from itertools import repeat
from pathlib import Path

from compiler.check import Checker
from compiler.filters import Sieve
from compiler.fit import Fit
from compiler.read import read, reading
from compiler.readback import look_back
from compiler.render import Renderer
from compiler.request import Report, Request
from compiler.rows import Batch
from compiler.seen import Seen
from compiler.sources import Input
from compiler.spec import Filter, Spec
from compiler.texts import TextColumns
from compiler.write import Look, RecordFile
from core.errors import Problem


class PartRun:
    """Reads the files of one part and writes what is kept into one file for each output."""

    def __init__(self, spec: Spec, name: str, request: Request, report: Report, seen: Seen) -> None:
        self.spec, self.name, self.request, self.report, self.seen = spec, name, request, report, seen
        self.problems = report.problems
        self.renderers = [Renderer(spec, output) for output in spec.outputs]
        self.fit = Fit(spec, report.problems)
        self.sieve = Sieve(spec.filter) if spec.filter != Filter() else None
        self.texts = TextColumns(spec)
        self.source = reading(spec)
        self.types: dict[str, str] = {}
        self.read = 0
        self.kept = 0

    def run(self, inputs: Sequence[Input], files: Sequence[RecordFile], enough: int | None = None) -> None:
        """Read all files (or until `enough` rows are kept) and write the rows; counts go to the report."""
        limit = self.request.limit
        for found in inputs:
            if (enough is None or self.kept < enough) and (limit is None or self.read < limit):
                self._file(found, files, enough)
        self.report.read += self.read
        self.report.kept += self.kept
        if self.sieve:
            for reason, count in self.sieve.dropped.items():
                self.report.drop(reason, count)
        if self.read and not self.kept and not self.problems.stopped:
            message = f"none of the {self.read} rows of {self.name} is kept, so it is not written"
            self.problems.warn(Problem("W209", inputs[0].shown, message))

    def _file(self, found: Input, files: Sequence[RecordFile], enough: int | None) -> None:
        checker = Checker(self.spec, self.problems, self.report.unused, self.types, self.read)
        bad_before = self.problems.bad_rows
        limit = self.request.limit
        room = sys.maxsize if limit is None else limit - self.read
        passed_on = 0
        path = self.report.progress.watch(found.path)
        for rows in read(path, found.shown, self.source, self.problems, self.name):
            rows = rows.head(room - passed_on) if room - passed_on < len(rows.lines) else rows
            passed_on += len(rows.lines)
            if (batch := checker.check(rows)) is None:  # read on all the same, for the counts
                self.report.drop("column missing", len(rows.lines))
            else:
                self._take(batch, "idx" in checker.theirs, files)
            if passed_on == room or (enough is not None and self.kept >= enough):
                break
        self.problems.notes += checker.notes(found.shown)
        unreadable = self.problems.bad_rows - bad_before - checker.bad
        self.read += passed_on + unreadable
        self.report.drop("no gold label", checker.unlabelled)

    def _take(self, batch: Batch, numbered: bool, files: Sequence[RecordFile]) -> None:
        if self.problems.stopped or not batch.lines:
            return
        if self.sieve:
            batch = self.sieve.sift(batch, list(self.texts.of(batch).values()))
            if not batch.lines:
                return
        self.kept += len(batch)
        self.fit.see(self.seen, batch, numbered)
        for renderer, file in zip(self.renderers, files, strict=False):  # a check writes no files
            file.write(renderer.render(batch))


@contextlib.contextmanager
def record_files(
    paths: Sequence[Path], looks: Iterable[Look | None] = repeat(None)
) -> Iterator[list[RecordFile]]:
    """Open record files for writing, all of them or none; `looks` are what looks back at each."""
    with contextlib.ExitStack() as stack:
        files = [RecordFile(path, look) for path, look in zip(paths, looks, strict=False)]
        yield [stack.enter_context(file) for file in files]


def split_files(
    staged: Path | None, spec: Spec, split: str
) -> contextlib.AbstractContextManager[list[RecordFile]]:
    """Open what is written for a split, or for `WHOLE`, in a staged set (none without one)."""
    outputs = [output for _, output in spec.outputs_of(split)] if staged else []
    paths = [staged / output.file.format(split=split) for output in outputs] if staged else []
    looks = [partial(look_back, spec, output, path) for output, path in zip(outputs, paths, strict=True)]
    return record_files(paths, looks)
