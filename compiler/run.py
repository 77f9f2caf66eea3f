"""The state of one compile, which puts together what its source files yield, in the order of the files."""

import contextlib
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from tuneyard.compiler.check.unused_columns import Unused
from tuneyard.compiler.compile_file import (
    NO_LIMIT,
    CompileJob,
    Yielded,
    compile_alone,
    compile_file,
    part_files,
)
from tuneyard.compiler.lint.fingerprints import Fingerprints
from tuneyard.compiler.problems import Problems
from tuneyard.compiler.read.inputs import Input
from tuneyard.compiler.read.stream import Moved, stored_size
from tuneyard.compiler.request import Counts
from tuneyard.compiler.spec.model import REJECTED
from tuneyard.compiler.write.record_file import RecordFile, Written
from tuneyard.core.errors import Problem
from tuneyard.core.execution import Executor, WorkItem, WorkResult

AHEAD = 2  # files for each worker that it reads, or whose results wait for an earlier one


@dataclass(slots=True)
class Run:
    """One compile: what it reads and writes, and what all files together have yielded so far.

    - `prints`: the fingerprints of the rows of each split that is written.
    - `results`: what workers make of the files, None if this process compiles them.
    - `moved`: moves the bar, None without a terminal.
    """

    job: CompileJob
    inputs: Sequence[Input]
    staged: Path
    seed: int
    problems: Problems
    written: Written
    moved: Moved | None = None
    unused: Unused = field(default_factory=Unused)
    counts: Counts = field(default_factory=Counts)
    prints: dict[str, Fingerprints] = field(default_factory=dict)
    results: Iterator[WorkResult] | None = None

    def inputs_of(self, part: str) -> list[tuple[int, Input]]:
        """The numbered source files of a part, in their order."""
        return [(number, item) for number, item in enumerate(self.inputs) if item.split == part]

    def folder_of(self, number: int) -> Path:
        """Where a worker writes what it makes of the file with this number."""
        return self.staged / f".file-{number}"

    @contextlib.contextmanager
    def reading(self, parts: Sequence[str], executor: Executor | None) -> Iterator[None]:
        """Let the workers of an executor compile the files of these parts, to be read in this order."""
        if executor is None:
            yield
            return
        items = []
        for part in parts:
            for number, item in self.inputs_of(part):
                arguments = (item, self.folder_of(number))
                items.append(WorkItem(item.display_path, compile_alone, arguments))
        results = executor.map(items, common=self.job, ahead=AHEAD * executor.workers)
        self.results = results
        with contextlib.closing(results):
            yield

    def read_part(self, part: str, prints: Fingerprints, files: Sequence[RecordFile]) -> None:
        """Compile the files of a part. `prints` get the fingerprints of its rows."""
        whole = Yielded(Problems(self.problems.limit), prints=prints)
        inputs = self.inputs_of(part)
        for number, item in inputs:
            if whole.readable >= self.job.limit or whole.counts.kept >= self.job.enough.get(part, NO_LIMIT):
                break
            whole.add(self._compiled(number, item, whole, files))
        self.problems.add(whole.problems)
        self.unused.add_rows(whole.unused)
        self.counts.add(whole.counts)
        if inputs and not self.problems.stopped:
            self._judge(part, inputs[0][1].display_path, whole)

    def _compiled(self, number: int, item: Input, before: Yielded, files: Sequence[RecordFile]) -> Yielded:
        """Compile a file, or take what a worker has made of it and append its records.

        A worker compiles each file as if it were the first. It is compiled again, here, if the files before
        it change that: a kept column has another type there.
        """
        rejected = self.problems.rejected
        if self.results is None:
            return compile_file(self.job, item, before, files, rejected, self.moved)
        alone: Yielded = next(self.results).record_or_raise()
        if self.moved:
            self.moved(stored_size(item.path))
        folder = self.folder_of(number)
        if before.fits(alone):
            parts = part_files(self.job.spec.of_part(item.split), folder)
            for file, part in zip(files, parts, strict=True):
                file.add_part(part.path)
            part_of_rejected = folder / REJECTED
            if rejected and part_of_rejected.exists():
                with part_of_rejected.open("rb") as source, rejected.open("ab") as target:
                    shutil.copyfileobj(source, target)
        else:
            alone = compile_file(self.job, item, before, files, rejected)
        shutil.rmtree(folder)
        return alone

    def _judge(self, part: str, place: str, whole: Yielded) -> None:
        """Report on all rows of a part together."""
        problems, read = self.problems, whole.counts.read
        if read and not whole.counts.kept:
            message = f"none of the {read} rows of {part} is kept, so it is not written"
            problems.warn(Problem("W209", place, message))
        kinds = self.job.spec.of_part(part).kinds
        for column, counts in whole.values.items():
            judge = kinds[column].judge
            finding = judge(counts, place) if judge else ""
            if isinstance(finding, str):
                problems.notes += [f"{place}: {finding}"] if finding else []
            elif min(self.job.limit, self.job.enough.get(part, NO_LIMIT)) == NO_LIMIT:
                problems.lead([finding])
