"""One part of a set on its way through the stages: read → check → sift → look at → render → write."""

import sys
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from compiler.check import Checker
from compiler.filters import Sieve
from compiler.fingerprints import Fingerprints
from compiler.kinds import KTO
from compiler.lint import Lint
from compiler.pairs import one_class
from compiler.problems import Problems
from compiler.progress import Progress
from compiler.read import read, reading
from compiler.render import Renderer
from compiler.request import CompileRequest, Counts
from compiler.rows import Batch
from compiler.sources import Input
from compiler.spec import Spec
from compiler.unused import Unused
from compiler.write import RecordFile
from core.errors import Problem


@dataclass(frozen=True, slots=True)
class Context:
    """What all stages of a compile are given: the request, and what collects problems, columns and bytes."""

    request: CompileRequest
    problems: Problems
    unused: Unused
    progress: Progress


class PartRun:
    """Reads the files of one part and writes what is kept into one file for each output."""

    def __init__(self, spec: Spec, name: str, context: Context, seen: Fingerprints) -> None:
        self.spec, self.name, self.context, self.seen = spec, name, context, seen
        self.problems = context.problems
        self.renderers = [Renderer(spec, output) for output in spec.outputs]
        self.lint = Lint(spec, context.problems)
        self.sieve = Sieve(spec)
        self.source = reading(spec)
        self.types: dict[str, str] = {}
        self.kto = next(iter(spec.named(KTO)), None)
        self.classes: Counter[object] = Counter()
        self.limit = context.request.limit or sys.maxsize
        self.read = self.kept = 0

    def run(self, inputs: Sequence[Input], files: Sequence[RecordFile], enough: int = sys.maxsize) -> Counts:
        """Read all files (or until `enough` rows are kept) and write the rows; returns their counts."""
        dropped: Counter[str] = Counter()
        for found in inputs:
            if self.kept < enough and self.read < self.limit:
                dropped += self._file(found, files, enough)
        if self.read and not self.kept and not self.problems.stopped:
            message = f"none of the {self.read} rows of {self.name} is kept, so it is not written"
            self.problems.warn(Problem("W209", inputs[0].shown, message))
        if len(self.classes) == 1 and min(self.limit, enough) == sys.maxsize:
            self.problems.lead([one_class(self.classes, inputs[0].shown)])
        if len(self.classes) > 1:
            wanted, unwanted = self.classes[True], self.classes[False]
            ratio = f"{wanted} answers wanted, {unwanted} unwanted ({wanted / unwanted:.2f} to 1)"
            self.problems.notes.append(f"{inputs[0].shown}: {ratio}")
        return Counts(self.read, self.kept, dropped={**dropped, **self.sieve.dropped})

    def _file(self, found: Input, files: Sequence[RecordFile], enough: int) -> Counter[str]:
        """Read one file; returns the rows dropped without a look at their texts, by reason."""
        unused = self.context.unused
        checker = Checker(self.spec, found.shown, self.problems, unused, self.types, self.read)
        bad_before = self.problems.bad_rows
        room = self.limit - self.read
        passed_on = column_missing = 0
        path = self.context.progress.watch(found.path)
        for rows in read(path, found.shown, self.source, self.problems, self.name):
            rows = rows.head(room - passed_on) if room - passed_on < len(rows.lines) else rows
            passed_on += len(rows.lines)
            if (batch := checker.check(rows)) is None:  # read on all the same, for the counts
                column_missing += len(rows.lines)
            else:
                self._take(batch, "idx" in checker.sources, files)
            if passed_on == room or self.kept >= enough:
                break
        self.problems.settle()
        self.problems.notes += checker.notes()
        unreadable = self.problems.bad_rows - bad_before - checker.bad
        self.read += passed_on + unreadable
        return Counter({"column missing": column_missing, "no gold label": checker.unlabelled})

    def _take(self, batch: Batch, numbered: bool, files: Sequence[RecordFile]) -> None:
        batch = batch if self.problems.stopped else self.sieve.sift(batch)
        if self.problems.stopped or not batch.lines:
            return
        self.kept += len(batch)
        if self.kto:
            self.classes.update(batch.columns[self.kto])
        self.lint.see(self.seen, batch, numbered)
        for renderer, file in zip(self.renderers, files, strict=False):  # a check writes no files
            file.write(renderer.render(batch))
