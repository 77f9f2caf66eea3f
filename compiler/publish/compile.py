"""One compile: sources, registry, then read → check → filter → lint → render → write, and publish."""

import shutil
import time
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict
from importlib.util import find_spec
from pathlib import Path

from tuneyard.compiler.check.checker import Types
from tuneyard.compiler.engine.compile_file import TypesByInput, most_kept, numbers_rows
from tuneyard.compiler.engine.request import COUNTED, CompileReport, CompileRequest, Identity
from tuneyard.compiler.engine.run import Run, TextIdsError
from tuneyard.compiler.engine.two_passes import write_arranged
from tuneyard.compiler.lint.fingerprints import Fingerprints
from tuneyard.compiler.lint.repeated_rows import REPEATED_ROW
from tuneyard.compiler.lint.runner import lint_splits
from tuneyard.compiler.publish.registry import Registry
from tuneyard.compiler.read.inputs import (
    Input,
    find_inputs,
    members_not_read,
    not_read,
    notes_on_splits,
    refuse_changed,
    spec_for,
    texts_by_line,
    with_earlier_keywords,
)
from tuneyard.compiler.read.stream import progress_bar, stored_size
from tuneyard.compiler.rows.problem_codes import NO_ROWS
from tuneyard.compiler.rows.problems import KEPT, NO_LIMIT, Problems
from tuneyard.compiler.spec.model import Spec
from tuneyard.compiler.write.entries import entries_of
from tuneyard.core.datasets import TRAIN_SPLIT
from tuneyard.core.datasets.compiled import Manifest, write_manifest
from tuneyard.core.errors import Problem, RequestError
from tuneyard.core.execution import Executor
from tuneyard.core.execution.options import default_workers, executor_of
from tuneyard.core.files import sha256, staging
from tuneyard.core.installation.checkout import version
from tuneyard.core.installation.packages import missing
from tuneyard.core.language.message import _
from tuneyard.core.language.messages import warn

SEVERAL_PAY = 1 << 25  # bytes of the sources from which several processes pay (tools/bench/compile.py)


def executor_for(
    spec: Spec, request: CompileRequest, inputs: Sequence[Input]
) -> AbstractContextManager[Executor | None]:
    """Where the files of a compile are read, None for this process alone.

    By default several processes read several large files. One process does if a file cannot be read without
    the files before it. A warning says why if workers were asked for.
    """
    size = sum(stored_size(item.path) for item in inputs)
    default = min(default_workers(size, SEVERAL_PAY), len(inputs))
    if request.ray is None and (request.workers or default) == 1:
        return nullcontext()
    reason = _one_process(spec, request, inputs)
    if not reason:
        return executor_of(request.workers, request.ray, default)
    if request.ray is not None or request.workers is not None:
        warn(_("{name} is read in one process: {reason}", name=spec.name, reason=reason))
    return nullcontext()


def _one_process(spec: Spec, request: CompileRequest, inputs: Sequence[Input]) -> str:
    """Why the files of a compile cannot be read side by side, "" if they can."""
    if len(inputs) == 1:
        return _("it is one file, {path}", path=inputs[0].display_path)
    if request.limit is not None:
        return _("--limit {number} ends with the first rows", number=request.limit)
    if any(most_kept(spec, item.split) < NO_LIMIT for item in inputs):
        return _("a mixture that streams from a hub reads as far as its shares go")
    for item in inputs:
        if numbers_rows(item, spec.of_input(item.split)):
            return _("{path} has no ids, and the rows of all files are numbered", path=item.display_path)
    return ""


def compile_spec(spec: Spec, request: CompileRequest) -> CompileReport:
    """Compile a spec into `request.out/NAME` and register it. Any problem leaves everything as it was.

    Everything is opened and checked before the first row is read. The registry is locked once, at the end:
    other compiles into the same folder go on meanwhile.
    """
    started = time.perf_counter()
    _need_packages(spec)
    spec, inputs = _sources(spec, request)
    registry = Registry(request.out)
    registry.check(spec, inputs, force=request.force)
    stamps = [item.stamp() for item in inputs]
    with ThreadPoolExecutor() as pool:
        made_from = request.identity(spec, list(pool.map(Input.identity, inputs)))
    report = _report_if_up_to_date(registry, spec, request, made_from)
    if report is not None:
        registry.finish_publications(spec.name)
    else:
        with staging(request.out / spec.name) as staged:
            report = _compiled(spec, request, inputs, staged)
            if not report.failed:
                refuse_changed(inputs, stamps)
                _publish(registry, staged, spec, report, made_from)
    report.seconds = time.perf_counter() - started
    return report


def check_spec(spec: Spec, request: CompileRequest) -> CompileReport:
    """Find every problem that a compile would find: each record is rendered and counted, and none written."""
    started = time.perf_counter()
    _need_packages(spec)
    spec, inputs = _sources(spec, request)
    report = _compiled(spec, request, inputs, None)
    report.datasets = {}
    report.seconds = time.perf_counter() - started
    return report


def _need_packages(spec: Spec) -> None:
    """`RequestError` if a key of the spec needs a package of an extra that is not installed."""
    if spec.near and find_spec("rensa") is None:
        raise RequestError(
            _(
                "{given_as}: `fit: near`: {missing}; or leave `near` out",
                given_as=spec.given_as,
                missing=missing("rensa"),
            )
        )


def _sources(spec: Spec, request: CompileRequest) -> tuple[Spec, list[Input]]:
    """The files to read, and the spec with which they are read. `RequestError` for a share without effect."""
    inputs = find_inputs(spec, request.sources)
    spec = spec_for(spec, inputs)
    shares = request.over.get("split")
    if spec.split and spec.split.is_given and isinstance(shares, dict):
        option = " ".join(f"--split {split}={share:g}" for split, share in shares.items())
        item = next(item for item in inputs if item.split != TRAIN_SPLIT)
        raise RequestError(
            _(
                "{option} has no effect: {path} has the rows of {split}, so that none are "
                "drawn; leave {option} out, or give only the files to draw from, as --source "
                "{part}=PATH",
                option=option,
                path=item.display_path,
                split=item.split,
                part=TRAIN_SPLIT,
            )
        )
    return spec, inputs


def _report_if_up_to_date(
    registry: Registry, spec: Spec, request: CompileRequest, made_from: Identity
) -> CompileReport | None:
    """The counts of the compiled dataset. None if a compile would write anything else.

    Its warnings and notes stay in the manifest, to which the command points.
    """
    manifest = registry.manifests.get(spec.name)
    if request.force or manifest is None or not manifest.files or manifest.made_from != made_from:
        return None
    for name, file in manifest.files.items():
        path = registry.folder / spec.name / name
        if not path.is_file() or sha256(path) != file.sha256:
            return None
    problems = Problems(counts=Counter(manifest.problems))
    problems.fatal = request.strict and problems.count("W") > 0
    return CompileReport(
        name=spec.name,
        problems=problems,
        **{key: manifest.counts[key] for key in COUNTED},
        datasets=manifest.records,
        files=manifest.files,
        fit=manifest.fit,
        up_to_date=True,
    )


def _publish(
    registry: Registry, staged: Path, spec: Spec, report: CompileReport, made_from: Identity
) -> None:
    """Publish a staged dataset with its manifest."""
    entries = entries_of(spec, spec.splits)
    problems = report.problems
    manifest = Manifest(
        about=spec.about,
        counts={**{key: getattr(report, key) for key in COUNTED}, "records": report.datasets},
        problems=dict(sorted(problems.counts.items())),
        first_problems=[asdict(each) for each in (*problems.errors[:KEPT], *problems.warnings[:KEPT])],
        notes=problems.notes,
        not_used=dict(report.unused.rows),
        ignored=dict(report.unused.ignored),
        fit=report.fit,
        cluster=spec.group,
        files=report.files,
        entries={name: entry for name, entry in entries.items() if name in report.datasets},
        made_from=made_from,
        tuneyard=version(),  # beside the identity: a commit elsewhere makes no dataset stale
    )
    write_manifest(staged, manifest)
    problems.notes.extend(registry.publish(staged, spec.name, manifest))


def _compiled(
    spec: Spec, request: CompileRequest, inputs: Sequence[Input], folder: Path | None
) -> CompileReport:
    """Take all rows through the steps of a compile, write the files into a folder, and report on them.

    A check has no folder (None). The compile begins again if ids of a later file show that those of the files
    before it are text.
    """
    types: dict[str, Types] = {}
    while True:
        try:
            return _compiled_with(spec, request, inputs, folder, types)
        except TextIdsError as error:
            types.setdefault(error.input_name, {})[error.column] = "text"
            for path in folder.iterdir() if folder else ():
                if path.is_dir():
                    shutil.rmtree(path)
                else:
                    path.unlink()


def _compiled_with(
    spec: Spec, request: CompileRequest, inputs: Sequence[Input], folder: Path | None, types: TypesByInput
) -> CompileReport:
    """Compile once. `types` are those of ids that an earlier run has found."""
    report = CompileReport(name=spec.name, problems=request.problems_in(folder))
    for warning in (*texts_by_line(spec, inputs), *not_read(inputs), *members_not_read(inputs)):
        report.problems.warn(warning)
    report.problems.notes += notes_on_splits(spec, inputs)
    spec = with_earlier_keywords(spec, inputs)
    with (
        executor_for(spec, request, inputs) as executor,
        progress_bar(item.path for item in inputs) as moved,
    ):
        if executor:
            executor.check_paths([item.path for item in inputs], [folder] if folder else [])
        run = Run(spec, request, inputs, folder, report, moved, types=types)
        if spec.arranged:
            write_arranged(run, executor)
        else:
            splits = [split for split in spec.splits if run.inputs_of(split)]
            with run.reading(splits, executor):
                for split in splits:  # written while its files are read
                    fingerprints = run.fingerprints[split] = Fingerprints()
                    with run.open(split) as files:
                        run.read_input(split, fingerprints, files)
    _complete(run)
    return report


def _complete(run: Run) -> None:
    """Compare the rows with each other, and complete the report."""
    spec, report, problems = run.spec, run.report, run.report.problems
    if report.unused.findings:
        problems.lead(report.unused.problems(report.read))
    report.rejected = problems.bad_rows
    if not report.failed:
        report.fit = lint_splits(spec, run.fingerprints, problems)
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
            message = "no rows: the source holds none"
            if report.read:
                message = _("no rows left of {name}", name=report.read)
                if spec.labels:
                    message += "; no label in any? --column label=COLUMN names its column"
            places = ", ".join(item.display_path for item in run.inputs)
            problems.lead([Problem(NO_ROWS, places, message)])
    problems.sort_warnings()
    if not report.failed:
        report.datasets = run.records()
    problems.fatal |= run.request.strict and problems.count("W") > 0
    if report.failed:
        report.not_written, report.kept = report.kept, 0
    elif run.staged:
        report.files = run.account()
