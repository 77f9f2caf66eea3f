"""Merging and fusing from request to published folder: open, plan, write, card, publish."""

import functools
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from adapters.base import open_base
from adapters.cards import fused_card, merge_card
from adapters.compatibility import check_base
from adapters.config import CONFIG
from adapters.delta import Retained
from adapters.fuse import FuseOptions, FusePlan, fused_config, plan_fuse, write_fuse
from adapters.merge import FrobeniusErrors, MergeOptions, MergePlan, merged_config, plan_merge, write_merge
from adapters.merge_recipe import DTYPES, read_recipe
from adapters.output import (
    CARD,
    carry_model_files,
    carry_tokenizer,
    check_output,
    require_space,
    resumable,
    staged_for,
)
from adapters.shards import write_index
from adapters.weighted import (
    WeightedAdapter,
    check_one_base,
    hashed,
    open_weighted,
    parse_optional_weight,
    parse_reference_weight,
    parse_size,
)
from core.checkout import bundled
from core.errors import RequestError
from core.files import write_json, write_text


@dataclass(frozen=True, slots=True)
class MergeRequest:
    """What a user asked to be merged: references with weights, how, where, and against which base."""

    wanted: list[tuple[str, float]]
    options: MergeOptions
    out: Path
    base: Path | None = None
    force: bool = False
    same_base: bool = False


def merge_request(texts: Sequence[str], options: Mapping[str, Any], *, force: bool) -> MergeRequest:
    """Return the request of a command line: weighted adapters, or one recipe, whose fields options override.

    `options` are the command's: out, base, same_base, method, rank, energy, dtype.
    """
    recipe: dict[str, Any] = {"adapters": texts, "method": "exact", "dtype": "fp32"}
    if len(texts) == 1 and texts[0].endswith((".yaml", ".yml")):
        recipe |= read_recipe(bundled(Path(texts[0])))
    elif any(text.endswith((".yaml", ".yml")) for text in texts):
        raise RequestError("a recipe is given alone: it names its adapters itself")
    given = {name: value for name, value in options.items() if value is not None}
    if {"rank", "energy"} & given.keys() or given.get("method", recipe["method"]) != recipe["method"]:
        recipe |= {"rank": None, "energy": None}
    chosen = recipe | given
    if not chosen.get("out"):
        raise RequestError("no --out: the folder of the merged adapter")
    return MergeRequest(
        [parse_reference_weight(text) for text in chosen["adapters"]],
        MergeOptions(chosen["method"], chosen.get("rank"), chosen.get("energy"), DTYPES[chosen["dtype"]]),
        Path(chosen["out"]),
        Path(chosen["base"]) if chosen.get("base") else None,
        force,
        options["same_base"],
    )


def plan(request: MergeRequest) -> MergePlan:
    """Open everything that a request names and return what would be written; nothing is written."""
    weighted = open_weighted(request.wanted)
    _check_output(request, weighted)
    if request.base is None:
        check_one_base(weighted)
        return plan_merge(weighted, request.options)
    planned = plan_merge(weighted, request.options, open_base(request.base))
    planned.notes.extend(_check_bases(weighted, request.base, same=request.same_base))
    return planned


def _check_bases(weighted: Iterable[WeightedAdapter], base: Path, *, same: bool) -> list[str]:
    return list(filter(None, (check_base(item.adapter, base, str(base), same=same) for item in weighted)))


def _check_output(request: "MergeRequest | FuseRequest", weighted: Iterable[WeightedAdapter]) -> Path:
    inputs = [item.adapter.folder for item in weighted] + ([request.base] if request.base else [])
    marker = CONFIG if isinstance(request, MergeRequest) else "config.json"
    return check_output(request.out, inputs, force=request.force, marker=marker)


def merge(
    request: MergeRequest, planned: MergePlan, progress: Callable[[int], object], say: Callable[[str], None]
) -> FrobeniusErrors:
    """Write a planned merge as one folder; the config comes last, so that nothing unfinished loads."""
    check = functools.partial(_check_output, request, planned.weighted)
    with hashed(planned.weighted), staged_for(check(), check, say) as staged:
        errors = write_merge(planned, staged, progress)
        folders = [item.adapter.folder for item in planned.weighted]
        differing = carry_tokenizer(folders, staged)
        if differing:
            say(f"not carried, since the adapters differ in them: {', '.join(differing)}")
        write_text(staged / CARD, merge_card(planned, errors))
        write_json(staged / CONFIG, merged_config(planned))
    return errors


@dataclass(frozen=True, slots=True)
class FuseRequest:
    """What a user asked to be fused: references with weights, the base, how, and where."""

    wanted: list[tuple[str, float]]
    base: Path
    options: FuseOptions
    out: Path
    force: bool = False
    same_base: bool = False


def fuse_request(texts: Sequence[str], options: Mapping[str, Any], *, force: bool) -> FuseRequest:
    """Return the request of a command line; `options` are the command's, by name."""
    size = options["max_shard_size"]
    chosen = FuseOptions(
        "F32" if options["dtype"] else None, options["base_as"], parse_size(size) if size else None
    )
    wanted = [parse_optional_weight(text) for text in texts]
    return FuseRequest(wanted, options["base"], chosen, options["out"], force, options["same_base"])


def plan_fusing(request: FuseRequest) -> FusePlan:
    """Open base and adapters and return what would be written; nothing is written."""
    weighted = open_weighted(request.wanted)
    _check_output(request, weighted)
    planned = plan_fuse(open_base(request.base), weighted, request.options)
    planned.notes.extend(_check_bases(weighted, request.base, same=request.same_base))
    require_space(request.out.resolve(), planned.bytes)
    return planned


def fuse(
    request: FuseRequest, planned: FusePlan, progress: Callable[[int], object], say: Callable[[str], None]
) -> dict[str, Retained]:
    """Write a planned model as one folder, its config last; an interrupted run can be resumed."""
    check = functools.partial(_check_output, request, planned.weighted)
    with resumable(check(), check, say) as folder:
        retained = write_fuse(planned, folder, progress)
        carry_model_files(planned.base.folder, folder)
        differing = carry_tokenizer([item.adapter.folder for item in planned.weighted], folder)
        if differing:
            say(f"the base's taken, since the adapters differ in them: {', '.join(differing)}")
        write_index(folder, planned.shards)
        write_text(folder / CARD, fused_card(planned, retained))
        write_json(folder / "config.json", fused_config(planned))
    return retained
