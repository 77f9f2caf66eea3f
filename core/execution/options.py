"""The options `--workers` and `--ray`, their default, and the executor that they ask for."""

import sys
from collections.abc import Callable, Sequence
from typing import Any

import click

from tuneyard.core.errors import RequestError
from tuneyard.core.execution import Executor, InThisProcess, Slot
from tuneyard.core.execution.machine_limits import available_cores
from tuneyard.core.language.message import _

MOST = 8  # processes by default: the one that takes their results keeps hardly more of them busy


def _one_of_the_two(context: click.Context, _option: click.Parameter, value: Any) -> Any:
    """Refuse both options before the command begins."""
    if value is not None:
        others = {context.params.get("workers"), context.params.get("ray")}
        if others != {None}:
            raise RequestError(_("--workers is for this machine and --ray for a cluster: give one of them"))
    return value


ray_option = click.option(
    "--ray",
    metavar="ADDRESS",
    callback=_one_of_the_two,
    help="Run on a Ray cluster: `auto`, or HOST:PORT of its head.",
)
workers_option = click.option(
    "--workers",
    type=click.IntRange(1),
    metavar="N",
    callback=_one_of_the_two,
    help="Worker processes on this machine.",
)


def default_workers(size: int, several_pay: int) -> int:
    """The processes without `--workers`, for an input of `size` bytes: several from `several_pay` bytes on.

    One where forks are not safe, as on macOS.
    """
    if size < several_pay or not sys.platform.startswith("linux"):
        return 1
    return min(available_cores(), MOST)


def executor_of(
    workers: int | None,
    ray: str | None,
    default: int = 1,
    slots: Callable[[int], Sequence[Slot]] | None = None,
) -> Executor:
    """The executor for the two options. One worker is this process.

    Several are forks of this process, or with the `slots` of that many workers new interpreters.
    `RequestError` for a cluster that cannot be used.
    """
    if ray is not None:
        from tuneyard.core.execution.ray_cluster import RayCluster

        return RayCluster(ray)
    count = workers or default
    if count == 1:
        return InThisProcess()
    from tuneyard.core.execution.local_processes import LocalProcesses

    if slots is not None:
        return LocalProcesses(slots(count))
    processes = [Slot(_("process {number}", number=number)) for number in range(1, count + 1)]
    return LocalProcesses(processes, forks=True)
