"""`python -m tests.bench.compile_scale [ROWS…]`: compile by 1 process, 2 workers, and Ray with two nodes.

Rows are made up (as many as MNLI's by default), read as JSON Lines and written as Alpaca records.
CPU s is that of all processes, with the start of Ray's workers. MB is the peak of the driver, and of the
largest worker. The records must have the same bytes. 12,000,000 rows need 12 GB in the folder for temporary
files (TMPDIR).
"""

import argparse
import contextlib
import hashlib
import importlib.util
import json
import multiprocessing
import random
import resource
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from tests.conftest import ROOT
from tests.ray_nodes import Nodes, two_nodes
from tests.scale_run import peak_megabytes

KINDS = {"1 process": 1, "2 workers": 2, "Ray, 2 CPUs": None}  # with --workers
SAMPLE = ROOT / "samples" / "mnli" / "train.jsonl"
BLOCK = 392_702  # rows that are made up. The next ones are these, with other numbers
HEAD = f"{'rows':>11} {'run by':12} {'CPU s':>7} {'driver':>7} {'wall s':>7} {'driver':>8} {'worker':>8}"


@dataclass(frozen=True, slots=True)
class CompileFigures:
    """What a compile took: seconds and megabytes. The driver's own, and those of its forks."""

    wall: float
    driver_cpu: float
    forks_cpu: float
    driver_megabytes: float
    fork_megabytes: float


def compile_once(source: Path, out: Path, workers: int | None, ray: str | None) -> CompileFigures:
    """Compile, in a process of its own."""
    from tuneyard.compiler.compile import compile_spec
    from tuneyard.compiler.request import CompileRequest
    from tuneyard.compiler.spec.model import load_spec

    began = time.perf_counter()
    request = CompileRequest(sources=(f"train={source}",), out=out, workers=workers, ray=ray)
    report = compile_spec(load_spec("mnli"), request)
    if report.failed:
        raise SystemExit(f"{source} does not compile")
    own, forks = resource.getrusage(resource.RUSAGE_SELF), resource.getrusage(resource.RUSAGE_CHILDREN)
    return CompileFigures(
        wall=time.perf_counter() - began,
        driver_cpu=own.ru_utime + own.ru_stime,
        forks_cpu=forks.ru_utime + forks.ru_stime,
        driver_megabytes=peak_megabytes(),
        fork_megabytes=forks.ru_maxrss / 1024,
    )


def write_rows(target: Path, count: int) -> None:
    """Write so many distinct NLI rows. A block is made up; the others are the block with other numbers."""
    premises = [json.loads(line)["premise"] for line in SAMPLE.read_text(encoding="utf-8").splitlines()]
    words = " ".join(premises).split()
    draw = random.Random(1)
    lines = []
    for number in range(min(count, BLOCK)):
        row = {
            "premise": " ".join(draw.choices(words, k=24)) + f" ({number})",
            "hypothesis": " ".join(draw.choices(words, k=10)),
            "label": draw.randrange(3),
            "idx": number,
        }
        lines.append(json.dumps(row, ensure_ascii=False).encode() + b"\n")
    with target.open("wb") as file:
        for first in range(0, count, BLOCK):
            for number, line in enumerate(lines[: count - first]):
                renumbered = line.replace(b"(%d)" % number, b"(%d)" % (number + first), 1)
                file.write(renumbered.replace(b'"idx": %d}' % number, b'"idx": %d}' % (number + first)))


@contextlib.contextmanager
def nodes_for(kind: str) -> Iterator[Nodes | None]:
    """Two nodes with a CPU each for a run on Ray, None for the others."""
    if not kind.startswith("Ray"):
        yield None
        return
    with two_nodes(1) as nodes:
        yield nodes


def run(kind: str, source: Path, out: Path) -> tuple[CompileFigures, float, float]:
    """Figures of one compile, and CPU seconds and megabytes of its workers."""
    with nodes_for(kind) as nodes, ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as driver:
        address = None
        if nodes is not None:
            address = nodes.address
        future = driver.submit(compile_once, source, out, KINDS[kind], address)
        workers_cpu: dict[int, float] = {}
        workers_megabytes = 0.0
        while nodes is not None and not future.done():
            for process in nodes.workers():
                with contextlib.suppress(OSError):
                    fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
                    workers_cpu[process] = (int(fields[11]) + int(fields[12])) / 100  # proc(5): 14, 15
                    workers_megabytes = max(workers_megabytes, peak_megabytes(process))
            time.sleep(0.2)
        figures = future.result()
    if kind == "2 workers":
        return figures, figures.forks_cpu, figures.fork_megabytes
    return figures, sum(workers_cpu.values()), workers_megabytes


def main() -> None:
    """Print one line for each number of rows and each way to run."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("rows", type=int, nargs="*", default=[BLOCK], metavar="ROWS")
    kinds = list(KINDS)
    if importlib.util.find_spec("ray") is None:
        print("Ray: not installed")
        kinds.remove("Ray, 2 CPUs")
    print(HEAD)
    for rows in parser.parse_args().rows:
        with tempfile.TemporaryDirectory(prefix="tuneyard-bench-") as folder:
            source, out = Path(folder) / "rows.jsonl", Path(folder) / "out"
            write_rows(source, rows)
            digests = set()
            for kind in kinds:
                figures, workers_cpu, workers_megabytes = run(kind, source, out / kind.replace(" ", ""))
                records = out / kind.replace(" ", "") / "mnli" / "alpaca_mnli-train.json"
                with records.open("rb") as file:
                    digests.add(hashlib.file_digest(file, "sha256").hexdigest())
                records.unlink()
                print(
                    f"{rows:11,} {kind:12} {figures.driver_cpu + workers_cpu:7.1f} {figures.driver_cpu:7.1f}"
                    f" {figures.wall:7.1f} {figures.driver_megabytes:5.0f} MB {workers_megabytes:5.0f} MB",
                    flush=True,
                )
            if len(digests) != 1:
                raise SystemExit("the records have other bytes")


if __name__ == "__main__":
    main()
