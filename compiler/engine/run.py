"""The state of one compile, which puts together what its source files yield, in the order of the files."""

import contextlib
import shutil
from array import array
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from tuneyard.compiler.check.checker import TextIdError
from tuneyard.compiler.engine.compile_file import (
    FileJob,
    TypesByInput,
    compile_alone,
    compile_file,
    fragment_files,
    most_kept,
)
from tuneyard.compiler.engine.request import CompileJob, CompileReport
from tuneyard.compiler.engine.row_loop import FileResult
from tuneyard.compiler.lint.fingerprints import Fingerprints
from tuneyard.compiler.lint.matching import numbered
from tuneyard.compiler.read.inputs import Input
from tuneyard.compiler.read.stream import stored_size
from tuneyard.compiler.rows.problems import NO_LIMIT, Problems
from tuneyard.compiler.spec.model import REJECTED, WHOLE, Output, Spec
from tuneyard.compiler.write.record_file import CountedRecords, RecordFile, keys_in
from tuneyard.core.datasets.compiled import CompiledFile, CompiledFiles, row_index_file, write_row_index
from tuneyard.core.errors import Problem, show_value
from tuneyard.core.errors.problem_codes import ProblemCode
from tuneyard.core.execution import Executor, WorkItem, WorkResult
from tuneyard.core.files import Moved, sha256
from tuneyard.core.language.message import _
from tuneyard.core.plugins import guarded

EMPTY_SPLIT = ProblemCode(
    "W209",
    _("a split without rows"),
    _("Check whether the rows of this split have labels."),
)


AHEAD = 2  # files for each worker that it reads, or whose results wait for an earlier one


class TextIdsError(Exception):
    """The ids of a `column` are text in a later file of an input: the compile begins again, with text."""

    def __init__(self, input_name: str, column: str) -> None:
        super().__init__(input_name, column)
        self.input_name = input_name
        self.column = column


@dataclass
class Run:
    """One run of a job: its written files, and the `report` of all inputs so far.

    - `staged`: the folder of the written files, None for a check, which writes none. `written`: each of them,
      with its split and its output.
    - `fingerprints`: the fingerprints of the rows of each split that is written.
    - `drawn`: what became of the rows of the files of all splits.
    - `results`: what workers make of the files, None if this process compiles them.
    - `moved`: moves the bar, None without a terminal.
    - `types`: what an earlier run has found of the ids of each input (`TextIdsError`).
    """

    job: CompileJob
    staged: Path | None
    report: CompileReport
    moved: Moved | None = None
    written: list[tuple[str, Output, RecordFile]] = field(default_factory=list)
    fingerprints: dict[str, Fingerprints] = field(default_factory=dict)
    drawn: "dict[str, array[int] | memoryview[int]]" = field(default_factory=dict)
    results: Iterator[WorkResult] | None = None
    types: TypesByInput = field(default_factory=dict)

    @property
    def spec(self) -> Spec:
        """The spec of the job."""
        return self.job.spec

    def inputs_of(self, input_name: str) -> list[tuple[int, Input]]:
        """The numbered source files of an input, in their order."""
        return [
            (number, item) for number, item in enumerate(self.job.inputs) if item.input_name == input_name
        ]

    def folder_of(self, number: int) -> Path | None:
        """The folder to which a worker writes the records of the file with this number, None for a check."""
        return self.staged / f".file-{number}" if self.staged else None

    @contextlib.contextmanager
    def workers(self, input_names: Sequence[str], executor: Executor | None) -> Iterator[None]:
        """Let the workers of an executor, if any, compile the files of these inputs in this order."""
        if executor is None:
            yield
            return
        items = [
            WorkItem(item.display_path, compile_alone, (item, self.folder_of(number)))
            for input_name in input_names
            for number, item in self.inputs_of(input_name)
        ]
        results = executor.map(items, common=(self.job, self.types), ahead=AHEAD * executor.workers)
        self.results = results
        with contextlib.closing(results):
            yield

    def compile_input(self, input_name: str, fingerprints: Fingerprints, files: Sequence[RecordFile]) -> None:
        """Compile the files of an input. `fingerprints` get the fingerprints of its rows."""
        report = self.report
        whole = FileResult(Problems(self.job.request.most_problems), fingerprints=fingerprints)
        whole.types |= self.types.get(input_name, {})
        most_rows, most_written = self.job.request.limit or NO_LIMIT, most_kept(self.spec, input_name)
        inputs = self.inputs_of(input_name)
        for number, item in inputs:
            if whole.readable >= most_rows or whole.counts.kept >= most_written:
                break
            try:
                whole.add(self._result_of_file(number, item, whole, files))
            except TextIdError as error:
                raise TextIdsError(input_name, error.column) from error
        report.problems.add(whole.problems)
        report.unused.add_rows(whole.unused)
        report.add(whole.counts)
        if inputs and not report.failed:
            is_whole = min(most_rows, most_written) == NO_LIMIT
            self._judge(input_name, inputs[0][1].display_path, whole, is_whole=is_whole)

    def _result_of_file(
        self, number: int, item: Input, before: FileResult, files: Sequence[RecordFile]
    ) -> FileResult:
        """Compile a file, or append the records that a worker has made of it.

        A worker compiles each file as if it were the first. It is compiled again, here, if the files before
        it change that: a kept column has another type there.
        """
        if self.results is None:
            return compile_file(FileJob(self.job, item, before, files, self.staged, self.moved))
        alone: FileResult = next(self.results).record_or_raise()
        if self.moved:
            self.moved(stored_size(item.path))
        folder = self.folder_of(number)
        if not before.fits(alone):
            alone = compile_file(FileJob(self.job, item, before, files, self.staged))
        elif folder is None:
            for file in files:
                file.records += alone.counts.kept
        else:
            self._append(folder, item, files)
        if folder:
            shutil.rmtree(folder)
        return alone

    def _append(self, folder: Path, item: Input, files: Sequence[RecordFile]) -> None:
        """Append the records and the rejected rows that a worker has written to a folder."""
        fragments = fragment_files(self.spec.of_input(item.input_name), folder)
        for file, fragment in zip(files, fragments, strict=True):
            file.add_fragment(fragment.path)
        rejected = self.job.new_problems(self.staged).rejected
        fragment_of_rejected = folder / REJECTED
        if rejected and fragment_of_rejected.exists():
            with fragment_of_rejected.open("rb") as source, rejected.open("ab") as target:
                shutil.copyfileobj(source, target)

    def _judge(self, input_name: str, location: str, whole: FileResult, *, is_whole: bool) -> None:
        """Report on all rows of an input together. `is_whole`: reading does not end before its last row."""
        problems, read = self.report.problems, whole.counts.read
        if read and not whole.counts.kept:
            message = _(
                "none of the {read} rows of {name} is kept, so it is not written", read=read, name=input_name
            )
            problems.warn(Problem(EMPTY_SPLIT, location, message))
        types = self.spec.of_input(input_name).types
        for column, counts in whole.values.items():
            column_type = types[column]
            with guarded(column_type.plugin):
                finding = column_type.judge(counts, location)
                if not isinstance(finding, str | Problem):
                    raise TypeError(
                        _("`judge` gave {finding}, expected a problem or a text", finding=show_value(finding))
                    )
            if isinstance(finding, str):
                if finding:
                    problems.notes.append(_("{path}: {finding}", path=location, finding=finding))
            elif is_whole:
                problems.lead([finding])

    @contextlib.contextmanager
    def open(self, split: str) -> Iterator[list[RecordFile]]:
        """Open the files of a split, or of `WHOLE`. Those that get no records do not come to be."""
        outputs = [output for _unused, output in self.spec.outputs_of(split)]
        files: list[RecordFile] = []
        for output in outputs:
            name = output.file_of(split)
            if self.staged:
                files.append(RecordFile(self.staged / name, has_keys=self.spec.is_indexed(output)))
            else:
                files.append(CountedRecords(Path(name)))
        with contextlib.ExitStack() as stack:
            for file in files:
                stack.enter_context(file)
            yield files
        for output, file in zip(outputs, files, strict=True):
            if file.records:
                self.written.append((split, output, file))
            else:
                file.delete()

    def records(self) -> dict[str, int]:
        """The number of records of each dataset, and of each other file by its name."""
        records = {}
        for split, output, file in self.written:
            name = output.dataset_of(split) or file.path.name
            records[name] = file.records
        return records

    def account(self) -> CompiledFiles:
        """Write the row index of each dataset. Returns rows and hash by file.

        The rows must have been compared: all fingerprints but the clusters make room for the row index.
        """
        for fingerprints in self.fingerprints.values():
            fingerprints.forget("prompts", "answers", "lengths", "labels")
        files = {file.path.name: CompiledFile(file.records, file.sha256) for *_unused, file in self.written}
        group = self.spec.group
        for split, _unused, file in self.written:
            if file.keys is None:
                continue
            row_index = row_index_file(file.path)
            columns = self.drawn
            if split != WHOLE:
                columns = {group: numbered(self.fingerprints[split].column("groups"))} if group else {}
            write_row_index(row_index, keys_in(file.keys), columns)
            file.keys.unlink()
            files[row_index.name] = CompiledFile(file.records, sha256(row_index))
        return files
