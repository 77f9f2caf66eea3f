"""From inputs to a published set: read → check → render → write, then compare, register."""

import contextlib
import gc
import time
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from tuneyard.compiler.check.unused_columns import Unused
from tuneyard.compiler.lint.duplicates import compare, imbalance
from tuneyard.compiler.pipeline import Context, write_splits
from tuneyard.compiler.problems import KEPT, Problems
from tuneyard.compiler.progress import Progress
from tuneyard.compiler.publish.registry import Registry, manifest_of
from tuneyard.compiler.read.inputs import Input, find_inputs, hashing, texts_by_line, unread
from tuneyard.compiler.request import CompileReport, CompileRequest, Counts
from tuneyard.compiler.spec.model import PART, REJECTED, UNLABELLED, Spec
from tuneyard.core.errors import Problem, RequestError
from tuneyard.core.files import staging


def compile_spec(spec: Spec, request: CompileRequest) -> CompileReport:
    """Compile a spec into `request.out/NAME` and register it; nothing changes where a problem is found."""
    started, inputs = time.perf_counter(), find_inputs(spec, request.sources)
    registry = Registry(request.out)
    registry.check(spec, inputs, force=request.force)
    with hashing(inputs) as sources:
        report = None if request.force else registry.standing(spec, request, sources)
        if report is None:
            with staging(request.out / spec.name) as staged:
                report = _run(spec, request, inputs, staged)
                if not report.failed:
                    made_from = request.identity(spec, sources())
                    manifest = manifest_of(spec, report, made_from)
                    report.problems.notes.extend(registry.publish(staged, spec.name, manifest))
    report.problems.notes.extend(registry.restored)
    report.seconds = time.perf_counter() - started
    return report


def check_spec(spec: Spec, request: CompileRequest) -> CompileReport:
    """Find every problem that a compile would find; writes nothing."""
    started = time.perf_counter()
    report = _run(spec, request, find_inputs(spec, request.sources), None)
    report.seconds = time.perf_counter() - started
    return report


def _run(spec: Spec, request: CompileRequest, inputs: list[Input], staged: Path | None) -> CompileReport:
    if (spec.arranged or spec.near) and not request.duplicates:
        why = "is sampled, split, mixed or searched for near rows: all are needed"
        raise RequestError(f"--no-duplicates: {spec.name} {why}")
    rejected = staged / REJECTED if staged and request.reject else None
    problems = Problems(None if request.every_problem else KEPT, rejected)
    problems.notes += unread(request.sources)
    for warning in texts_by_line(inputs):
        problems.warn(warning)
    context = Context(request, problems, Unused(), Progress([found.path for found in inputs]))
    fit: dict[str, object] = {}
    with _no_collection(), contextlib.closing(context.progress):
        counts, written = write_splits(spec, context, inputs, staged)
        problems.lead(context.unused.problems(spec, counts.read))
        if not problems.stopped:
            fit = compare(written.splits, spec.group, problems, near=spec.near)
            _warn_of_labels(spec, fit, problems)
        if not problems.stopped:
            problems.lead(written.retyped())
    if problems.stopped:
        written.forget()
    counts.rejected = 0 if rejected else problems.bad_rows
    if rejected and rejected.exists():
        with rejected.open("rb") as file:
            counts.rejected = sum(1 for _ in file)
    report = CompileReport(
        **asdict(counts), name=spec.name, problems=problems, unused=context.unused, fit=fit
    )
    if not problems.stopped:
        if staged:
            report.datasets, report.files = written.account(counts.kept)
        counts.balance(spec.name)
        if not counts.kept:
            problems.lead([_nothing_left(counts, inputs)])
    problems.fatal |= request.strict and problems.count("W") > 0
    return report


def _warn_of_labels(spec: Spec, fit: Mapping[str, Any], problems: Problems) -> None:
    """Warn if the labels of the rows to train on are far out of balance; `fit` is that of the manifest."""
    training = fit.get(PART, {})
    labels = [label for label in spec.labels if label != UNLABELLED]
    shares = imbalance(training.get("labels", {}), labels)
    if shares:
        message = f"far out of balance: {shares} of {training['rows']} training rows"
        hint = "add rows of the rare ones, or leave rows of the common ones out"
        problems.warn(Problem("W222", spec.name, message, "label", hint))


@contextlib.contextmanager
def _no_collection() -> Iterator[None]:
    """Rows are trees without cycles: the collector would only walk over them again and again."""
    was = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was:
            gc.enable()


def _nothing_left(counts: Counts, inputs: list[Input]) -> Problem:
    shown = ", ".join(found.shown for found in inputs)
    why = ", ".join(f"{reason} {count}" for reason, count in counts.dropped.items())
    reasons = f": {why}" if why else ""
    message = f"no rows left of {counts.read}{reasons}" if counts.read else "no rows: the source holds none"
    return Problem("E013", shown, message)
