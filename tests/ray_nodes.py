"""A Ray cluster of two nodes on this machine, each with a raylet of its own, for tests and benchmarks."""

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass

STORE = 80_000_000  # bytes of a node's object store, the least that Ray takes


@dataclass(frozen=True, slots=True)
class Nodes:
    """Address of the head, and the process id of the second node's raylet: without it the node is gone."""

    address: str
    second_raylet: int


@contextlib.contextmanager
def two_nodes(cpus: int) -> Iterator[Nodes]:
    """Start two nodes with `cpus` CPUs each, by count alone; end them afterwards."""
    from ray.cluster_utils import Cluster

    cluster = Cluster()
    try:
        for _ in range(2):
            node = cluster.add_node(
                num_cpus=cpus, num_gpus=0, include_dashboard=False, object_store_memory=STORE
            )
        yield Nodes(cluster.address, node.all_processes["raylet"][0].process.pid)
    finally:
        cluster.shutdown()
