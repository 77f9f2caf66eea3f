"""From inputs to a published set: read → check → render → write, then compare, register."""

import contextlib
import gc
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from pathlib import Path

from compiler.arrange import Arranged
from compiler.compare import compare
from compiler.entries import entries_of
from compiler.fingerprints import Fingerprints
from compiler.manifest import Identity, identify, is_whole, seal
from compiler.part import PartRun, split_files
from compiler.problems import KEPT, Problems
from compiler.progress import Progress
from compiler.readback import account
from compiler.registry import Manifest, Registry
from compiler.request import COUNTED, CompileReport, CompileRequest, Context, Counts, Written
from compiler.sources import Input, Stamp, find_inputs, unread, with_rivals
from compiler.spec import REJECTED, Spec
from compiler.unused import Unused
from core.errors import ContentError, Problem, RequestError
from core.files import staging


def compile_spec(spec: Spec, request: CompileRequest) -> CompileReport:
    """Compile a spec into `request.out/NAME` and register it; nothing changes where a problem is found."""
    started, inputs = time.perf_counter(), find_inputs(spec, request.sources)
    target = request.out / spec.name
    for found in inputs:
        if found.within(target):
            raise RequestError(f"{found.shown}: the source lies inside the output folder {target}")
    registry = Registry(request.out)
    registry.check(spec.name, entries_of(spec, spec.splits))
    there = registry.manifests.get(spec.name, {})
    if not request.force:
        _refuse_to_lose(spec, inputs, target, there)
    before = [found.stamp() for found in inputs]
    with _no_empty_folder(request.out), ThreadPoolExecutor(1) as hashing:  # which needs no interpreter lock
        # and imports nothing: an interrupt can leave an import lock held, for which the thread would wait
        hashes = hashing.submit(lambda: [found.sha256() for found in inputs])

        def identity() -> Identity:
            return identify(spec, request, inputs, hashes.result())

        report = None if request.force else _standing(target, there, identity, request)
        if report is None:
            with staging(target) as staged:
                report = _run(spec, request, inputs, staged)
                if not report.problems.stopped:
                    made_from = identity()
                    _refuse_changed(inputs, before)
                    seal(spec, made_from, report, staged)
                    registry.publish(staged, spec.name)
                    report.problems.notes += _replaced(spec.name, inputs, target, there)
    report.seconds = time.perf_counter() - started
    return report


def check_spec(spec: Spec, request: CompileRequest) -> CompileReport:
    """Find every problem that a compile would find; writes nothing."""
    started = time.perf_counter()
    report = _run(spec, request, find_inputs(spec, request.sources), None)
    report.seconds = time.perf_counter() - started
    return report


def _refuse_to_lose(spec: Spec, inputs: list[Input], target: Path, there: Manifest) -> None:
    """Refuse to replace a dataset by one that lacks a split of it, since no source was given for that."""
    given = {found.split for found in inputs}
    lacking = [] if spec.split or spec.mix else [split for split in spec.splits if split not in given]
    for split in lacking:
        files = [output.file.format(split=split) for output in spec.outputs]
        if lost := [file for file in files if file in (there.get("files") or {})]:
            raise RequestError(
                f"{target}: holds the split {split} ({', '.join(lost)}), for which there is no source: it "
                f"would be deleted and unregistered; give --source {split}=PATH too, or --force to let it go"
            )


def _replaced(name: str, inputs: list[Input], target: Path, there: Manifest) -> list[str]:
    """Return, for people, that another source's dataset was replaced: one spec writes one set."""
    before = [str(one["path"]) for one in there.get("made_from", {}).get("sources", ())]
    if not before or {found.shown for found in inputs}.intersection(before):
        return []
    ways = f"a spec of your own (`like: {name}`, another `dataset:`) or another --out keeps both"
    return [f"{target}: replaced what was compiled from {', '.join(before[:3])}; {ways}"]


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


def _run(spec: Spec, request: CompileRequest, inputs: list[Input], staged: Path | None) -> CompileReport:
    if (spec.arranged or spec.near) and not request.duplicates:
        why = "is sampled, split, mixed or searched for near rows: all are needed"
        raise RequestError(f"--no-duplicates: {spec.name} {why}")
    rejected = staged / REJECTED if staged and request.reject else None
    problems = Problems(None if request.every_problem else KEPT, rejected)
    problems.notes += unread(request.sources)
    context = Context(request, problems, Unused(), Progress([found.path for found in inputs]))
    fit: dict[str, object] = {}
    with _no_collection(), contextlib.closing(context.progress):
        if spec.arranged:
            counts, written = Arranged(with_rivals(spec, inputs), context, inputs, staged).run()
        else:
            counts, written = _straight(spec, context, inputs, staged)
        problems.lead(context.unused.problems(spec, counts.read))
        if not problems.stopped:
            fit = compare(written.splits, spec.group, problems, near=spec.near)
    if problems.stopped:
        for _, _, file in written.files:
            file.forget()
    counts += Counts(rejected=_lines_of(rejected) if rejected else problems.bad_rows)
    report = CompileReport(
        **asdict(counts), name=spec.name, problems=problems, unused=context.unused, fit=fit
    )
    if not problems.stopped:
        if staged:
            report.datasets, report.files = account(spec, counts.kept, written)
        counts.balance(spec.name)
        if not counts.kept:
            problems.lead([_nothing_left(counts, inputs)])
    problems.fatal |= request.strict and problems.count("W") > 0
    return report


def _lines_of(path: Path) -> int:
    if not path.exists():
        return 0
    with path.open("rb") as file:
        return sum(1 for _ in file)


def _straight(
    spec: Spec, context: Context, inputs: list[Input], staged: Path | None
) -> tuple[Counts, Written]:
    """Write each split as it is read; nothing is held but what comparing needs."""
    counts, written = Counts(), Written()
    for split in spec.splits:
        if part := [found for found in inputs if found.split == split]:
            written.splits[split] = seen = Fingerprints(counted_only=not context.request.duplicates)
            with split_files(staged, spec, split) as files:
                counts += PartRun(spec, split, context, seen).run(part, files)
            written.add(spec, split, files)
    return counts, written


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
    message = f"no rows left of {counts.read}: {why}" if counts.read else "no rows: the source holds none"
    return Problem("E013", shown, message)


def _standing(
    target: Path, manifest: Manifest, identity: Callable[[], Identity], request: CompileRequest
) -> CompileReport | None:
    """Return the report of the dataset that is there, if it is what this compile would make and say."""
    if not is_whole(target, manifest) or manifest["made_from"] != identity():
        return None
    counts, first = manifest["counts"], manifest["first_problems"]
    if request.every_problem and len(first) < sum(manifest["problems"].values()):
        return None
    problems = Problems.again(manifest["problems"], first, manifest["notes"])
    problems.fatal = request.strict and problems.count("W") > 0
    return CompileReport(
        name=target.name,
        problems=problems,
        **{name: counts[name] for name in COUNTED},
        datasets=counts["records"],
        fit=manifest["fit"],
        unused=Unused(manifest["not_used"]),
        up_to_date=True,
    )
