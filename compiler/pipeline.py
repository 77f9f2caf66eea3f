"""Compile the rows of a dataset: read → check → filter → lint → render → write, and report on them."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tuneyard.compiler.compile_file import NO_LIMIT, CompileJob
from tuneyard.compiler.lint.duplicates import imbalance, warn_of_duplicates
from tuneyard.compiler.lint.fingerprints import Fingerprints
from tuneyard.compiler.problems import KEPT, Problems
from tuneyard.compiler.progress import progress_bar
from tuneyard.compiler.read.inputs import Sources, with_rivals
from tuneyard.compiler.request import CompileReport, CompileRequest
from tuneyard.compiler.run import Run
from tuneyard.compiler.spec.model import PART, REJECTED, UNLABELLED, Spec
from tuneyard.compiler.two_passes import rows_of_streams, write_arranged
from tuneyard.core.errors import Problem, RequestError
from tuneyard.core.execution import Executor


def write_in_order(run: Run, executor: Executor) -> None:
    """Write each split while its files are read."""
    splits = [split for split in run.job.spec.splits if run.inputs_of(split)]
    with run.reading(splits, executor):
        for split in splits:
            prints = run.prints[split] = Fingerprints(counted_only=not run.job.compares_rows)
            with run.written.open(split) as files:
                run.read_part(split, prints, files)


def run_pipeline(
    spec: Spec, request: CompileRequest, sources: Sources, staged: Path, executor: Executor
) -> CompileReport:
    """Take all rows through the steps of a compile, write the files into a folder, and report on them."""
    if (spec.arranged or spec.near) and not request.duplicates:
        reason = "is sampled, split, mixed or searched for near rows: all are needed"
        raise RequestError(f"--no-duplicates: {spec.name} {reason}")
    problems = Problems(
        None if request.every_problem else KEPT, staged / REJECTED if request.reject else None
    )
    problems.notes += sources.notes
    for warning in sources.warnings:
        problems.warn(warning)
    job = CompileJob(
        with_rivals(spec, sources.inputs),
        problems.limit,
        request.reject,
        request.duplicates,
        request.limit or NO_LIMIT,
        rows_of_streams(spec),
    )
    with progress_bar(item.path for item in sources.inputs) as moved:
        run = Run(job, sources.inputs, staged, request.seed, problems, moved)
        if spec.arranged:
            write_arranged(run, executor)
        else:
            write_in_order(run, executor)
    return _report(run, strict=request.strict)


def _report(run: Run, *, strict: bool) -> CompileReport:
    """Compare the rows with each other, and report on the compile."""
    spec, problems, counts = run.job.spec, run.problems, run.counts
    fit: dict[str, object] = {}
    problems.lead(run.unused.problems(counts.read))
    if not problems.stopped:
        fit = warn_of_duplicates(run.prints, spec.group, problems, near=spec.near)
        _warn_of_labels(spec, fit, problems)
    counts.rejected = problems.bad_rows
    if not problems.stopped:
        counts.balance(spec.name, run.written.records_of_outputs())
        if not counts.kept:
            problems.lead([_no_rows(run)])
    problems.sort_warnings()
    report = CompileReport(
        read=counts.read,
        kept=counts.kept,
        rejected=counts.rejected,
        not_sampled=counts.not_sampled,
        dropped=counts.dropped,
        name=spec.name,
        problems=problems,
        unused=run.unused,
        fit=fit,
        datasets={} if problems.stopped else run.written.records(),
    )
    problems.fatal |= strict and problems.count("W") > 0
    if report.failed:
        report.not_written, report.kept = report.kept, 0
    else:
        report.files = run.written.account(run.prints)
    return report


def _no_rows(run: Run) -> Problem:
    """E013 for a compile that keeps no row."""
    counts = run.counts
    message = "no rows: the source holds none"
    if counts.read:
        message = f"no rows left of {counts.read}"
    if counts.dropped:
        reasons = [f"{reason} {count}" for reason, count in counts.dropped.items()]
        message += f": {', '.join(reasons)}"
    return Problem("E013", ", ".join(item.display_path for item in run.inputs), message)


def _warn_of_labels(spec: Spec, fit: Mapping[str, Any], problems: Problems) -> None:
    """Warn if labels of training rows are far out of balance; `fit` is that of the manifest."""
    training = fit.get(PART, {})
    labels = [label for label in spec.labels if label != UNLABELLED]
    shares = imbalance(training.get("labels", {}), labels)
    if shares:
        message = f"far out of balance: {shares} of {training['rows']} training rows"
        hint = "add rows of the rare ones, or leave rows of the common ones out"
        problems.warn(Problem("W222", spec.name, message, "label", hint))
