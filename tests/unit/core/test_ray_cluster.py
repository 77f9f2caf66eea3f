"""What is refused before a Ray cluster is joined, and what a node answers."""

from importlib.util import find_spec

import pytest

from tests.messages import printed, raises
from tuneyard.core.errors import RequestError
from tuneyard.core.execution import ray_cluster
from tuneyard.core.execution.ray_cluster import RayCluster

# Every worker collects this file, and ray takes 3 s to import.
pytestmark = pytest.mark.skipif(find_spec("ray") is None, reason="no ray")


@pytest.mark.parametrize(
    ("address", "expected"),
    [
        ("head", "HOST:PORT"),
        ("ray://head:10001", "HOST:PORT"),
        ("head:port", "HOST:PORT"),
        ("127.0.0.1:1", "no cluster to join"),
        ("127.0.0.1:99999", "`ray start --head` starts one"),
    ],
)
def test_an_address_that_cannot_be_joined_is_refused_at_once(address, expected) -> None:
    with raises(RequestError, address, expected):
        RayCluster(address)


def test_a_node_reports_other_code_and_each_path_that_it_does_not_see(tmp_path) -> None:
    here = ray_cluster._here()
    (tmp_path / "a.jsonl").write_text("123\n")
    assert ray_cluster._differences(here, str(tmp_path), ["a.jsonl"], [str(tmp_path)]) == []
    other = {**here, "Tuneyard": "0.0.9 with code abcdef01"}
    gone = str(tmp_path / "gone")
    files = ["a.jsonl", "b.jsonl"]
    code, folder, missing = ray_cluster._differences(other, str(tmp_path), files, [gone])
    printed(code, "0.0.9", "code abcdef01", "install the same on every node")
    printed(folder, gone, "all nodes share")
    printed(missing, "cannot read", "b.jsonl")
