"""One simulated scoring run for `tools.bench.scale`: pairs of an adapter and a dataset, through the seam.

A task takes the model's time by sleeping, as a process does that waits for its GPU. So more workers than
cores can run side by side, and the CPU that is left over is what the seam itself takes.
"""

import os
import re
import signal
import time
import zlib
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from tools.ray_nodes import children
from tuneyard.core.execution import Executor, Observer, WorkItem, WorkResult, once_per_worker


@dataclass(frozen=True, slots=True)
class Plan:
    """What is scored, and by how many workers. Times in seconds."""

    adapters: int
    datasets: int
    rows: int
    row_seconds: float
    load_seconds: float
    workers: int
    folder: Path
    """Tasks leave their marks here: which have started, and that the victim was lost already."""

    @property
    def tasks(self) -> int:
        """How many pairs there are."""
        return self.adapters * self.datasets

    @property
    def model_seconds(self) -> float:
        """Time of the model for all pairs, in one worker."""
        return self.tasks * self.rows * self.row_seconds


@dataclass(frozen=True, slots=True)
class Scored:
    """Record of a pair. `digest` is what its predictions file would hold."""

    digest: int
    began: float
    ended: float


@dataclass(frozen=True, slots=True)
class Figures:
    """What a run took. Driver figures are of this process alone, without its workers."""

    start_seconds: float
    wall: float
    utilisation: float
    run_again: int
    driver_cpu: float
    driver_megabytes: float
    digest: int


def load_base(seconds: float) -> float:
    """Take the time of loading a base model."""
    time.sleep(seconds)
    return time.monotonic()


def warm_up(plan: Plan) -> float:
    """Load the base, and stay until each of the other workers has started."""
    once_per_worker(load_base, plan.load_seconds)
    (plan.folder / f"worker-{os.getpid()}").touch()
    deadline = time.monotonic() + 60
    while len(list(plan.folder.glob("worker-*"))) < plan.workers and time.monotonic() < deadline:
        time.sleep(0.02)
    return time.monotonic()


def score_pair(plan: Plan, adapter: int, dataset: int, is_victim: bool) -> Scored:
    """Score one dataset with one adapter. The victim ends its worker half-way, the first time."""
    name = f"{adapter}-{dataset}"
    with (plan.folder / "started").open("a", encoding="utf-8") as started:
        started.write(f"{name}\n")  # one small write in append mode: lines of workers do not mix
    once_per_worker(load_base, plan.load_seconds)
    began = time.monotonic()
    seconds = plan.rows * plan.row_seconds
    lost = plan.folder / "lost"
    if is_victim and not lost.exists():
        time.sleep(seconds / 2)
        lost.touch()
        os.kill(os.getpid(), signal.SIGKILL)
    time.sleep(seconds)
    return Scored(zlib.crc32(f"{name} {plan.rows}".encode()), began, time.monotonic())


@dataclass(slots=True)
class _KillsNode(Observer):
    """Ends a raylet and its workers, as a machine that loses power, when half of the tasks have ended."""

    raylet: int
    tasks: int
    count: int = field(default=0)

    def ended(self, result: WorkResult) -> None:  # noqa: ARG002  # the observer's signature
        self.count += 1
        if self.count == self.tasks // 2:
            for process in (self.raylet, *children(self.raylet)):
                os.kill(process, signal.SIGKILL)


def simulate(
    make: Callable[[], Executor], plan: Plan, has_victim: bool = False, raylet: int | None = None
) -> Figures:
    """Run all pairs once. `has_victim`: a worker is lost half-way; `raylet`: a node is, by this process."""
    victim = plan.tasks // 2
    observer: Observer = Observer()
    if raylet is not None:
        observer = _KillsNode(raylet, plan.tasks)
    with make() as executor:
        began = time.monotonic()
        warm = [WorkItem(f"warm-up {number}", warm_up) for number in range(plan.workers)]
        for result in executor.map(warm, common=plan):
            result.record_or_raise()
        start_seconds = time.monotonic() - began
        items = (
            WorkItem(
                f"{adapter}/{dataset}",
                score_pair,
                (adapter, dataset, has_victim and adapter * plan.datasets + dataset == victim),
            )
            for adapter in range(plan.adapters)
            for dataset in range(plan.datasets)
        )
        began, cpu_before = time.monotonic(), time.process_time()
        scored: list[Scored] = [
            result.record_or_raise() for result in executor.map(items, common=plan, observer=observer)
        ]
        wall, cpu = time.monotonic() - began, time.process_time() - cpu_before
    digest = 0
    busy = 0.0
    for one in scored:
        digest = zlib.crc32(one.digest.to_bytes(4, "big"), digest)
        busy += one.ended - one.began
    started = (plan.folder / "started").read_text(encoding="utf-8").splitlines()
    return Figures(
        start_seconds=start_seconds,
        wall=wall,
        utilisation=busy / (plan.workers * wall),
        run_again=len(started) - plan.tasks,
        driver_cpu=cpu / plan.tasks,
        driver_megabytes=peak_megabytes(),
        digest=digest,
    )


def peak_megabytes(process: int | str = "self") -> float:
    """Peak memory of a process. `getrusage` would begin with that of the process that started it."""
    status = Path(f"/proc/{process}/status").read_text(encoding="utf-8")
    peaks = re.findall(r"VmHWM:\s+(\d+) kB", status)  # none for a process that has ended
    return max(map(int, peaks), default=0) / 1024
