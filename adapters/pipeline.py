"""Merging and fusing from request to published folder: open, plan, write, card, publish; and what is said."""

import functools
from collections.abc import Callable, Iterable
from pathlib import Path

from adapters import output
from adapters.base import open_base
from adapters.cards import fused_card, merge_card
from adapters.config import CONFIG
from adapters.delta import Retained, total
from adapters.fuse import FusePlan, FuseRequest, fused_config, plan_fuse, write_fuse
from adapters.merge import MergePlan, MergeRequest, Norms, merged_config, plan_merge, relative, write_merge
from adapters.output import CARD
from adapters.prefetch import workers
from adapters.shards import write_index
from adapters.weighted import WeightedAdapter, open_weighted
from core.files import write_json, write_text

MUCH_LOST = 0.1  # of ‖ΔW‖; below it bf16 rounding is as good as invisible in the adapters' own effect
Progress = Callable[[int], object]  # is given bytes


def plan_merging(request: MergeRequest) -> MergePlan:
    """Open everything that a request names and return what would be written; nothing is written."""
    weighted = open_weighted(request.wanted)
    _check_output(request, weighted)
    return plan_merge(weighted, request, open_base(request.base) if request.base else None)


def plan_fusing(request: FuseRequest) -> FusePlan:
    """Open base and adapters and return what would be written; nothing is written."""
    weighted = open_weighted(request.wanted)
    _check_output(request, weighted)
    planned = plan_fuse(weighted, request, open_base(request.base))
    output.require_space(request.out.resolve(), planned.bytes)
    return planned


def _check_output(request: MergeRequest | FuseRequest, weighted: Iterable[WeightedAdapter]) -> Path:
    inputs = [item.adapter.folder for item in weighted] + ([request.base] if request.base else [])
    marker = CONFIG if isinstance(request, MergeRequest) else "config.json"
    return output.check_output(request.out, inputs, force=request.force, marker=marker)


def merge(plan: MergePlan, progress: Progress) -> Norms:
    """Write a planned merge as one folder; the config comes last, so that nothing unfinished loads."""
    check = functools.partial(_check_output, plan.request, plan.weighted)
    with workers(1) as pool, output.staged_for(check(), check) as staged:
        for item in plan.weighted:  # hashed beside the merge, for the card
            pool.submit(getattr, item.adapter, "digest")
        norms = write_merge(plan, staged, progress)
        folders = [item.adapter.folder for item in plan.weighted]
        output.carry_tokenizer(folders, staged, "not carried")
        write_text(staged / CARD, merge_card(plan, norms))
        write_json(staged / CONFIG, merged_config(plan))
    return norms


def fuse(plan: FusePlan, progress: Progress) -> dict[str, Retained]:
    """Write a planned model as one folder, its config last; an interrupted run can be resumed."""
    check = functools.partial(_check_output, plan.request, plan.weighted)
    with output.resumable(check(), check) as folder:
        retained = write_fuse(plan, folder, progress)
        output.carry_model_files(plan.base.folder, folder)
        folders = [item.adapter.folder for item in plan.weighted]
        output.carry_tokenizer(folders, folder, "the base's taken")
        write_index(folder, plan.shards)
        write_text(folder / CARD, fused_card(plan, retained))
        write_json(folder / "config.json", fused_config(plan))
    return retained


def plan_lines(plan: MergePlan | FusePlan) -> list[str]:
    """Return one line on what would be written, and one for each tensor or file."""
    weights = "  ".join(f"{reference}={weight:g}" for reference, weight in plan.request.wanted)
    if isinstance(plan, MergePlan):
        return [
            f"{plan.request.method}  {weights}  modules {len(plan.modules)}  tensors {len(plan.specs)}  "
            f"rank {plan.rank}  {plan.bytes / 1e6:.1f} MB",
            *(f"  {name}  {'×'.join(map(str, shape))}  {dtype}" for name, dtype, shape in plan.specs),
        ]
    return [
        f"fuse  {weights}  into {plan.request.base}  modules {len(plan.modules)}  "
        f"shards {len(plan.shards)}  {plan.bytes / 1e9:.2f} GB",
        *(f"  {one.name}  {len(one.pieces)} tensors  {one.bytes / 1e9:.2f} GB" for one in plan.shards),
    ]


def write(plan: MergePlan | FusePlan, progress: Progress) -> list[str]:
    """Write what is planned and return what to say of it."""
    if isinstance(plan, MergePlan):
        return error_lines(merge(plan, progress))
    return retained_lines(plan, fuse(plan, progress))


def error_lines(norms: Norms) -> list[str]:
    """Return one line on the error of the written adapter against the exact sum."""
    errors = {module: relative([pair]) for module, pair in norms.items()}
    worst = max(errors, key=lambda module: errors[module])
    overall, most = relative(norms.values()), errors[worst]
    return [f"relative Frobenius error {overall:.1e}, at most {most:.1e} ({worst})"]


def retained_lines(plan: FusePlan, retained: dict[str, Retained]) -> list[str]:
    """Return the retained fraction of ΔW over all modules, and what to do where much is lost."""
    overall = total(retained.values())
    lines = [
        f"retained fraction of ΔW {overall.fraction:.1%}, relative Frobenius error {overall.error:.1e}, "
        f"{overall.unchanged_share:.1%} of the elements unchanged (by module in README.md)"
    ]
    if overall.error > MUCH_LOST and plan.request.dtype != "F32":
        lines.append(
            f"note: {overall.error:.0%} of ΔW is rounded away: write --dtype fp32, or serve the adapter "
            "unmerged, which is exact"
        )
    return lines
