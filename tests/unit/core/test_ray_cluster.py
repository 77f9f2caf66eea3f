"""What is refused before a Ray cluster is joined, and what a node answers: without Ray."""

import contextlib
import socket
import sys
import threading
import time
from collections.abc import Iterator
from types import ModuleType

import pytest

from tests.messages import check_facts, raises
from tuneyard.core import ray_cluster
from tuneyard.core.checkout import version
from tuneyard.core.errors import RequestError
from tuneyard.core.execution import WorkItem
from tuneyard.core.ray_cluster import RayCluster
from tuneyard.core.remote_files import RemoteFile, StoreError


@contextlib.contextmanager
def listening(greeting: bytes | None) -> Iterator[str]:
    """A server at HOST:PORT that sends this, or is silent."""
    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve() -> None:
            with contextlib.suppress(OSError):
                connection, _ = server.accept()
                if greeting is not None:
                    connection.sendall(greeting)
                time.sleep(20)

        threading.Thread(target=serve, daemon=True).start()
        yield f"127.0.0.1:{server.getsockname()[1]}"


@pytest.mark.parametrize(
    ("greeting", "fact"),
    [(None, "timed out"), (b"SSH-2.0-OpenSSH_9\r\n", "another program"), (b"", "another program")],
)
def test_a_server_that_is_no_cluster_is_refused_at_once(monkeypatch, greeting, fact) -> None:
    monkeypatch.setattr(ray_cluster, "ANSWERS_WITHIN", 0.3)
    with listening(greeting) as address, pytest.raises(RequestError) as error:
        if greeting == b"":
            address = "127.0.0.1:1"  # nothing listens there
            fact = "refused"
        RayCluster(address)
    check_facts(str(error.value), (address, fact, "no cluster answers", "ray start --head"))


@pytest.mark.parametrize("address", ["head", "ray://head:10001", "head:port", ":6379"])
def test_an_address_of_another_form_is_refused(address) -> None:
    with raises(RequestError, address, "HOST:PORT"):
        RayCluster(address)


@pytest.mark.parametrize("port", [0, 65536, 99999])
def test_a_port_that_no_machine_has_is_refused(port) -> None:
    with raises(RequestError, f"head:{port}", "65535"):
        RayCluster(f"head:{port}")


def test_auto_takes_the_variable_then_the_cluster_of_this_machine(tmp_path, monkeypatch) -> None:
    monkeypatch.setenv("RAY_TMPDIR", str(tmp_path))
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    with raises(RequestError, "--ray auto", "ray_current_cluster", "ray start --head", "--temp-dir"):
        RayCluster("auto")
    (tmp_path / "ray").mkdir()
    (tmp_path / "ray/ray_current_cluster").write_text("127.0.0.1:1\n")
    with pytest.raises(RequestError, match="no cluster answers at 127.0.0.1:1:"):
        RayCluster("auto")
    monkeypatch.setenv("RAY_ADDRESS", "127.0.0.1:2")
    with pytest.raises(RequestError, match="no cluster answers at 127.0.0.1:2:"):
        RayCluster("auto")


def node(**changes: object) -> ray_cluster._Node:
    import platform

    values = {"python": platform.python_version(), "release": version(), "problems": ()}
    return ray_cluster._Node(**{**values, "code": ray_cluster.code_digest(), **changes})


def test_a_node_must_have_this_python_and_this_code() -> None:
    assert list(ray_cluster._differences(node())) == []
    (python,) = ray_cluster._differences(node(python="3.9.1"))
    check_facts(python, ("Python 3.9.1",))
    (code,) = ray_cluster._differences(node(code="abcdef0123", release={"version": "0.0.9"}))
    check_facts(code, ("0.0.9", "code abcdef01", "install the same on every node"))


def test_a_node_reports_each_path_that_it_does_not_see(tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    file = tmp_path / "a.jsonl"
    file.write_text("123\n")
    marker = tmp_path / ".tuneyard-probe-x"
    marker.write_text("x")
    questions = ray_cluster._Questions(str(tmp_path), (("a.jsonl", 4),), markers=(str(marker),), answer="x")
    assert ray_cluster._answer(questions).problems == ()
    assert len(list(tmp_path.glob(".tuneyard-probe-x-*"))) == 1
    inputs = (("a.jsonl", 5), ("b.jsonl", 5))
    marker.write_text("of another folder")
    questions = ray_cluster._Questions(str(tmp_path / "gone"), inputs, markers=(str(marker),), answer="x")
    folder, size, missing, output = ray_cluster._answer(questions).problems
    check_facts(folder, ("gone", "in which this command runs"))
    check_facts(size, ("a.jsonl has 4 bytes", "5"))
    check_facts(missing, ("b.jsonl", "No such file"))
    check_facts(output, (str(tmp_path), "all nodes share"))


def test_a_node_asks_a_store_that_hangs_once(tmp_path, monkeypatch) -> None:
    """Each question takes 45 s then, and the driver waits for 120 s."""
    asked = []

    def check(file: RemoteFile) -> None:
        asked.append(file.address)
        if file.address.startswith("s3://hangs/"):
            raise StoreError(f"{file.address}: no answer")
        raise RequestError(f"{file.address}: not found")

    monkeypatch.setattr(RemoteFile, "check", check)
    monkeypatch.chdir(tmp_path)
    addresses = ["s3://hangs/a.jsonl", "s3://hangs/b.jsonl", "s3://other/a.jsonl", "s3://other/b.jsonl"]
    remote = tuple(RemoteFile(address, 1, "") for address in addresses)
    problems = ray_cluster._answer(ray_cluster._Questions(str(tmp_path), remote=remote)).problems
    assert asked == [addresses[0], *addresses[2:]] and len(problems) == 3


PRIVATE = {"worker": "listen_error_messages", "utils": "set_sigterm_handler"}


@pytest.fixture
def private(monkeypatch) -> ModuleType:
    """A package ray._private without modules."""
    package = ModuleType("ray._private")
    monkeypatch.setitem(sys.modules, "ray", ModuleType("ray"))
    monkeypatch.setitem(sys.modules, "ray._private", package)
    return package


@pytest.mark.parametrize("has_modules", [True, False])
def test_a_ray_without_the_private_functions_that_are_replaced_is_left_as_it_is(private, has_modules) -> None:
    if has_modules:
        for name in PRIVATE:
            setattr(private, name, ModuleType(f"ray._private.{name}"))
    ray_cluster._tame_ray()
    for name, function in PRIVATE.items():
        assert not hasattr(getattr(private, name, None), function)


def test_ray_neither_prints_lost_workers_nor_handles_sigterm(private) -> None:
    for name, function in PRIVATE.items():
        module = ModuleType(f"ray._private.{name}")
        setattr(module, function, lambda *_: pytest.fail("Ray's own"))
        setattr(private, name, module)
    ray_cluster._tame_ray()
    private.worker.listen_error_messages("a worker", "was lost")
    private.utils.set_sigterm_handler(print)


def test_a_cluster_that_every_node_has_left_is_said(monkeypatch) -> None:
    cluster = RayCluster.__new__(RayCluster)
    cluster._head = "head:6379"
    monkeypatch.setattr(cluster, "_alive_nodes", list)
    with raises(RequestError, "rows 1 to 9", "head:6379", "ray start --head"):
        cluster._require_fitting(WorkItem("rows 1 to 9", print, ()))
