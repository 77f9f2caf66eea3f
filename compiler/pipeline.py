"""From inputs to a published set: read → check → render → write, then compare, register."""

import contextlib
import gc
import time
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any, cast

from compiler.arranged import Arranged
from compiler.compare import compare
from compiler.manifest import Identity, entries, identify, read_standing, seal
from compiler.part import PartRun, split_files
from compiler.problems import Problems
from compiler.progress import Progress, size_of
from compiler.readback import account
from compiler.registry import check_names, put_in_place, repair
from compiler.request import Report, Request
from compiler.seen import Seen
from compiler.sources import Input, Stamp, find_inputs, told_apart
from compiler.spec import MANIFEST, QUARANTINE, Spec
from compiler.unused import Unused
from core.errors import ContentError, Problem, RequestError
from core.files import read_object, staging


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
    if not request.force:
        _refuse_to_lose(spec, inputs, target)
    before = [found.stamp() for found in inputs]
    with _no_empty_folder(request.out), ThreadPoolExecutor(1) as hashing:  # which needs no interpreter lock
        identity = hashing.submit(identify, spec, request, inputs)
        report = None if request.force else _standing(target, identity, request)
        if report is None:
            with staging(target) as staged:
                report = _run(spec, request, inputs, staged)
                if not report.problems.stopped:
                    made_from = identity.result()
                    _refuse_changed(inputs, before)
                    seal(spec, made_from, report, staged)
                    put_in_place(staged, target)
    report.seconds = time.perf_counter() - started
    return report


def check_spec(spec: Spec, request: Request) -> Report:
    """Find every problem that a compile would find; writes nothing."""
    started = time.perf_counter()
    report = _run(spec, request, find_inputs(spec, request.sources), None)
    report.seconds = time.perf_counter() - started
    return report


def _refuse_to_lose(spec: Spec, inputs: list[Input], target: Path) -> None:
    """Refuse to replace a set by one that lacks a split of it, since no source was given for that."""
    if spec.split or spec.mix or not (target / MANIFEST).is_file():
        return
    there = cast("dict[str, object]", read_object(target / MANIFEST).get("files") or {})
    given = {found.split for found in inputs}
    for split in [split for split in spec.splits if split not in given]:
        files = [file for output in spec.outputs if (file := output.file.format(split=split)) in there]
        if files:
            raise RequestError(
                f"{target}: holds the split {split} ({', '.join(files)}), for which there is no source: it "
                f"would be deleted and unregistered; give --source {split}=PATH too, or --force to let it go"
            )


def _refuse_changed(inputs: list[Input], before: list[Stamp]) -> None:
    """Refuse sources that did not stay as they were: their hash may be of other bytes than were read."""
    for found, was in zip(inputs, before, strict=True):
        if found.stamp() != was:
            raise ContentError(
                f"{found.shown}: changed, or was replaced, while it was read; nothing was published: "
                "compile again when nothing writes to it"
            )


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
    if (spec.arranged or spec.near) and not request.duplicates:
        raise RequestError(
            f"--no-duplicates: {spec.name} is sampled, split, mixed or searched for near rows: all are needed"
        )
    limit = None if request.every_problem else 1000
    aside = staged / QUARANTINE if staged and request.quarantine else None
    progress = Progress(size_of(found.path for found in inputs))
    report = Report(spec.name, Problems(limit, aside), progress=progress)
    with _no_collection(), contextlib.closing(progress):
        if spec.arranged:
            splits = Arranged(told_apart(spec, inputs), request, inputs, staged, report).run()
        else:
            splits = _straight(spec, request, inputs, staged, report)
        report.problems.settle()
        report.problems.lead(report.unused.problems(spec, report.read))
        if not report.problems.stopped:
            report.fit = compare(splits, spec.group, report.problems, near=spec.near)
    if report.problems.stopped:
        for _, _, file in report.written:
            file.forget()
    report.rejected = _lines_of(aside) if aside else report.problems.bad_rows
    if not report.problems.stopped:
        if staged:
            account(spec, report, splits)
        report.balance()
    _complain_of_nothing(report, inputs)
    if request.strict and report.problems.count("W"):
        report.problems.fatal = True
    return report


def _lines_of(path: Path) -> int:
    """Return how many lines a file has, 0 where there is none."""
    if not path.exists():
        return 0
    with path.open("rb") as file:
        return sum(1 for _ in file)


def _straight(
    spec: Spec, request: Request, inputs: list[Input], staged: Path | None, report: Report
) -> dict[str, Seen]:
    """Write each split as it is read; nothing is held but what comparing needs."""
    splits = {}
    for split in spec.splits:
        part = [found for found in inputs if found.split == split]
        if part:
            splits[split] = seen = Seen(counted_only=not request.duplicates)
            with split_files(staged, spec, split) as files:
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
    message = f"no rows left of {report.read}: {why}" if report.read else "no rows: the source holds none"
    problems.bad_file(Problem("E013", shown, message))


def _standing(target: Path, identity: Future[Identity], request: Request) -> Report | None:
    """Return the report of the set that stands, if it is what this compile would make.

    A manifest holds the first thousand problems: where every one was asked for and there are more, None.
    """
    manifest = cast("dict[str, Any] | None", read_standing(target))
    if manifest is None or manifest["made_from"] != identity.result():
        return None
    counts, first = manifest["counts"], manifest["first_problems"]
    if request.every_problem and len(first) < sum(manifest["problems"].values()):
        return None
    report = Report(
        target.name,
        Problems.again(manifest["problems"], first, manifest["notes"]),
        **{name: counts[name] for name in ("read", "kept", "dropped", "rejected", "not_sampled")},
        datasets=counts["records"],
        fit=manifest["fit"],
        unused=Unused(manifest["not_used"]),
        up_to_date=True,
    )
    report.problems.fatal = request.strict and report.problems.count("W") > 0
    return report
