"""From inputs to a published set: read → check → render → write, then compare, register."""

import contextlib
import gc
import json
import time
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any, cast

from compiler.arranged import Arranged
from compiler.check import Checker
from compiler.compare import compare
from compiler.manifest import Identity, entries, identify, read_standing, seal
from compiler.part import PartRun, record_files
from compiler.problems import Problems
from compiler.read import read
from compiler.registry import QUARANTINE, check_names, put_in_place, repair
from compiler.render import Renderer
from compiler.request import Report, Request
from compiler.seen import Seen
from compiler.sources import Input, find_inputs
from compiler.spec import Spec
from core.errors import Problem, ProblemsError, RequestError
from core.files import staging


def compile_spec(spec: Spec, request: Request) -> Report:
    """Compile a spec into `request.out/NAME` and register it; nothing changes where a problem is found."""
    started = time.perf_counter()
    inputs = find_inputs(spec, request.sources)
    target = request.out / spec.name
    for found in inputs:
        if found.within(target):
            raise RequestError(f"{found.shown}: the source lies inside the output folder {target}")
    repair(request.out)
    check_names(target, entries(spec, spec.splits))
    with _no_empty_folder(request.out), ThreadPoolExecutor(1) as hashing:  # which needs no interpreter lock
        identity = hashing.submit(identify, spec, request, inputs)
        report = None if request.force else _standing(target, identity, request.strict)
        if report is None:
            with staging(target) as staged:
                report = _run(spec, request, inputs, staged)
                if not report.problems.stopped:
                    seal(spec, identity.result(), report, staged)
                    put_in_place(staged, target)
    report.seconds = time.perf_counter() - started
    return report


def check_spec(spec: Spec, request: Request) -> Report:
    """Find every problem that a compile would find; writes nothing."""
    started = time.perf_counter()
    report = _run(spec, request, find_inputs(spec, request.sources), None)
    report.seconds = time.perf_counter() - started
    return report


@contextlib.contextmanager
def _no_empty_folder(out: Path) -> Iterator[None]:
    """Remove the folders that were made for nothing: a compile that failed or was interrupted leaves none."""
    made = [folder for folder in (out, *out.parents) if not folder.exists()]
    try:
        yield
    finally:
        with contextlib.suppress(OSError):  # not empty
            for folder in made:
                folder.rmdir()


def _run(spec: Spec, request: Request, inputs: list[Input], staged: Path | None) -> Report:
    limit = None if request.every_problem else 1000
    aside = staged / QUARANTINE if staged and request.quarantine else None
    report = Report(spec.name, Problems(limit, aside))
    with _no_collection():
        if spec.arranged:
            splits = Arranged(spec, request, inputs, staged, report).run()
        else:
            splits = _straight(spec, request, inputs, staged, report)
        if not report.problems.stopped:
            report.fit = compare(splits, spec.group, report.problems, near=spec.near)
    report.drop("bad rows", report.problems.bad_rows)
    _complain_of_nothing(report, inputs)
    if request.strict and report.problems.count("W"):
        report.problems.fatal = True
    return report


def _straight(
    spec: Spec, request: Request, inputs: list[Input], staged: Path | None, report: Report
) -> dict[str, Seen]:
    """Write each split as it is read; nothing is held but what comparing needs."""
    splits = {}
    for split in spec.splits:
        part = [found for found in inputs if found.split == split]
        if part:
            splits[split] = seen = Seen()
            paths = [staged / output.file.format(split=split) for output in spec.outputs] if staged else []
            with record_files(paths) as files:
                PartRun(spec, split, request, report, seen).run(part, files)
            report.keep_files(spec, split, files)
    return splits


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


def _standing(target: Path, identity: Future[Identity], strict: bool) -> Report | None:
    """Return the report of the set that stands, if it is what this compile would make."""
    manifest = read_standing(target)
    if manifest is None or manifest["made_from"] != identity.result() or (strict and manifest["problems"]):
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
