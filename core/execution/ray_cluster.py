"""`--ray ADDRESS`: work items on a Ray cluster whose nodes see the same files and have the same code.

This process is a driver on one of the nodes. Each worker is an actor, which keeps its GPU and what
`once_per_worker` has loaded there. Ray places the actors. The item of a lost one runs again in another: Ray
would wait with it until the lost actor has a place again.
"""

import contextlib
import functools
import os
import platform
import signal
import socket
from collections.abc import Sequence
from concurrent.futures import Future
from pathlib import Path
from typing import Any

from tuneyard.core.errors import RequestError, need
from tuneyard.core.execution import Resources, WorkerSide, WorkItem, WorkResult
from tuneyard.core.execution.worker_map import LostWorkerError, Worker, WorkerMap
from tuneyard.core.files import existing, files_sha256
from tuneyard.core.installation.checkout import ROOT, python_path, version

ANSWERS_WITHIN = 5.0  # seconds in which the head must answer; Ray would wait for two minutes
_STARTED_WITHIN = 120.0  # seconds in which a node must run its first task: a worker starts in seconds
_PACKAGES = ("core", "compiler", "recipes", "adapters", "eval")


class RayCluster(WorkerMap):
    """A running cluster. `RequestError` if it does not answer or one of its nodes has other code."""

    def __init__(self, address: str) -> None:
        super().__init__()
        need("ray")
        self._actors: list[_Actor] = []
        self._takes = Resources()  # what each of the actors takes
        self._references: list[tuple[object, Any]] = []  # the common value that Ray's store has
        _connect(address)
        with contextlib.ExitStack() as connection:
            connection.callback(self.close)
            self.check_paths()
            self.workers = max(1, self.fitting(Resources()))
            self.has_gpus = self.fitting(Resources(gpus=1)) > 0
            connection.pop_all()

    def close(self) -> None:
        """Leave the cluster. Ray ends the actors of a driver that has left."""
        import ray

        ray.shutdown()

    def check_paths(self, inputs: Sequence[object] = (), outputs: Sequence[object] = ()) -> None:
        """Ask every node: has it this code, does it see these files, and can it write to these folders?"""
        import ray
        from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

        files = [str(path) for path in inputs if isinstance(path, Path)]
        folders = [str(existing(Path(str(path)).absolute())) for path in outputs]
        node_of_answer = {}
        for node in _nodes():
            strategy = NodeAffinitySchedulingStrategy(node["NodeID"], soft=False)
            question = ray.remote(num_cpus=0, scheduling_strategy=strategy)(_differences)
            node_of_answer[question.remote(_here(), str(Path.cwd()), files, folders)] = node[
                "NodeManagerHostname"
            ]
        problems = []
        for reference, name in node_of_answer.items():
            try:
                answers = ray.get(reference, timeout=_STARTED_WITHIN)
            except ray.exceptions.TaskUnschedulableError:
                continue  # the node has just left
            except ray.exceptions.RayError as error:
                answers = [f"cannot run this Tuneyard: {_last_line(error)}"]
            problems += [f"node {name}: {answer}" for answer in answers]
        if problems:
            raise RequestError("--ray: " + "\n".join(problems))

    def fitting(self, resources: Resources) -> int:
        """How many items with these resources can run on the cluster at a time."""
        count = 0
        for node in _nodes():
            takes = {"CPU": resources.cpus, "GPU": resources.gpus, "memory": resources.memory}
            shares = [node["Resources"].get(name, 0) / amount for name, amount in takes.items() if amount]
            count += int(min(shares))
        return count

    def _workers_with(self, resources: Resources) -> Sequence[Worker]:
        """The actors that have started, of as many as fit now. It waits for the first one."""
        import ray

        self._actors = [actor for actor in self._actors if not actor.is_lost]
        if resources != self._takes:
            self._end(self._actors)
            self._takes = resources
        count = self.fitting(resources)
        if not count and not self._actors:
            raise RequestError(
                f"--ray: an item takes {resources.cpus:g} CPU, {resources.gpus:g} GPU and "
                f"{resources.memory / 1e9:.1f} GB of memory, and no node has that (`ray status` lists them); "
                "add a node, or run it on a machine without --ray"
            )
        for _ in range(count - len(self._actors)):
            self._actors.append(_Actor(resources, self._references))
        waiting = [actor.starts for actor in self._actors if not actor.has_started]
        if len(waiting) == len(self._actors):
            ray.wait(waiting)
        started, _ = ray.wait(waiting, num_returns=len(waiting), timeout=0) if waiting else ([], [])
        for actor in self._actors:
            actor.has_started = actor.has_started or actor.starts in started
        return [actor for actor in self._actors if actor.has_started]

    def _end(self, workers: Sequence[Worker]) -> None:
        import ray

        for actor in list(self._actors):
            if actor in workers:
                ray.kill(actor.handle)
                self._actors.remove(actor)


class _Actor(Worker):
    """An actor of the cluster. `starts` is there when it has a place and has started."""

    def __init__(self, resources: Resources, references: list[tuple[object, Any]]) -> None:
        import ray

        self.name = "the cluster"
        kind = ray.remote(**_options_of(resources))(_Process)
        self.handle = kind.remote(str(Path.cwd()))
        self.starts = self.handle.start.remote()
        self.has_started = self.is_lost = False
        self._references = references

    def submit(self, item: WorkItem, common: object) -> "Future[WorkResult]":
        import ray

        if common is not None and (not self._references or self._references[0][0] is not common):
            self._references[:] = [(common, ray.put(common))]
        reference = None if common is None else self._references[0][1]
        future: Future[WorkResult] = self.handle.run.remote(item, reference).future()
        return future

    def result_of(self, future: "Future[WorkResult]") -> WorkResult:
        from ray import exceptions

        try:
            return future.result()
        except exceptions.RayTaskError:
            raise  # a defect of the item
        except exceptions.RayError as error:
            self.is_lost = True
            kind = type(error).__name__  # OutOfMemoryError, NodeDiedError, ActorDiedError
            raise LostWorkerError(f"was lost with its worker or node ({kind})") from error


class _Process:
    """What runs in an actor."""

    def __init__(self, folder: str) -> None:
        os.chdir(folder)
        self._side = WorkerSide()

    def start(self) -> None:
        """Do nothing: it returns when the actor has started."""

    def run(self, item: WorkItem, common: object) -> WorkResult:
        """Run an item."""
        self._side.common = common
        return self._side.run(item)


def _connect(address: str) -> None:
    """Join the cluster as a driver; `RequestError` if there is none."""
    os.environ.setdefault("RAY_ENABLE_UV_RUN_RUNTIME_ENV", "0")
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    host, _, port = address.rpartition(":")
    if address != "auto" and (not host or "/" in host or not port.isdigit()):
        raise RequestError(f"--ray {address}: expected `auto`, or HOST:PORT of a cluster's head")
    import ray

    handler = signal.getsignal(signal.SIGTERM)
    variables = {"PYTHONPATH": python_path(), "TQDM_DISABLE": "1"}
    try:
        if address != "auto":
            socket.create_connection((host, int(port)), ANSWERS_WITHIN).close()
        ray.init(address, log_to_driver=False, logging_level="ERROR", runtime_env={"env_vars": variables})
    except (OSError, RuntimeError, ValueError, OverflowError) as error:
        raise RequestError(
            f"--ray {address}: no cluster to join: {_last_line(error)}; `ray start --head` starts one, and "
            "this machine must be one of its nodes (`ray start --address=HOST:PORT`)"
        ) from error
    finally:
        signal.signal(signal.SIGTERM, handler)  # Ray sets its own


def _nodes() -> list[dict[str, Any]]:
    import ray

    return [node for node in ray.nodes() if node["Alive"]]


def _options_of(resources: Resources) -> dict[str, float]:
    """What an actor takes of a node, in Ray's words."""
    options = {"num_cpus": resources.cpus, "num_gpus": resources.gpus}
    if resources.memory:
        options["memory"] = resources.memory
    return options


def _last_line(error: BaseException) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[-1] if lines else type(error).__name__


def _here() -> dict[str, str]:
    """What must be the same on every node."""
    return {
        "Python": platform.python_version(),
        "Tuneyard": f"{version()['version']} with code {code_digest()[:8]}",
    }


def _differences(
    expected: dict[str, str], folder: str, files: Sequence[str], folders: Sequence[str]
) -> list[str]:
    """Why this node cannot work for a driver that runs in `folder`."""
    problems = []
    for name, value in _here().items():
        if value != expected[name]:
            problems.append(
                f"{name} {value}, the driver has {expected[name]}; install the same on every node"
            )
    for shared in (folder, *folders):
        if not os.access(shared, os.W_OK):
            problems += [f"cannot write to the folder {shared}; expected one that all nodes share"]
    for name in files:
        path = Path(folder, name)
        if not os.access(path, os.R_OK):
            problems.append(f"cannot read {path}; expected a path that all nodes see")
    return problems


@functools.cache
def code_digest() -> str:
    """Hash of the program: uncommitted changes count, too."""
    paths: list[Path] = []
    for package in _PACKAGES:
        paths += [path for path in (ROOT / package).rglob("*") if path.suffix in (".py", ".json", ".yaml")]
    return files_sha256(sorted(paths))
