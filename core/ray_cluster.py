"""`--ray ADDRESS`: work items on a Ray cluster whose nodes see the same files and have the same code.

This process is a driver on one of the nodes. Before anything starts, a task on each node compares Python, the
code and the paths. Ray itself retries nothing: a lost task is handed out again here, so that it is counted.
"""

import contextlib
import functools
import hashlib
import math
import os
import platform
import secrets
import signal
import socket
import tempfile
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click

from tuneyard.core.checkout import ROOT, python_path, version
from tuneyard.core.errors import RequestError, TuneyardError, describe_os_error, need
from tuneyard.core.execution import (
    AHEAD,
    SILENT,
    Attempt,
    CallResult,
    Common,
    Executor,
    Observer,
    Resources,
    Slot,
    WorkItem,
    WorkQueue,
    WorkResult,
    call,
)
from tuneyard.core.files import existing
from tuneyard.core.ray_actors import Actors, options_of
from tuneyard.core.remote_files import RemoteFile, StoreError, store_of

ANSWERS_WITHIN = 5.0  # seconds in which the head must answer
_PROBED_WITHIN = 120.0  # seconds in which every node must have run its first task: a worker starts in seconds
_POLL_EVERY = 1.0  # seconds
_NODES_EVERY = 5.0  # seconds between two looks at the nodes
_CANCELLED_WITHIN = 3.0  # seconds that an item gets to end by itself; Ray cannot interrupt one that waits
_WAITING = 8  # items handed out beyond those that can run, so that no node waits for this process
_LAST_PORT = 65_535
_VALUES_KEPT = 8  # shared values that a worker keeps
_PACKAGES = ("core", "compiler", "recipes", "adapters", "eval")
_HTTP2_HELLO = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes([0, 0, 0, 4, 0, 0, 0, 0, 0])  # RFC 9113, 3.4
_HTTP2_SETTINGS = 4  # the type of a server's first frame


@dataclass(frozen=True, slots=True)
class _Shared:
    """Stands for a `Common` among the arguments of a task."""

    number: int
    reference: Any


@dataclass(frozen=True, slots=True)
class _Task:
    """What a node needs to run an item: the call, the folder of relative paths, and the code it expects."""

    function: Callable[..., object]
    arguments: tuple[object, ...]
    folder: str
    code: str


@dataclass(frozen=True, slots=True)
class _Questions:
    """What a node is asked before the work: does it see these inputs (path, bytes), the remote files, this
    folder and markers?

    A marker is a file that the driver wrote into an output folder. The node writes one beside it.
    """

    folder: str
    inputs: tuple[tuple[str, int], ...] = ()
    remote: tuple[RemoteFile, ...] = ()
    markers: tuple[str, ...] = ()
    answer: str = ""  # the ending of the node's own marker


@dataclass(frozen=True, slots=True)
class _Node:
    """A node's Python and code, and the problems that it has with paths."""

    python: str
    release: Mapping[str, str]
    code: str
    problems: tuple[str, ...]


class RayCluster(Executor):
    """A running cluster. `RequestError` if it does not answer or one of its nodes has other code."""

    def __init__(self, address: str) -> None:
        need("ray")
        head = _head_of(address)
        _check_answers(address, head)
        self._head = head
        self._values: dict[int, Any] = {}
        self._actors = Actors()
        self._looked = -math.inf
        self._nodes: list[dict[str, Any]] = []
        with contextlib.ExitStack() as on_error:
            self._connect()
            on_error.callback(self.close)
            self._ask_nodes(_Questions(str(Path.cwd())))
            self.workers = max(1, self.fitting(Resources()))
            self.has_gpus = self.fitting(Resources(gpus=1)) > 0
            on_error.pop_all()

    def _connect(self) -> None:
        os.environ.setdefault("RAY_ENABLE_UV_RUN_RUNTIME_ENV", "0")
        os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
        import ray

        _tame_ray()
        handler = signal.getsignal(signal.SIGTERM)
        variables = {"PYTHONPATH": python_path(), "TQDM_DISABLE": "1"}
        hint = f"--ray {self._head}: the head answers; waiting for this machine's node (`ray start`) …"
        slow = threading.Timer(ANSWERS_WITHIN, click.echo, (hint,), {"err": True})
        slow.daemon = True
        slow.start()
        try:
            ray.init(
                address=self._head,
                log_to_driver=False,
                logging_level="ERROR",
                runtime_env={"env_vars": variables},
            )
        except (ConnectionError, RuntimeError, ValueError, OSError) as error:
            first_line = str(error).strip().partition("\n")[0]
            raise RequestError(
                f"--ray {self._head}: cannot join the cluster: {first_line}; this machine must be one of its "
                f"nodes (`ray start --address={self._head}`), with the same Ray and Python"
            ) from error
        finally:
            slow.cancel()
        signal.signal(signal.SIGTERM, handler)  # if Ray has set its own all the same
        self._remote_run: Any = ray.remote(_run)  # once: each is a kind of task for the scheduler

    def close(self) -> None:
        """Leave the cluster. Ray ends the workers of a driver that has left."""
        import ray

        ray.shutdown()

    def _ask_nodes(self, questions: _Questions) -> int:
        """Ask every node; the number of nodes that have answered.

        `RequestError` lists the nodes that have other code or do not see a path.
        """
        import ray
        from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

        problems = []
        asked = {}
        answers = 0
        self._looked = -math.inf  # a node that has just joined is asked, too
        for node in self._alive_nodes():
            strategy = NodeAffinitySchedulingStrategy(node["NodeID"], soft=False)
            options = {"num_cpus": 0, "max_retries": 0, "scheduling_strategy": strategy}
            asked[ray.remote(**options)(_answer).remote(questions)] = node
        answered, silent = ray.wait(list(asked), num_returns=len(asked), timeout=_PROBED_WITHIN)
        for reference in answered:
            name = _name(asked[reference])
            try:
                answer: _Node = ray.get(reference)
            except (ray.exceptions.TaskUnschedulableError, ray.exceptions.NodeDiedError):
                continue  # it has just left the cluster
            except ray.exceptions.OutOfMemoryError:
                problems.append(f"{name} is out of memory: Ray ended its first task")
                continue
            except ray.exceptions.RayError as error:
                reason = [line for line in str(error).splitlines() if line.strip()][-1]
                problems.append(f"{name} cannot run this Tuneyard: {reason.strip()}")
                continue
            answers += 1
            problems += [f"{name}: {problem}" for problem in _differences(answer)]
        for reference in silent:
            ray.cancel(reference, force=True)
            problems.append(f"{_name(asked[reference])} did not answer within {_PROBED_WITHIN:.0f} s")
        if problems:
            raise RequestError("--ray: " + "\n".join(problems))
        return answers

    def check_paths(self, inputs: Sequence[object] = (), outputs: Sequence[object] = ()) -> None:
        """Check that every node sees these files with the same size, and writes into these folders.

        Of a remote file each node asks its store, with the keys that the node has.
        """
        remote = [path for path in inputs if isinstance(path, RemoteFile)]
        sizes = [(str(path), _size(str(path))) for path in inputs if not isinstance(path, RemoteFile)]
        ending = secrets.token_hex(8)
        with contextlib.ExitStack() as stack:
            markers = []
            for folder in outputs:
                marker = existing(Path(str(folder)).absolute()) / f".tuneyard-probe-{ending}"
                stack.callback(_remove_markers, marker)
                marker.write_text(ending, encoding="utf-8")
                markers.append(str(marker))
            questions = _Questions(str(Path.cwd()), tuple(sizes), tuple(remote), tuple(markers), ending)
            count = self._ask_nodes(questions)
            for marker_path in markers:
                written = len(list(Path(marker_path).parent.glob(f"{Path(marker_path).name}-*")))
                if written < count:
                    folder = Path(marker_path).parent
                    raise RequestError(
                        f"--ray: {folder} is another folder on {count - written} of the {count} nodes; "
                        "expected a folder that all nodes share"
                    )

    def _alive_nodes(self) -> list[dict[str, Any]]:
        import ray

        if time.monotonic() - self._looked >= _NODES_EVERY:
            self._nodes = [node for node in ray.nodes() if node["Alive"]]
            self._looked = time.monotonic()
        return self._nodes

    def fitting(self, resources: Resources) -> int:
        """How many items with these resources can run on the cluster at a time."""
        count = 0
        for node in self._alive_nodes():
            has = node["Resources"]
            shares = [10_000.0]
            if resources.cpus:
                shares.append(has.get("CPU", 0) / resources.cpus)
            if resources.gpus:
                shares.append(has.get("GPU", 0) / resources.gpus)
            if resources.memory:
                shares.append(has.get("memory", 0) / resources.memory)
            count += int(min(shares))
        return count

    def _require_fitting(self, item: WorkItem) -> int:
        """As `fitting`. `RequestError` if no node can run the item."""
        count = self.fitting(item.resources)
        if count:
            return count
        takes = item.resources
        nodes = ", ".join(_describe(node) for node in self._alive_nodes())
        if not nodes:
            raise RequestError(
                f"{item.name}: every node has left the cluster at {self._head}; start it again (`ray start "
                "--head`), then this command"
            )
        raise RequestError(
            f"{item.name}: takes {takes.cpus:g} CPU, {takes.gpus:g} GPU and {takes.memory / 1e9:.1f} GB of "
            f"memory, and no node of the cluster has that ({nodes}); add a node, or run it on a machine "
            "without --ray"
        )

    def map(
        self, items: Iterable[WorkItem], observer: Observer = SILENT, ahead: int = AHEAD
    ) -> Generator[WorkResult]:
        """Run items as tasks of the cluster. A task whose worker or node is lost runs again once."""
        import ray

        queue = WorkQueue(items, max(ahead, self.workers))
        running: dict[Any, Attempt] = {}
        cluster = Slot(f"the cluster at {self._head}")
        try:
            while True:
                self._hand_out(queue, running, observer, cluster)
                if not running:
                    if not queue.waits_for_held(observer):
                        return
                    continue
                first_done, _ = ray.wait(list(running), num_returns=1, timeout=_POLL_EVERY)
                if not first_done:
                    continue
                done, _ = ray.wait(list(running), num_returns=len(running), timeout=0)
                for reference in done:
                    attempt = running.pop(reference)
                    result = self._result_of(reference, attempt, queue, observer)
                    if result is not None:
                        yield from queue.add(attempt, result)
        finally:
            ended = self._actors.cancel()
            _cancel([reference for reference in running if reference not in ended])

    def _hand_out(
        self, queue: WorkQueue, running: dict[Any, Attempt], observer: Observer, cluster: Slot
    ) -> None:
        """Submit items until the cluster is full and a few wait there."""
        while True:
            attempt = queue.next_free()
            if attempt is None:
                return
            fitting = self._require_fitting(attempt.item)
            limit = fitting
            if not attempt.item.resources.stays:  # an actor has one item at a time
                limit += min(fitting, _WAITING)
            if len(running) >= limit:
                queue.give_back(attempt)
                return
            observer.started(attempt.item.name, cluster)
            running[self._submit(attempt.item)] = attempt

    def _submit(self, item: WorkItem) -> Any:
        import ray

        arguments: list[object] = []
        for argument in item.arguments:
            if not isinstance(argument, Common):
                arguments.append(argument)
                continue
            if argument.number not in self._values:
                self._values[argument.number] = ray.put(argument.value)
            arguments.append(_Shared(argument.number, self._values[argument.number]))
        task = _Task(item.function, tuple(arguments), str(Path.cwd()), code_digest())
        takes = item.resources
        self._actors.make_room(takes)
        if takes.stays:
            return self._actors.submit(takes, _run, task)
        options = options_of(takes)
        return self._remote_run.options(name=item.name, max_retries=0, **options).remote(task)

    def _result_of(
        self, reference: Any, attempt: Attempt, queue: WorkQueue, observer: Observer
    ) -> WorkResult | None:
        """Result of a task that has ended; None if its item runs again."""
        import ray
        from ray import exceptions

        lost = (
            exceptions.WorkerCrashedError,
            exceptions.NodeDiedError,
            exceptions.LocalRayletDiedError,
            exceptions.ObjectLostError,
            exceptions.RayActorError,
        )
        try:
            reply, output = ray.get(reference)
            self._actors.ended(reference, is_lost=False)
        except exceptions.OutOfMemoryError:
            self._actors.ended(reference, is_lost=True)
            takes = attempt.item.resources.memory / 1e9
            error = (
                f"Ray ended its process since its node ran out of memory (it asked for {takes:.1f} GB); use "
                "smaller items, or nodes with more memory"
            )
            failure = CallResult(error=error, exit_code=1, is_lost=True)
            return queue.settle(attempt, failure, "", observer)
        except lost as error:
            self._actors.ended(reference, is_lost=True)
            reason = f"was lost with its worker or node ({type(error).__name__})"
            return queue.settle_lost(attempt, reason, "", observer)
        except exceptions.RayError as error:
            self._actors.ended(reference, is_lost=not isinstance(error, exceptions.RayTaskError))
            lines = [line for line in str(error).splitlines() if line.strip()]
            failure = CallResult(error=f"its task failed: {lines[-1].strip()}", exit_code=1, is_lost=True)
            return queue.settle(attempt, failure, str(error), observer)
        return queue.settle(attempt, reply, output, observer)


def _tame_ray() -> None:
    """Keep Ray from printing lost workers, which we report, and from handling SIGTERM, with exit code 15.

    The functions are private: a release without them prints, and handles SIGTERM while it connects.
    """
    with contextlib.suppress(ImportError):
        from ray._private import worker

        if hasattr(worker, "listen_error_messages"):
            worker.listen_error_messages = lambda *_: None
    with contextlib.suppress(ImportError):
        from ray._private import utils

        if hasattr(utils, "set_sigterm_handler"):
            utils.set_sigterm_handler = lambda _: None


def _head_of(address: str) -> str:
    """HOST:PORT of the head. `auto` is RAY_ADDRESS, or the cluster that runs on this machine."""
    head = address
    if address == "auto":
        head = os.environ.get("RAY_ADDRESS", "")
        note = Path(os.environ.get("RAY_TMPDIR", "/tmp")) / "ray" / "ray_current_cluster"
        if not head and note.is_file():
            head = note.read_text(encoding="utf-8").strip()
        if not head:
            raise RequestError(
                f"--ray auto: RAY_ADDRESS is not set and no cluster is noted in {note}; start one "
                "(`ray start --head`), join one (`ray start --address=HOST:PORT`), or give its HOST:PORT, as "
                "for one with its own --temp-dir"
            )
    host, _, port = head.rpartition(":")
    if not host or "/" in host or not port.isdigit():
        raise RequestError(
            f"--ray {head}: expected `auto`, or HOST:PORT of the head of a cluster, as in 10.0.0.1:6379"
        )
    if not 1 <= int(port) <= _LAST_PORT:
        raise RequestError(f"--ray {head}: found port {port}, expected 1 to {_LAST_PORT}, as in {host}:6379")
    return head


def _check_answers(address: str, head: str) -> None:
    """Check that a gRPC server answers there. `ray.init` would wait for minutes."""
    host, _, port = head.rpartition(":")
    answer = b""
    try:
        with socket.create_connection((host, int(port)), ANSWERS_WITHIN) as connection:
            connection.settimeout(ANSWERS_WITHIN)
            connection.sendall(_HTTP2_HELLO)
            answer = connection.recv(9)
        reason = "another program answers there"
    except OSError as error:
        reason = str(error)
    if len(answer) < 4 or answer[3] != _HTTP2_SETTINGS:
        raise RequestError(
            f"--ray {address}: no cluster answers at {head}: {reason}; `ray status --address {head}` shows a "
            "running cluster, `ray start --head` starts one"
        )


def _name(node: Mapping[str, Any]) -> str:
    return f"node {node['NodeManagerHostname']} ({node['NodeManagerAddress']}, {node['NodeID'][:8]})"


def _describe(node: Mapping[str, Any]) -> str:
    has = node["Resources"]
    return (
        f"{node['NodeManagerHostname']}: {has.get('CPU', 0):g} CPU, {has.get('GPU', 0):g} GPU, "
        f"{has.get('memory', 0) / 1e9:.1f} GB"
    )


def _differences(node: _Node) -> Iterator[str]:
    """Why a node cannot work with this process."""
    if node.python != platform.python_version():
        yield f"Python {node.python}, here it is {platform.python_version()}"
    if node.code != code_digest():
        yield (
            f"another Tuneyard ({_release(node.release)}, code {node.code[:8]}), here it is "
            f"{_release(version())}, code {code_digest()[:8]}; install the same on every node"
        )
    yield from node.problems


def _release(release: Mapping[str, str]) -> str:
    return " ".join([release["version"], release.get("commit", "")[:12]]).strip()


@functools.cache
def code_digest() -> str:
    """Hash of the program: uncommitted changes count, too."""
    digest = hashlib.sha256()
    for package in _PACKAGES:
        for path in sorted((ROOT / package).rglob("*")):
            if path.suffix in (".py", ".json", ".yaml"):
                digest.update(str(path.relative_to(ROOT)).encode())
                digest.update(path.read_bytes())
    return digest.hexdigest()


def _size(path: str) -> int:
    """Bytes of a file, 0 for a folder."""
    if Path(path).is_dir():
        return 0
    return Path(path).stat().st_size


def _remove_markers(marker: Path) -> None:
    for path in [marker, *marker.parent.glob(f"{marker.name}-*")]:
        path.unlink(missing_ok=True)


def _cancel(references: list[Any]) -> None:
    """End tasks: as by Ctrl-C first, so that an item ends what it has started, then by force."""
    import ray

    for force in (False, True):
        for reference in references:
            ray.cancel(reference, force=force)
        if references:
            _, references = ray.wait(references, num_returns=len(references), timeout=_CANCELLED_WITHIN)


def _answer(questions: _Questions) -> _Node:
    """Answer the questions on a node."""
    problems = []
    if Path(questions.folder).is_dir():
        os.chdir(questions.folder)
    else:
        problems.append(f"does not see the folder {questions.folder}, in which this command runs")
    for path, size in questions.inputs:
        try:
            size_here = _size(path)
        except OSError as error:
            problems.append(f"cannot read {describe_os_error(error)}; expected a path that all nodes see")
            continue
        if size_here != size:
            problems.append(f"{path} has {size_here} bytes, here it has {size}: it is another file")
    failing_stores = set()  # a store that hangs once would let the driver wait for each of its files
    for file in questions.remote:
        store = store_of(file.address)
        if store in failing_stores:
            continue
        try:
            file.check()
        except StoreError as error:
            problems.append(str(error))
            failing_stores.add(store)
        except TuneyardError as error:
            problems.append(str(error))
    for marker in questions.markers:
        problem = _marker_problem(Path(marker), questions.answer)
        if problem:
            problems.append(problem)
    return _Node(platform.python_version(), version(), code_digest(), tuple(problems))


def _marker_problem(marker: Path, answer: str) -> str:
    """Why this node cannot write beside the driver's marker, "" if it has written there."""
    try:
        if marker.read_text(encoding="utf-8") != answer:
            raise FileNotFoundError
        own_marker = marker.with_name(f"{marker.name}-{secrets.token_hex(8)}")
        own_marker.write_text(answer, encoding="utf-8")
    except FileNotFoundError:
        return f"{marker.parent} is another folder there; expected one that all nodes share"
    except OSError as error:
        return f"cannot write to {marker.parent}: {error.strerror}"
    return ""


_values: OrderedDict[int, Any] = OrderedDict()


def _run(task: _Task) -> tuple[CallResult, str]:
    """Run an item on a node; its reply and what it printed."""
    import ray

    if task.code != code_digest():  # a node that joined after the check
        return CallResult(
            error=f"{socket.gethostname()} has another Tuneyard than the driver", exit_code=2
        ), ""
    os.chdir(task.folder)
    arguments: list[object] = []
    for argument in task.arguments:
        if not isinstance(argument, _Shared):
            arguments.append(argument)
            continue
        if argument.number not in _values:
            _values[argument.number] = ray.get(argument.reference)
        _values.move_to_end(argument.number)
        arguments.append(_values[argument.number])
    while len(_values) > _VALUES_KEPT:
        _values.popitem(last=False)
    with tempfile.TemporaryFile() as output:
        with _printing_to(output.fileno()):
            reply = call(task.function, arguments)
        output.seek(0)
        return reply, output.read().decode("utf-8", errors="replace")


@contextlib.contextmanager
def _printing_to(descriptor: int) -> Iterator[None]:
    """Let this process and its children print to a file."""
    import sys

    kept = [os.dup(1), os.dup(2)]
    sys.stdout.flush()
    sys.stderr.flush()
    try:
        os.dup2(descriptor, 1)
        os.dup2(descriptor, 2)
        yield
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        for number, copy in enumerate(kept, 1):
            os.dup2(copy, number)
            os.close(copy)
