"""From inputs to a published set: read → check → render → write, then compare, register."""

import contextlib
import gc
import json
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

from compiler.check import Checker
from compiler.fit import Fit
from compiler.manifest import Identity, entries, identify, read_standing, seal
from compiler.problems import Problems
from compiler.read import read
from compiler.registry import check_names, put_in_place, repair
from compiler.render import Renderer
from compiler.request import Report, Request
from compiler.rows import Batch
from compiler.sources import Input, find_inputs
from compiler.spec import Output, Spec
from compiler.write import RecordFile
from core.errors import Problem, ProblemsError, RequestError
from core.files import staging


def compile_spec(spec: Spec, request: Request) -> Report:
    """Compile a spec into `request.out/NAME` and register it; nothing changes where a problem is found."""
    started = time.perf_counter()
    inputs = find_inputs(spec, request.sources)
    target = request.out / spec.name
    for found in inputs:
        if found.path.resolve().is_relative_to(target.resolve()):
            raise RequestError(f"{found.shown}: the source lies inside the output folder {target}")
    repair(request.out)
    check_names(target, entries(spec, spec.splits))
    identity = identify(spec, request, inputs)
    report = None if request.force else _standing(target, identity, request.strict)
    if report is None:
        existed = request.out.exists()
        with staging(target) as staged:
            report = _run(spec, request, inputs, staged)
            if not report.problems.stopped:
                seal(spec, identity, report, staged)
                put_in_place(staged, target)
        if report.problems.stopped and not existed:
            with contextlib.suppress(OSError):
                request.out.rmdir()
    report.seconds = time.perf_counter() - started
    return report


def check_spec(spec: Spec, request: Request) -> Report:
    """Find every problem that a compile would find; writes nothing."""
    started = time.perf_counter()
    report = _run(spec, request, find_inputs(spec, request.sources), None)
    report.seconds = time.perf_counter() - started
    return report


def _run(spec: Spec, request: Request, inputs: list[Input], staged: Path | None) -> Report:
    limit = None if request.every_problem else 1000
    aside = staged / "quarantine.jsonl" if staged and request.quarantine else None
    report = Report(spec.name, Problems(limit, aside))
    fit = Fit(spec, report.problems)
    with _no_collection():
        for split in spec.splits:
            part = [found for found in inputs if found.split == split]
            if part:
                _Part(spec, request, split, report, fit).run(part, staged)
        if not report.problems.stopped:
            report.fit = fit.finish()
    report.drop("bad rows", report.problems.bad_rows)
    _complain_of_nothing(report, inputs)
    if request.strict and report.problems.count("W"):
        report.problems.fatal = True
    return report


class _Part:
    """One split on its way through the stages."""

    def __init__(self, spec: Spec, request: Request, split: str, report: Report, fit: Fit) -> None:
        self.spec, self.request, self.split, self.report, self.fit = spec, request, split, report, fit
        self.problems = report.problems
        self.renderers = [Renderer(spec, output) for output in spec.outputs]
        self.read = 0
        self.kept = 0

    def run(self, inputs: list[Input], staged: Path | None) -> None:
        """Read all files of the split and write its outputs."""
        with contextlib.ExitStack() as stack:
            files = [
                stack.enter_context(RecordFile(staged / output.file.format(split=self.split)))
                if staged
                else None
                for output in self.spec.outputs
            ]
            for found in inputs:
                self._file(found, files)
        self.report.read += self.read
        if self.read and not self.kept and not self.problems.stopped:
            message = f"none of the {self.read} rows of {self.split} is kept, so it is not written"
            self.problems.warn(Problem("W209", inputs[0].shown, message))
        for output, file in zip(self.spec.outputs, files, strict=True):
            if file:
                self._finish(output, file)

    def _file(self, found: Input, files: list[RecordFile | None]) -> None:
        checker = Checker(self.spec, self.problems, dict(self.request.columns), self.read)
        bad_before = self.problems.bad_rows
        passed_on = 0
        for rows in read(found.path, found.shown, self.spec.source, self.problems):
            room = self._room(passed_on)
            if room < len(rows.lines):
                rows = rows.head(room)  # the same rows, fewer
            passed_on += len(rows.lines)
            if not rows.lines or (batch := checker.check(rows)) is None:
                break
            self._take(batch, "idx" in checker.theirs, files)
        self.report.notes += checker.notes(found.shown)
        unreadable = self.problems.bad_rows - bad_before - checker.bad
        self.read += passed_on + unreadable
        self.report.drop("no gold label", checker.unlabelled)

    def _room(self, passed_on: int) -> int:
        limit = self.request.limit
        return sys.maxsize if limit is None else max(limit - self.read - passed_on, 0)

    def _take(self, batch: Batch, numbered: bool, files: list[RecordFile | None]) -> None:
        if self.problems.stopped or not batch.lines:
            return
        self.kept += len(batch)
        self.fit.see(self.split, batch, numbered)
        for renderer, file in zip(self.renderers, files, strict=True):
            if file:
                file.write(renderer.render(batch))

    def _finish(self, output: Output, file: RecordFile) -> None:
        if file.rows == 0:
            file.path.unlink()
            return
        name = output.dataset.format(split=self.split) if output.dataset else file.path.name
        self.report.datasets[name] = file.rows
        self.report.files[file.path.name] = {"rows": file.rows, "sha256": file.sha256}


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


def _complain_of_nothing(report: Report, inputs: list[Input]) -> None:
    """A compile without a single record is an error; why there is none stands in the counts."""
    problems = report.problems
    if problems.stopped or report.kept:
        return
    shown = ", ".join(found.shown for found in inputs)
    why = ", ".join(f"{reason} {count}" for reason, count in report.dropped.items())
    message = f"no rows left of {report.read}: {why}" if report.read else "no rows: the file is empty"
    problems.bad_file(Problem("E013", shown, message))


def _standing(target: Path, identity: Identity, strict: bool) -> Report | None:
    """Return the report of the set that stands, if it is what this compile would make."""
    manifest = read_standing(target, identity)
    if manifest is None or (strict and manifest["problems"]):
        return None
    counts = cast("dict[str, Any]", manifest["counts"])
    return Report(
        target.name,
        Problems(),
        read=counts["read"],
        dropped=counts["dropped"],
        datasets=counts["records"],
        up_to_date=True,
    )


def trace(spec: Spec, request: Request, row: int) -> Iterator[tuple[str, str]]:
    """Yield (title, text) for the steps of one kept row, numbered from 1 over all inputs."""
    seen = 0
    problems = Problems()
    for found in find_inputs(spec, request.sources):
        checker = Checker(spec, problems, dict(request.columns))
        for rows in read(found.path, found.shown, spec.source, problems):
            batch = checker.check(rows)
            if batch is None:
                raise ProblemsError(problems.errors, spec.name)
            if row <= seen + len(batch):
                one = batch.keep([row - seen - 1])
                raw = rows.row(list(rows.lines).index(one.lines[0]))
                yield f"raw row, {one.place(0)}", _pretty(raw)
                yield "columns", _pretty({name: values[0] for name, values in one.columns.items()})
                for output in spec.outputs:
                    record = Renderer(spec, output).render(one)[0]
                    yield f"record in {output.file.format(split=found.split)}", record.decode()
                return
            seen += len(batch)
    if problems.errors:
        raise ProblemsError(problems.errors, spec.name)
    raise RequestError(f"no row {row}: {seen} rows are kept")


def _pretty(value: object) -> str:
    return json.dumps(value, ensure_ascii=False, indent=2, default=str)
