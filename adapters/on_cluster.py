"""`tuneyard adapter fuse … --ray ADDRESS`: a fusion as one task, on a node that has the memory for it."""

from tuneyard.adapters.fuse import FusePlan, plan_fusing
from tuneyard.adapters.request import FuseRequest
from tuneyard.core.execution import Resources, WorkItem
from tuneyard.core.ray_cluster import RayCluster


def fuse_on_cluster(plan: FusePlan, address: str) -> list[str]:
    """Write a plan on a node of a cluster; the lines on the retained fraction of ΔW.

    `RequestError` if the cluster does not answer, a node does not see the files, or none has the memory.
    """
    request = plan.request
    inputs = [item.adapter.folder for item in plan.weighted]
    inputs += [path for path in sorted(request.base.iterdir()) if path.is_file()]
    with RayCluster(address) as cluster:
        cluster.check_paths(inputs, [request.out])
        item = WorkItem(f"fuse {request.out}", _fuse, (request,), resources=Resources(memory=plan.memory))
        (result,) = cluster.map([item])
        lines: list[str] = result.record_or_raise()
    return lines


def _fuse(request: FuseRequest) -> list[str]:
    """Plan and write a fusion on a node."""
    return plan_fusing(request).write(lambda _: None)
