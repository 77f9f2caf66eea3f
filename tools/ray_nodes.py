"""A Ray cluster of two nodes on this machine, each with a raylet of its own, for `tools.bench.scale`."""

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

STORE = 80_000_000  # bytes of a node's object store, the least that Ray takes


@dataclass(frozen=True, slots=True)
class Nodes:
    """Address of the head, and the process ids of the raylets. Without its raylet a node is gone."""

    address: str
    raylets: tuple[int, ...]

    def workers(self) -> list[int]:
        """The processes that the raylets have started."""
        return [process for raylet in self.raylets for process in children(raylet)]


def children(process: int) -> list[int]:
    """The processes that a process has started, as proc(5) lists them."""
    return [
        int(number)
        for thread in Path(f"/proc/{process}/task").iterdir()
        for number in (thread / "children").read_text().split()
    ]


@contextlib.contextmanager
def two_nodes(cpus: int) -> Iterator[Nodes]:
    """Start two nodes with `cpus` CPUs each, by count alone; end them afterwards."""
    from ray.cluster_utils import Cluster

    cluster = Cluster()
    try:
        raylets = []
        for _unused in range(2):
            node = cluster.add_node(
                num_cpus=cpus, num_gpus=0, include_dashboard=False, object_store_memory=STORE
            )
            raylets.append(node.all_processes["raylet"][0].process.pid)
        yield Nodes(cluster.address, tuple(raylets))
    finally:
        cluster.shutdown()
