"""What `merge` and `fuse` print."""

from collections.abc import Iterator

from adapters.delta import Retained, total
from adapters.fuse import FusePlan
from adapters.merge import FrobeniusErrors, MergePlan
from adapters.pipeline import FuseRequest, MergeRequest

MUCH_LOST = 0.1  # of ‖ΔW‖; below it bf16 rounding is as good as invisible in the adapters' own effect


def merge_lines(request: MergeRequest, plan: MergePlan) -> list[str]:
    """Return one line on what a merge will write, and one for each tensor."""
    return [
        f"{plan.options.method}  {_weights(request)}  modules {len(plan.modules)}  "
        f"tensors {len(plan.specs)}  rank {plan.rank}  {plan.bytes / 1e6:.1f} MB",
        *(f"  {name}  {'×'.join(map(str, shape))}  {dtype}" for name, dtype, shape in plan.specs),
    ]


def merge_error(errors: FrobeniusErrors) -> str:
    """Return one line on the error of the written adapter against the exact sum."""
    worst = errors.worst()
    most = errors.relative([worst])
    return f"relative Frobenius error {errors.relative():.1e}, at most {most:.1e} ({worst})"


def fuse_lines(request: FuseRequest, plan: FusePlan) -> list[str]:
    """Return one line on what fusing will write, and one for each file."""
    return [
        f"fuse  {_weights(request)}  into {request.base}  modules {len(plan.modules)}  "
        f"shards {len(plan.shards)}  {plan.bytes / 1e9:.2f} GB",
        *(f"  {one.name}  {len(one.pieces)} tensors  {one.bytes / 1e9:.2f} GB" for one in plan.shards),
    ]


def _weights(request: MergeRequest | FuseRequest) -> str:
    return "  ".join(f"{reference}={weight:g}" for reference, weight in request.wanted)


def fuse_retained(plan: FusePlan, retained: dict[str, Retained]) -> Iterator[str]:
    """Yield the retained fraction of ΔW over all modules, and what to do where much is lost."""
    overall = total(retained.values())
    yield (
        f"retained fraction of ΔW {overall.fraction:.1%}, relative Frobenius error {overall.error:.1e}, "
        f"{overall.unchanged_share:.1%} of the elements unchanged (by module in README.md)"
    )
    if advice(plan, retained):
        yield f"note: {advice(plan, retained)}"


def advice(plan: FusePlan, retained: dict[str, Retained]) -> str:
    """Return what to do where rounding takes much of ΔW away, else an empty string."""
    lost = total(retained.values()).error
    if lost <= MUCH_LOST or plan.options.dtype == "F32":
        return ""
    return (
        f"{lost:.0%} of ΔW is rounded away: write --dtype fp32, or serve the adapter unmerged, which is exact"
    )
