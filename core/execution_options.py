"""The options `--workers` and `--ray`, and the executor that they ask for."""

from collections.abc import Callable
from typing import TypeVar

import click

from tuneyard.core.errors import RequestError
from tuneyard.core.execution import Executor, InThisProcess
from tuneyard.core.local_processes import ForkedProcesses

C = TypeVar("C", bound=Callable[..., object])


def ray_option(function: C) -> C:
    """Give a command `--ray ADDRESS`, for the parameter `ray`."""
    return click.option(
        "--ray", metavar="ADDRESS", help="Run on a Ray cluster: `auto`, or HOST:PORT of its head."
    )(function)


def execution_options(function: C) -> C:
    """Give a command `--workers N` and `--ray ADDRESS`, for the parameters `workers` and `ray`."""
    option = click.option(
        "--workers", type=click.IntRange(1), metavar="N", help="Worker processes on this machine."
    )
    return option(ray_option(function))


def executor_of(
    workers: int | None,
    ray: str | None,
    default: int = 1,
    local: Callable[[int], Executor] = ForkedProcesses,
) -> Executor:
    """The executor for the two options. One worker is this process; `local` makes several.

    `RequestError` for both options at once, and for a cluster that cannot be used.
    """
    if ray is not None and workers is not None:
        raise RequestError("--workers is for this machine and --ray for a cluster: give one of them")
    if ray is not None:
        from tuneyard.core.ray_cluster import RayCluster

        return RayCluster(ray)
    count = workers or default
    if count == 1:
        return InThisProcess()
    return local(count)
