"""One compile: find the sources, check the registry, take the rows through the pipeline, publish."""

import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from tuneyard.compiler.compile_file import numbers_rows
from tuneyard.compiler.pipeline import run_pipeline
from tuneyard.compiler.publish.dataset import publish_dataset, report_if_up_to_date
from tuneyard.compiler.publish.registry import Registry
from tuneyard.compiler.read.inputs import Input, find_sources, hashing
from tuneyard.compiler.read.stream import stored_size
from tuneyard.compiler.request import CompileReport, CompileRequest
from tuneyard.compiler.spec.model import ROW_NUMBER, Spec
from tuneyard.core.errors.warn import warn
from tuneyard.core.execution import Executor, InThisProcess
from tuneyard.core.execution.options import default_workers, executor_of
from tuneyard.core.files import staging

SEVERAL_PAY = 1 << 25  # bytes of the sources from which several processes pay (tests/bench/compile.py)


def executor_for(spec: Spec, request: CompileRequest, inputs: Sequence[Input]) -> Executor:
    """Where the files of a compile are read. By default several processes read several large files.

    One process does if a file cannot be read without the files before it. A warning says why if workers were
    asked for.
    """
    size = sum(stored_size(item.path) for item in inputs)
    default = min(default_workers(size, SEVERAL_PAY), len(inputs))
    if request.ray is None and (request.workers or default) == 1:
        return InThisProcess()
    reason = _one_process(spec, request, inputs)
    if not reason:
        return executor_of(request.workers, request.ray, default)
    if request.ray is not None or request.workers is not None:
        warn(f"{spec.name} is read in one process: {reason}")
    return InThisProcess()


def _one_process(spec: Spec, request: CompileRequest, inputs: Sequence[Input]) -> str:
    """Why the files of a compile cannot be read side by side, "" if they can."""
    parts = spec.mix.parts if spec.mix else dict.fromkeys(spec.parts, spec)
    if len(inputs) == 1:
        return f"it is one file, {inputs[0].display_path}"
    if request.limit is not None:
        return f"--limit {request.limit} ends with the first rows"
    if any(part.source.hub.get("stream") for part in parts.values() if spec.mix):
        return "a mixture that streams from a hub reads as far as its shares go"
    for item in inputs:
        part = parts[item.split]
        if any(column.default == ROW_NUMBER for column in part.columns) and numbers_rows(item, part):
            return f"{item.display_path} has no ids, and the rows of all files are numbered"
    return ""


def compile_spec(spec: Spec, request: CompileRequest) -> CompileReport:
    """Compile a spec into `request.out/NAME` and register it. Any problem leaves everything as it was.

    Everything is opened and checked before the first row is read. The registry is locked once, at the end:
    other compiles into the same folder go on meanwhile.
    """
    started = time.perf_counter()
    sources = find_sources(spec, request.sources)
    registry = Registry(request.out)
    registry.check(spec, sources.inputs, force=request.force)
    report = None
    with hashing(sources.inputs) as hashed_sources:
        if not request.force:
            report = report_if_up_to_date(registry, spec, request, hashed_sources)
        if report is not None:
            registry.settle(spec.name)
        else:
            with staging(request.out / spec.name) as staged:
                with executor_for(spec, request, sources.inputs) as executor:
                    executor.check_paths([item.path for item in sources.inputs], [staged])
                    report = run_pipeline(spec, request, sources, staged, executor)
                if not report.failed:
                    made_from = request.identity(spec, hashed_sources())
                    publish_dataset(registry, staged, spec, report, made_from)
    report.seconds = time.perf_counter() - started
    return report


def check_spec(spec: Spec, request: CompileRequest) -> CompileReport:
    """Find every problem that a compile would find: it compiles into a temporary folder, which goes."""
    started = time.perf_counter()
    sources = find_sources(spec, request.sources)
    with (
        tempfile.TemporaryDirectory(prefix="tuneyard-check-") as name,
        executor_for(spec, request, sources.inputs) as executor,
    ):
        folder = Path(name)
        executor.check_paths([item.path for item in sources.inputs], [folder])
        report = run_pipeline(spec, request, sources, folder, executor)
    report.datasets, report.files = {}, {}
    report.seconds = time.perf_counter() - started
    return report
