"""`python -m tools.bench.scale [--adapters 50] [--datasets 20] [--rows 1000] …`: a simulated scoring run.

Each pair of an adapter and a dataset is a task of core/execution. The model takes a fixed time per row,
which the task sleeps, as a process does that waits for its GPU. Runs: forks, interpreters, and Ray with two
nodes (raylets) on this machine; then each with a worker killed (SIGKILL) in the middle, and Ray with a node
killed in the middle. Every run must give the same records.

- wall: from the first task to the last result, against model time / workers; the workers are up before
- use: share of the workers' wall time in which the model works
- run again: tasks that were started twice
- driver: CPU of the process that hands out the tasks, for one task, and its peak memory

Run it after a change of core/execution; docs/scale.md has its figures.
"""

import argparse
import contextlib
import importlib.util
import multiprocessing
import tempfile
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from pathlib import Path

from tools.ray_nodes import Nodes, two_nodes
from tools.scale_run import Figures, Plan, simulate
from tuneyard.core.execution import Executor, Slot
from tuneyard.core.execution.local_processes import LocalProcesses

KINDS = ("forks", "interpreters", "ray")
HEAD = f"{'executor':13} {'lost':7} {'wall':>8} {'x ideal':>8} {'use':>6} {'run again':>10}"
HEAD += f" {'driver':>12} {'memory':>8} {'start-up':>9}"


def simulate_on(kind: str, plan: Plan, lost: str, address: str, raylet: int | None) -> Figures:
    """Run once, in a process of its own: its CPU and peak memory are the driver's."""

    def make() -> Executor:
        if kind in ("forks", "interpreters"):
            slots = [Slot(f"worker {number}") for number in range(plan.workers)]
            return LocalProcesses(slots, forks=kind == "forks")
        from tuneyard.core.execution.ray_cluster import RayCluster

        return RayCluster(address)

    return simulate(make, plan, has_victim=lost == "worker", raylet=raylet)


@contextlib.contextmanager
def nodes_for(kind: str, workers: int) -> Iterator[Nodes | None]:
    """Two nodes for a run on Ray, None for the others."""
    if kind != "ray":
        yield None
        return
    with two_nodes(workers // 2) as nodes:
        yield nodes


def run(kind: str, lost: str, plan: Plan) -> Figures:
    """Figures of one run. A new driver and, for Ray, new nodes."""
    spawn = multiprocessing.get_context("spawn")
    with (
        tempfile.TemporaryDirectory(prefix="tuneyard-bench-") as folder,
        nodes_for(kind, plan.workers) as nodes,
        ProcessPoolExecutor(1, spawn) as driver,
    ):
        here = replace(plan, folder=Path(folder))
        address, raylet = "", None
        if nodes is not None:
            address = nodes.address
            if lost == "node":
                raylet = nodes.raylets[1]
        return driver.submit(simulate_on, kind, here, lost, address, raylet).result()


def show(kind: str, lost: str, figures: Figures, plan: Plan) -> None:
    """Print one line of the table."""
    ideal = plan.model_seconds / plan.workers
    again = f"{figures.run_again} = {100 * figures.run_again / plan.tasks:.1f} %"
    print(
        f"{kind:13} {lost:7} {figures.wall:6.1f} s {figures.wall / ideal:8.2f} {figures.utilisation:6.1%}"
        f" {again:>10} {figures.driver_cpu * 1e6:9.0f} µs {figures.driver_megabytes:5.0f} MB"
        f" {figures.start_seconds:7.1f} s",
        flush=True,
    )


def main() -> None:
    """Print one line for each run."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--adapters", type=int, default=50)
    parser.add_argument("--datasets", type=int, default=20)
    parser.add_argument("--rows", type=int, default=1000)
    parser.add_argument("--row-us", type=float, default=100, help="microseconds of the model for a row")
    parser.add_argument("--load-s", type=float, default=0.5, help="seconds to load the base in a worker")
    parser.add_argument("--workers", type=int, default=8, help="even: Ray has half of them on each node")
    parser.add_argument("--kinds", nargs="+", choices=KINDS, default=KINDS)
    options = parser.parse_args()
    plan = Plan(
        options.adapters, options.datasets, options.rows, options.row_us / 1e6, options.load_s,
        options.workers, Path(),
    )  # fmt: skip
    print(
        f"{plan.adapters} adapters x {plan.datasets} datasets x {plan.rows} rows: {plan.tasks} tasks of "
        f"{plan.rows * plan.row_seconds * 1000:.0f} ms, {plan.workers} workers, "
        f"ideal {plan.model_seconds / plan.workers:.1f} s"
    )
    print(HEAD)
    kinds = list(options.kinds)
    if "ray" in kinds and importlib.util.find_spec("ray") is None:
        print("ray: not installed")
        kinds.remove("ray")
    digests = set()
    for lost in ("nothing", "worker", "node"):
        for kind in kinds:
            if lost == "node" and kind != "ray":
                continue
            figures = run(kind, lost, plan)
            show(kind, lost, figures, plan)
            digests.add(figures.digest)
    if len(digests) != 1:
        raise SystemExit("the runs gave different records")


if __name__ == "__main__":
    main()
