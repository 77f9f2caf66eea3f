"""`--ray ADDRESS`: work items on a Ray cluster whose nodes see the same files and have the same code.

This process is a driver on one of the nodes. Its workers are actors, which Ray places; a task could come to a
worker that began with the GPU of another. They keep what `once_per_worker` has loaded.
"""

import contextlib
import functools
import os
import platform
import signal
import socket
from collections import deque
from collections.abc import Generator, Iterable, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

from tuneyard.core.errors import RequestError, need
from tuneyard.core.execution import (
    AHEAD,
    SILENT,
    DrawnItem,
    Executor,
    Observer,
    Resources,
    WorkerSide,
    WorkItem,
    WorkResult,
)
from tuneyard.core.files import JsonObject, existing, files_sha256
from tuneyard.core.installation.checkout import packages_folder, python_variables, version
from tuneyard.core.language.message import _, joined

ANSWERS_WITHIN = 5.0  # seconds in which the head must answer; Ray would wait for two minutes
_LOOK_EVERY = 1.0  # seconds between two looks for nodes that have joined
_STARTED_WITHIN = 120.0  # seconds in which a node must run its first task: a worker starts in seconds


class RayCluster(Executor):
    """A running cluster. `RequestError` if it does not answer or one of its nodes has other code."""

    _idle: list[Any]
    """Actors that stay for the next map if that takes the same resources."""
    _resources: Resources | None = None

    def __init__(self, address: str) -> None:
        need("ray")
        _connect(address)
        self.check_paths()
        self.workers = max(1, self.fitting(Resources()))
        self.has_gpus = self.fitting(Resources(gpus=1)) > 0

    def close(self) -> None:
        """Leave the cluster. Ray ends the actors of a driver that has left."""
        import ray

        handler = signal.getsignal(signal.SIGTERM)
        ray.shutdown()
        signal.signal(signal.SIGTERM, handler)  # Ray leaves none, though Python still names this one

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
                answers = [_("cannot run this Tuneyard: {reason}", reason=_last_line(error))]
            problems += [_("node {name}: {answer}", name=name, answer=answer) for answer in answers]
        if problems:
            raise RequestError(_("--ray: {problems}", problems=joined(problems, "\n")))

    def fitting(self, resources: Resources) -> int:
        """How many items with these resources can run on the cluster at a time."""
        count = 0
        for node in _nodes():
            takes = {"CPU": resources.cpus, "GPU": resources.gpus, "memory": resources.memory}
            shares = [node["Resources"].get(name, 0) / amount for name, amount in takes.items() if amount]
            count += int(min(shares))
        return count

    def map(
        self,
        items: Iterable[WorkItem],
        *,
        common: object = None,
        resources: Resources = Resources(),  # noqa: B008  # frozen
        observer: Observer = SILENT,
        ahead: int = AHEAD,
    ) -> Generator[WorkResult]:
        """Run each item in an actor that is idle. If that is lost, the item runs again in another, once."""
        import ray

        if resources != self._resources:
            self._idle, self._resources = [], resources  # Ray ends an actor without a handle
        worker = ray.remote(num_cpus=resources.cpus, num_gpus=resources.gpus, memory=resources.memory)(_Actor)
        arguments = (str(Path.cwd()), ray.put(common))
        rest = iter(items)
        order: deque[DrawnItem] = deque()  # those whose results are not taken yet
        waiting: deque[DrawnItem] = deque()
        running: dict[Any, tuple[Any, DrawnItem | None]] = {}  # an actor that starts has no item yet
        try:
            while True:
                fitting = self.fitting(resources)
                most = max(ahead, fitting)
                for item in islice(rest, max(most - len(order), 0)):
                    order.append(DrawnItem(item))
                    waiting.append(order[-1])
                if not order:
                    return
                next_result = order[0].result
                if not fitting and next_result is None:
                    raise RequestError(
                        _(
                            "--ray: an item takes {cpus:g} CPU, {gpus:g} GPU and {size:.1f} GB of memory, "
                            "and no node has that (`ray status` lists them); add a node, or run it on a "
                            "machine without --ray",
                            cpus=resources.cpus,
                            gpus=resources.gpus,
                            size=resources.memory / 1e9,
                        )
                    )
                while waiting and self._idle:
                    actor, drawn = self._idle.pop(), waiting.popleft()
                    running[actor.run_in.remote(*arguments, drawn.item)] = (actor, drawn)
                    observer.started(drawn.item.name, "the cluster")
                starting = sum(drawn is None for _unused, drawn in running.values())
                for _unused in range(min(fitting - len(running), len(waiting) - starting)):
                    actor = worker.remote()
                    running[actor.__ray_ready__.remote()] = (actor, None)
                if common is None and running and len(order) < most:
                    self._idle.clear()  # no item is left, and nothing kept for the next map: GPUs for others
                if next_result is not None:
                    order.popleft()
                    yield next_result
                ended = []
                if running:
                    ended, _unused = ray.wait([*running], timeout=0 if next_result else _LOOK_EVERY)
                for reference in ended:
                    actor, ended_item = running.pop(reference)
                    answer = _answer_of(reference)
                    if not isinstance(answer, ray.exceptions.RayError):
                        self._idle.append(actor)
                        if ended_item is not None:
                            ended_item.end(answer, observer)
                        continue
                    ray.kill(actor)
                    self._idle.clear()  # their node may be lost, too
                    reason = _("was lost with its worker or node ({reason})", reason=type(answer).__name__)
                    if ended_item is not None and ended_item.runs_again(reason, observer):
                        waiting.appendleft(ended_item)
        finally:
            for actor, _item in running.values():
                ray.kill(actor)


class _Actor(WorkerSide):
    """An actor: Ray gives it GPUs for its life. Those of a task change, and CUDA keeps its first ones."""

    def run_in(self, folder: str, common: object, item: WorkItem) -> WorkResult:
        """Run an item of a driver in this folder."""
        os.chdir(folder)
        self.common = common
        return self.run(item)


def _answer_of(reference: Any) -> Any:
    """What an actor has answered, or why Ray lost it."""
    import ray

    try:
        return ray.get(reference)
    except ray.exceptions.RayTaskError:
        raise  # a defect of the item
    except ray.exceptions.RayError as error:
        return error  # OutOfMemoryError, ActorDiedError, ActorUnavailableError


def _connect(address: str) -> None:
    """Join the cluster as a driver; `RequestError` if there is none."""
    os.environ.setdefault("RAY_ENABLE_UV_RUN_RUNTIME_ENV", "0")
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    host, _unused, port = address.rpartition(":")
    if address != "auto" and (not host or "/" in host or not port.isdigit()):
        raise RequestError(
            _("--ray {address}: expected `auto`, or HOST:PORT of a cluster's head", address=address)
        )
    import ray

    handler = signal.getsignal(signal.SIGTERM)
    variables = {**python_variables(), "TQDM_DISABLE": "1"}
    try:
        if address != "auto":
            socket.create_connection((host, int(port)), ANSWERS_WITHIN).close()
        with contextlib.chdir(packages_folder()):  # Ray adds the driver's current folder to module paths
            ray.init(address, log_to_driver=False, logging_level="ERROR", runtime_env={"env_vars": variables})
    except (OSError, RuntimeError, ValueError, OverflowError) as error:
        raise RequestError(
            _(
                "--ray {address}: no cluster to join: {reason}; `ray start --head` starts one, and "
                "this machine must be one of its nodes (`ray start --address=HOST:PORT`)",
                address=address,
                reason=_last_line(error),
            )
        ) from error
    finally:
        signal.signal(signal.SIGTERM, handler)  # Ray sets its own


def _nodes() -> list[JsonObject]:
    import ray

    return [node for node in ray.nodes() if node["Alive"]]


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
    problems: list[str] = []
    for name, value in _here().items():
        if value != expected[name]:
            problems.append(
                _(
                    "{name} {value}, the driver has {expected}; install the same on every node",
                    name=name,
                    value=value,
                    expected=expected[name],
                )
            )
    for shared in (folder, *folders):
        if not os.access(shared, os.W_OK):
            problems += [
                _("cannot write to the folder {folder}; expected one that all nodes share", folder=shared)
            ]
    for name in files:
        path = Path(folder, name)
        if not os.access(path, os.R_OK):
            problems.append(_("cannot read {path}; expected a path that all nodes see", path=path))
    return problems


@functools.cache
def code_digest() -> str:
    """Hash of the program: uncommitted changes count, too."""
    program = packages_folder() / "tuneyard"
    paths = list(program.glob("*.py"))
    for marker in program.glob("*/__init__.py"):  # in a checkout the packages are links
        paths += [path for path in marker.parent.rglob("*") if path.suffix in (".py", ".json", ".yaml")]
    return files_sha256(sorted(paths))
