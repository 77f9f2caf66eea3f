"""Take all inputs of a compile through its steps: here or in workers, in one pass or in two.

The rows are compared once all of them are read, and the counts must add up.
"""

import shutil
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path

from tuneyard.compiler.check.checker import Types
from tuneyard.compiler.engine.compile_file import TypesByInput, most_kept, numbers_rows
from tuneyard.compiler.engine.moved_rows import moved_rows
from tuneyard.compiler.engine.request import CompileJob, CompileReport
from tuneyard.compiler.engine.run import Run, TextIdsError
from tuneyard.compiler.engine.two_passes import write_in_two_passes
from tuneyard.compiler.lint.fingerprints import Fingerprints
from tuneyard.compiler.lint.repeated_rows import REPEATED_ROW
from tuneyard.compiler.lint.runner import lint_splits
from tuneyard.compiler.read.input_notes import members_not_read, not_read, notes_on_splits, texts_by_line
from tuneyard.compiler.read.stream import progress_bar, stored_size
from tuneyard.compiler.rows.problem_codes import NO_ROWS
from tuneyard.compiler.rows.problems import NO_LIMIT
from tuneyard.core.errors import Problem
from tuneyard.core.execution import Executor
from tuneyard.core.execution.options import default_workers, executor_of
from tuneyard.core.language.message import _
from tuneyard.core.language.messages import warn

SEVERAL_PAY = 1 << 25  # bytes of the sources from which several processes pay (tools/bench/compile.py)


def compile_inputs(job: CompileJob, folder: Path | None) -> CompileReport:
    """Take all rows through the steps of a compile, write the files into a folder, and report on them.

    A check has no folder (None). The compile begins again if ids of a later file show that those of the files
    before it are text.
    """
    types: dict[str, Types] = {}
    while True:
        try:
            return _compile_once(job, folder, types)
        except TextIdsError as error:
            types.setdefault(error.input_name, {})[error.column] = "text"
            for path in folder.iterdir() if folder else ():
                if path.is_dir():
                    shutil.rmtree(path)
                else:
                    path.unlink()


def _compile_once(job: CompileJob, folder: Path | None, types: TypesByInput) -> CompileReport:
    """Compile once. `types` are those of ids that an earlier run has found."""
    spec, inputs = job.spec, job.inputs
    report = CompileReport(name=spec.name, problems=job.new_problems(folder))
    for warning in (*texts_by_line(spec, inputs), *not_read(inputs), *members_not_read(inputs)):
        report.problems.warn(warning)
    report.problems.notes += notes_on_splits(spec, inputs)
    with _executor_for(job) as executor, progress_bar(item.path for item in inputs) as moved:
        if executor:
            executor.check_paths([item.path for item in inputs], [folder] if folder else [])
        run = Run(job, folder, report, moved, types=types)
        if spec.needs_two_passes:
            write_in_two_passes(run, executor)
        else:
            splits = [split for split in spec.splits if run.inputs_of(split)]
            with run.workers(splits, executor):
                for split in splits:  # written while its files are read
                    fingerprints = run.fingerprints[split] = Fingerprints()
                    with run.open(split) as files:
                        run.compile_input(split, fingerprints, files)
    _complete(run)
    return report


def _complete(run: Run) -> None:
    """Compare the rows with each other, and complete the report."""
    spec, report, problems = run.spec, run.report, run.report.problems
    if report.unused.findings:
        problems.lead(report.unused.problems(report.read))
    report.rejected = problems.bad_rows
    if not report.failed:
        report.quality = lint_splits(spec, run.fingerprints, problems)
        is_drawn = spec.split and not (spec.split.is_given or spec.split.group)
        if is_drawn and problems.counts[REPEATED_ROW]:
            problems.notes.append(
                _("{name}: equal rows were drawn into one split (W202 counts them)", name=spec.name)
            )
        totals = dict.fromkeys([output.file for output in spec.outputs], 0)
        for _unused, output, file in run.written:
            totals[output.file] += file.records
        report.balance(totals)
        if not report.kept:
            message = _("no rows: the source holds none")
            if report.read and spec.labels:
                message = _(
                    "no rows left of {rows}; no label in any? --column label=COLUMN names its column",
                    rows=report.read,
                )
            elif report.read:
                message = _("no rows left of {rows}", rows=report.read)
            locations = ", ".join(item.display_path for item in run.job.inputs)
            problems.lead([Problem(NO_ROWS, locations, message)])
        for warning in moved_rows(run):
            problems.warn(warning)
    problems.sort_warnings()
    if not report.failed:
        report.datasets = run.records()
    problems.fatal |= run.job.request.strict and problems.count("W") > 0
    if report.failed:
        report.not_written, report.kept = report.kept, 0
    elif run.staged:
        report.files = run.account()


def _executor_for(job: CompileJob) -> AbstractContextManager[Executor | None]:
    """Where the files of a compile are read, None for this process alone.

    By default several processes read several large files. One process does if a file cannot be read without
    the files before it. A warning says why if workers were asked for.
    """
    request, inputs = job.request, job.inputs
    size = sum(stored_size(item.path) for item in inputs)
    default = min(default_workers(size, SEVERAL_PAY), len(inputs))
    if request.ray is None and (request.workers or default) == 1:
        return nullcontext()
    reason = _one_process(job)
    if not reason:
        return executor_of(request.workers, request.ray, default)
    if request.ray is not None or request.workers is not None:
        warn(_("{name} is read in one process: {reason}", name=job.spec.name, reason=reason))
    return nullcontext()


def _one_process(job: CompileJob) -> str:
    """Why the files of a compile cannot be read side by side, "" if they can."""
    spec, request, inputs = job.spec, job.request, job.inputs
    if len(inputs) == 1:
        return _("it is one file, {path}", path=inputs[0].display_path)
    if request.limit is not None:
        return _("--limit {number} ends with the first rows", number=request.limit)
    if any(most_kept(spec, item.input_name) < NO_LIMIT for item in inputs):
        return _("a mixture that streams from a hub reads as far as its shares go")
    for item in inputs:
        if numbers_rows(item, spec.of_input(item.input_name)):
            return _("{path} has no ids, and the rows of all files are numbered", path=item.display_path)
    return ""
