"""What `merge` and `fuse` print."""

from collections.abc import Iterator

from adapters.change import Survival
from adapters.fuse import FusePlan
from adapters.fusedcard import advice, total
from adapters.merge import Distances, Plan
from adapters.pipeline import FuseRequest, Request


def merge_head(request: Request, plan: Plan) -> str:
    """Return one line on what a merge will write."""
    parts = "  ".join(f"{reference}={weight:g}" for reference, weight in request.wanted)
    return (
        f"{plan.options.method}  {parts}  modules {len(plan.modules)}  tensors {len(plan.specs)}  "
        f"rank {plan.rank}  {plan.bytes / 1e6:.1f} MB"
    )


def merge_plan(plan: Plan) -> Iterator[str]:
    """Yield the tensors that a merge will write."""
    for name, dtype, shape in plan.specs:
        yield f"  {name}  {'×'.join(map(str, shape))}  {dtype}"


def merge_distance(distances: Distances) -> str:
    """Return one line on how far the written adapter is from the exact sum."""
    worst = distances.worst()
    most = distances.relative([worst])
    return f"distance from the exact sum {distances.relative():.1e}, at most {most:.1e} ({worst})"


def fuse_head(request: FuseRequest, plan: FusePlan) -> str:
    """Return one line on what fusing will write."""
    parts = "  ".join(f"{reference}={weight:g}" for reference, weight in request.wanted)
    return (
        f"fuse  {parts}  into {request.base}  modules {len(plan.modules)}  shards {len(plan.shards)}  "
        f"{plan.bytes / 1e9:.2f} GB"
    )


def fuse_plan(plan: FusePlan) -> Iterator[str]:
    """Yield the files that fusing will write."""
    for shard in plan.shards:
        yield f"  {shard.name}  {len(shard.pieces)} tensors  {shard.bytes / 1e9:.2f} GB"


def fuse_survival(plan: FusePlan, survivals: dict[str, Survival]) -> Iterator[str]:
    """Yield what survived of ΔW, in all and in the worst module, and what to do where much is lost."""
    whole = total(survivals)
    yield (
        f"of ΔW {whole.share:.1%} survives, {whole.still:.1%} of the elements do not change, "
        f"distance {whole.distance:.1e} of its norm (by module in README.md)"
    )
    if advice(plan, survivals):
        yield f"note: {advice(plan, survivals)}"
