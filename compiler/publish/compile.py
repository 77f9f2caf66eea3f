"""One compile: its sources and its registry, all rows through the engine, and the publication."""

import time
from collections import Counter
from dataclasses import asdict
from importlib.util import find_spec

from tuneyard.compiler.engine.compile_inputs import compile_inputs
from tuneyard.compiler.engine.request import (
    COUNTED,
    CompileJob,
    CompileReport,
    CompileRequest,
    Identity,
)
from tuneyard.compiler.publish.registry import Registry
from tuneyard.compiler.publish.state import files_state, registered_state
from tuneyard.compiler.read.inputs import refuse_changed, spec_with_inputs
from tuneyard.compiler.rows.problems import KEPT, Problems
from tuneyard.compiler.spec.model import Spec
from tuneyard.core.datasets import TRAIN_SPLIT
from tuneyard.core.datasets.compiled import Entries, Manifest, write_manifest
from tuneyard.core.errors import RequestError
from tuneyard.core.execution.state import CURRENT, State
from tuneyard.core.files import staging
from tuneyard.core.installation.checkout import version
from tuneyard.core.installation.packages import missing
from tuneyard.core.language.message import _, counted


def compile_dataset(request: CompileRequest) -> CompileReport:
    """Compile a spec into `request.out/NAME` and register it. Any problem leaves everything as it was.

    Everything is opened and checked before the first row is read. The registry is locked once, at the end:
    other compiles into the same folder go on meanwhile.
    """
    started = time.perf_counter()
    job = _find_job(request)
    name = job.spec.name
    registry = Registry(request.out)
    entries = registry.check(job.spec, job.inputs, force=request.force)
    made_from = job.identity()
    if not request.force and files_state(registry, name, made_from) == CURRENT:
        report = _report_of(registry.manifests[name], job)
        registry.finish_publications(name)
    else:
        with staging(request.out / name) as staged:
            report = compile_inputs(job, staged)
            if not report.failed:
                refuse_changed(job.inputs, job.stamps)
                manifest = _manifest_of(report, job.spec, entries, made_from)
                write_manifest(staged, manifest)
                report.problems.notes.extend(registry.publish(staged, name, manifest))
    report.seconds = time.perf_counter() - started
    return report


def state(request: CompileRequest) -> State:
    """How far the dataset of a request is. The sources are hashed, no row is read and nothing is written.

    With `strict` a dataset with warnings is stale, as its compile would fail. Raises what a compile raises
    before it reads a row.
    """
    job = _find_job(request)
    registry = Registry(request.out)
    registry.check(job.spec, job.inputs, force=request.force)
    registered = registered_state(registry, job.spec.name, job.identity())
    if registered != CURRENT or not request.strict:
        return registered
    warnings = _report_of(registry.manifests[job.spec.name], job).problems.count("W")
    if not warnings:
        return CURRENT
    change = _("--strict: {warnings}", warnings=counted(warnings, "warning", "warnings"))
    return State("stale", (change,))


def check_dataset(request: CompileRequest) -> CompileReport:
    """Find every problem that a compile would find: each record is rendered and counted, and none written."""
    started = time.perf_counter()
    report = compile_inputs(_find_job(request), None)
    report.datasets = {}
    report.seconds = time.perf_counter() - started
    return report


def _find_job(request: CompileRequest) -> CompileJob:
    """Find the files to read, and the spec with which they are read.

    `RequestError` for a seed or a share without effect, and if a key of the spec needs an extra that is not
    installed.
    """
    spec = request.spec
    if request.seed is not None and not spec.draws_by_seed:
        raise RequestError(
            _(
                "--seed {seed} has no effect on the spec {name}: a seed is for `sample`, "
                "`mix`, and a `split` without `seed` and `by: hash`; leave --seed out",
                seed=request.seed,
                name=spec.name,
            )
        )
    if spec.near and find_spec("rensa") is None:
        raise RequestError(
            _(
                "{given_as}: `fit: near`: {missing}; or leave `near` out",
                given_as=spec.given_as,
                missing=missing("rensa"),
            )
        )
    spec, inputs = spec_with_inputs(spec, request.sources)
    shares = spec.over.get("split")
    if spec.split and spec.split.is_given and isinstance(shares, dict):
        option = " ".join(f"--split {split}={share:g}" for split, share in shares.items())
        item = next(item for item in inputs if item.input_name != TRAIN_SPLIT)
        raise RequestError(
            _(
                "{option} has no effect: {path} has the rows of {split}, so that none are "
                "drawn; leave {option} out, or give only the files to draw from, as --source "
                "{part}=PATH",
                option=option,
                path=item.display_path,
                split=item.input_name,
                part=TRAIN_SPLIT,
            )
        )
    return CompileJob(spec, request, inputs, [item.stamp() for item in inputs])


def _report_of(manifest: Manifest, job: CompileJob) -> CompileReport:
    """The counts of a dataset that is up to date.

    Its warnings and notes stay in the manifest, to which the command points.
    """
    problems = Problems(counts=Counter(manifest.problems))
    problems.fatal = job.request.strict and problems.count("W") > 0
    return CompileReport(
        name=job.spec.name,
        problems=problems,
        **{key: manifest.counts[key] for key in COUNTED},
        datasets=manifest.records,
        files=manifest.files,
        quality=manifest.fit,
        up_to_date=True,
    )


def _manifest_of(report: CompileReport, spec: Spec, entries: Entries, made_from: Identity) -> Manifest:
    """The manifest of a compiled dataset. `entries` are those of all outputs of the spec."""
    problems = report.problems
    return Manifest(
        about=spec.about,
        counts={**{key: getattr(report, key) for key in COUNTED}, "records": report.datasets},
        problems=dict(sorted(problems.counts.items())),
        first_problems=[asdict(each) for each in (*problems.errors[:KEPT], *problems.warnings[:KEPT])],
        notes=problems.notes,
        not_used=dict(report.unused.rows),
        ignored=dict(report.unused.ignored),
        fit=report.quality,
        cluster=spec.group,
        files=report.files,
        entries={name: entry for name, entry in entries.items() if name in report.datasets},
        made_from=made_from,
        tuneyard=version(),  # beside the identity: a commit elsewhere makes no dataset stale
    )
