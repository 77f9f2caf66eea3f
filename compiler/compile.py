"""One compile: find the sources, check the registry, take the rows through the pipeline, publish."""

import time
from collections.abc import Sequence

from tuneyard.compiler.pipeline import run_pipeline
from tuneyard.compiler.publish.dataset import publish_dataset, report_if_up_to_date
from tuneyard.compiler.publish.registry import Registry
from tuneyard.compiler.read.inputs import Input, find_sources, hashing
from tuneyard.compiler.read.stream import stored_size
from tuneyard.compiler.request import CompileReport, CompileRequest
from tuneyard.compiler.spec.model import Spec
from tuneyard.core.errors import RequestError
from tuneyard.core.execution import Executor, InThisProcess
from tuneyard.core.execution_options import default_workers, executor_of
from tuneyard.core.files import staging

SEVERAL_PAY = 1 << 25  # bytes of the sources from which several processes pay (tests/bench/several_pay.py)


def executor_for(spec: Spec, request: CompileRequest, inputs: Sequence[Input]) -> Executor:
    """Where the tasks of a compile run.

    What a mixture streams from a hub, and the first rows of a file (`limit`), are read in this process: how
    many there are is known only on the way. `RequestError` if other workers were asked for then.
    """
    in_turn = ""
    if request.limit is not None:
        in_turn = f"--limit {request.limit} reads the first rows in one process"
    elif spec.mix and any(part.source.hub.get("stream") for part in spec.mix.parts.values()):
        in_turn = "a mixture that streams from a hub reads as far as its shares go, in one process"
    if in_turn:
        if request.ray is not None:
            raise RequestError(f"{in_turn}: leave --ray {request.ray} out")
        if request.workers not in (None, 1):
            raise RequestError(f"{in_turn}: leave --workers {request.workers} out")
        return InThisProcess()
    size = sum(stored_size(item.path) for item in inputs)
    return executor_of(request.workers, request.ray, default_workers(size, SEVERAL_PAY))


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
            report.problems.notes += registry.settle()
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
    """Find every problem that a compile would find, and write nothing."""
    started = time.perf_counter()
    sources = find_sources(spec, request.sources)
    with executor_for(spec, request, sources.inputs) as executor:
        executor.check_paths([item.path for item in sources.inputs])
        report = run_pipeline(spec, request, sources, None, executor)
    report.seconds = time.perf_counter() - started
    return report
