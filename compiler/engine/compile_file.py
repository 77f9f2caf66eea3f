"""Take one source file through a compile: the loop over its rows, then lint → render → write.

A file goes through all steps by itself, in this process or in a worker, and returns one plain record
(`FileResult`). That of the files before it decides on some of its rows.
"""

import contextlib
import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from tuneyard.compiler.check.checker import Types
from tuneyard.compiler.check.source_columns import find_source_column
from tuneyard.compiler.engine.request import CompileJob
from tuneyard.compiler.engine.row_loop import FileResult, Reading, RowLoop, SourceRows
from tuneyard.compiler.lint.runner import RowLints
from tuneyard.compiler.read.inputs import Input
from tuneyard.compiler.rows.draw import apportioned
from tuneyard.compiler.rows.problems import NO_LIMIT, Problems
from tuneyard.compiler.spec.model import ROW_NUMBER, Spec
from tuneyard.compiler.write.record_file import CountedRecords, RecordFile
from tuneyard.compiler.write.render import Renderer
from tuneyard.core.datasets import TRAIN_SPLIT
from tuneyard.core.files import Moved
from tuneyard.core.plugins import guarded


def rows_of_sources(spec: Spec) -> dict[str, int]:
    """The rows that each source of a mixture should have, {} without a mixture."""
    if spec.mix is None:
        return {}
    return apportioned(spec.mix.total, {name: source.share for name, source in spec.mix.sources.items()})


def most_kept(spec: Spec, input_name: str) -> int:
    """The kept rows after which an input is not read on: its rows in a mixture, if it streams from a hub."""
    if spec.mix and spec.of_input(input_name).source.hub.get("stream"):
        return rows_of_sources(spec)[input_name]
    return NO_LIMIT


TypesByInput = Mapping[str, Types]
"""The types of columns, by input, that an earlier reading has found in later rows."""


@dataclass(frozen=True)
class FileJob:
    """One input of a compile.

    - `before`: what the files of its split before it have yielded.
    - `files`: the file of each output, to which the records are appended.
    - `folder`: where rejected rows go, None for a check, which writes nothing.
    - `moved`: gets the numbers of bytes read, for a progress bar.
    """

    job: CompileJob
    item: Input
    before: FileResult
    files: Sequence[RecordFile]
    folder: Path | None
    moved: Moved | None = None

    @property
    def input_spec(self) -> Spec:
        """The spec of the file's source in a mixture, of other specs the spec itself."""
        return self.job.spec.of_input(self.item.input_name)

    def new_problems(self) -> Problems:
        """A collection of the problems of the file."""
        return self.job.new_problems(self.folder)


def compile_file(file_job: FileJob) -> FileResult:
    """Read a file, or the rows of it that are wanted, and append the records to the file of each output.

    What a reading has written is taken back if the file is read again. `TextIdError` if the files before it
    must be, too.
    """
    job, item = file_job.job, file_job.item
    loop = RowLoop(
        file_job.input_spec,
        SourceRows.of(item, file_job.input_spec),
        file_job.before,
        most_rows=job.request.limit or NO_LIMIT,
        most_kept=most_kept(job.spec, item.input_name),
        moved=file_job.moved,
    )
    savepoints = [file.savepoint() for file in file_job.files]
    rejected = file_job.new_problems().rejected
    rejected_size = rejected.stat().st_size if rejected and rejected.exists() else 0
    for number, reading in enumerate(loop.readings(file_job.new_problems)):
        if number > 0:
            for file, savepoint in zip(file_job.files, savepoints, strict=True):
                file.roll_back_to(savepoint)
            if rejected and rejected.exists():
                os.truncate(rejected, rejected_size)
        _write_rows(reading, file_job.input_spec, file_job.files)
    return reading.complete(TRAIN_SPLIT if job.spec.mix else item.input_name)


def _write_rows(reading: Reading, spec: Spec, files: Sequence[RecordFile]) -> None:
    """Lint, render and write the kept rows of a reading."""
    result = reading.result
    lints = RowLints(spec, result.problems)
    renderers = [Renderer(spec, output) for output in spec.outputs]
    judged = [column for column in spec.columns if column.type.judges_values]
    for _unused, batch in reading.batches():
        for column in judged:
            with guarded(column.type.plugin):
                result.values[column.name].update(batch.columns[column.name])
        lints.check(batch, result.fingerprints, has_ids=reading.has_ids)
        for renderer, file in zip(renderers, files, strict=True):
            file.add(*renderer.block(batch, file.separator))


def compile_alone(common: tuple[CompileJob, TypesByInput], item: Input, folder: Path | None) -> FileResult:
    """Compile a file in a worker, as if it were the first one, into its own folder, or only check it (None).

    It leaves the same files if it runs twice.
    """
    if folder:
        shutil.rmtree(folder, ignore_errors=True)  # of a worker that was lost
        folder.mkdir()
    job, types = common
    with contextlib.ExitStack() as stack:
        spec = job.spec.of_input(item.input_name)
        files = [stack.enter_context(file) for file in fragment_files(spec, folder)]
        before = FileResult(Problems(), types=dict(types.get(item.input_name, {})))
        return compile_file(FileJob(job, item, before, files, folder))


def fragment_files(spec: Spec, folder: Path | None) -> Iterator[RecordFile]:
    """The files of all outputs, for the rows of one source file or of several that are to be put in order.

    Without a folder, in a check, they only count.
    """
    for number, output in enumerate(spec.outputs):
        if folder is None:
            yield CountedRecords(Path(output.file))
            continue
        suffix = Path(output.file).suffix
        yield RecordFile(folder / f"{number}{suffix}", has_keys=spec.is_indexed(output), is_fragment=True)


def numbers_rows(item: Input, spec: Spec) -> bool:
    """True if the rows of a file get their numbers as ids: its first rows have no source of ids."""
    columns = [column for column in spec.columns if column.default == ROW_NUMBER]
    rows = SourceRows.of(item, spec).first() if columns else None
    if rows is None:
        return False
    names = rows.names()
    return any(find_source_column(column, names, rows) is None for column in columns)
