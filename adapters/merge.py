"""Weighted merges: ΔW = Σ wᵢ·sᵢ·BᵢAᵢ written as one plain adapter, module by module, its error measured."""

import functools
import json
import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from tuneyard.adapters import lowrank, output, vllm
from tuneyard.adapters.base import Base, open_base
from tuneyard.adapters.config import CONFIG
from tuneyard.adapters.lowrank import Factor
from tuneyard.adapters.methods import Method, find_method, methods
from tuneyard.adapters.modules_to_save import FullTensor, plan_full_tensors
from tuneyard.adapters.prefetch import prefetch, workers
from tuneyard.adapters.request import DTYPES, MergeRequest
from tuneyard.adapters.store import PAIRS, PREFIX, WEIGHTS, Module
from tuneyard.adapters.weighted import WeightedAdapter, check_bases, factors_of, notes, open_weighted, union
from tuneyard.core.documents import markdown_table
from tuneyard.core.errors import ContentError, RequestError
from tuneyard.core.files import write_json, write_text
from tuneyard.core.weights import SIZES, Array, Spec, from_fp32, require_finite, to_fp32, write_weights

Norms = dict[str, tuple[float, float]]  # by module: ‖ΔW‖ (Frobenius), and of what the file misses of it


@dataclass(frozen=True, slots=True)
class MergePlan:
    """What a merge will write: every module with one rank, and the tensors saved in full."""

    request: MergeRequest
    weighted: list[WeightedAdapter]
    rank: int
    modules: dict[str, Module]
    full_tensors: list[FullTensor]
    notes: list[str]
    base: Base | None
    check: output.Check

    @property
    def specs(self) -> list[Spec]:
        """Name, dtype and shape of each tensor, in the order in which they are written."""
        specs: list[Spec] = []
        for path, module in self.modules.items():
            shapes = (self.rank, module.inputs), (module.outputs, self.rank)
            for suffix, shape in zip(PAIRS[module.kind], shapes, strict=True):
                specs.append((f"{PREFIX}{path}{suffix}", self.request.dtype, shape))
        return specs + [(PREFIX + whole.name, whole.dtype, whole.shape) for whole in self.full_tensors]

    @property
    def bytes(self) -> int:
        """Size of all tensors together."""
        return sum(math.prod(shape) * SIZES[dtype] for _, dtype, shape in self.specs)

    def lines(self) -> list[str]:
        """Return one line on what would be written, and one for each tensor."""
        weights = "  ".join(f"{reference}={weight:g}" for reference, weight in self.request.wanted)
        return [
            f"{self.request.method}  {weights}  modules {len(self.modules)}  tensors {len(self.specs)}  "
            f"rank {self.rank}  {self.bytes / 1e6:.1f} MB",
            *(f"  {name}  {'×'.join(map(str, shape))}  {dtype}" for name, dtype, shape in self.specs),
        ]

    def write(self, progress: output.Progress) -> list[str]:
        """Write it and return what to say of it."""
        return error_lines(merge(self, progress))


def relative(norms: Iterable[tuple[float, float]]) -> float:
    """Return ‖missing‖ / ‖exact‖ of all modules together whose `Norms` are given."""
    exact, missing = (math.hypot(*values) for values in zip(*norms, strict=True))
    return missing / exact if exact else (math.inf if missing else 0.0)


def plan_merging(request: MergeRequest) -> MergePlan:
    """Open all that a request names and return what would be written.

    The content of no tensor is read except to find a rank by energy.
    """
    weighted = open_weighted(request.wanted)
    inputs = [item.adapter.folder for item in weighted] + ([request.base] if request.base else [])
    check = functools.partial(output.check_output, request.out, inputs, CONFIG, force=request.force)
    check()
    base = open_base(request.base) if request.base else None
    used = [item for item in weighted if item.weight]  # only they take up rank
    modules = union(used)
    rank = _rank(used, modules, request)
    plain = {path: Module(m.kind, m.outputs, m.inputs, rank) for path, m in modules.items()}
    unchecked = list(check_bases(base, weighted, same=request.same_base))
    full_tensors = plan_full_tensors(used, base, request.dtype)
    said = [*notes(weighted), *vllm.notes(rank, any(one.base for one in full_tensors)), *unchecked]
    plan = MergePlan(request, used, rank, plain, full_tensors, said, base, check)
    output.require_space(request.out.resolve(), plan.bytes)
    return plan


def merged_config(plan: MergePlan) -> dict[str, object]:
    """Return a plain adapter_config.json: one rank, alpha = rank, no patterns, no rsLoRA."""
    first = plan.weighted[0].adapter
    loras = [item.adapter.lora for item in plan.weighted]
    full_tensors = sorted({name for lora in loras for name in lora.modules_to_save})
    targets: list[Any] = [lora.raw.get("target_modules") for lora in loras]
    narrowing = [lora.raw.get(f) for lora in loras for f in ("exclude_modules", "layers_to_transform")]
    # plain names where together they mean these modules alone, else every path
    names = all(found in (None, []) for found in narrowing) and all(isinstance(t, list) for t in targets)
    written = {name for target in targets for name in target} if names else plan.modules
    return {
        "base_model_name_or_path": output.base_name(plan.weighted, plan.base),
        "bias": "all" if any(whole.name.endswith(".bias") for whole in plan.full_tensors) else "none",
        "fan_in_fan_out": first.lora.fan_in_fan_out,
        "inference_mode": True,
        "init_lora_weights": True,
        "lora_alpha": plan.rank,
        "lora_dropout": 0.0,
        "modules_to_save": full_tensors or None,
        "peft_type": "LORA",
        "r": plan.rank,
        "revision": first.lora.raw.get("revision"),
        "target_modules": sorted(written),
        "task_type": first.lora.raw.get("task_type"),
        "use_dora": False,
        "use_rslora": False,
    }


def merge(plan: MergePlan, progress: output.Progress) -> Norms:
    """Write a planned merge as one folder, a few modules in memory at a time; `progress` is given bytes.

    The config comes last, so that nothing unfinished loads.
    """
    norms: Norms = {}
    with workers(1) as pool, output.staged_for(plan.check) as staged:
        for item in plan.weighted:  # hashed beside the merge, for the card
            pool.submit(getattr, item.adapter, "digest")
        write_weights(staged / WEIGHTS, plan.specs, _tensors(plan, norms, progress), {"format": "pt"})
        output.carry_tokenizer([item.adapter.folder for item in plan.weighted], staged, "not carried")
        write_text(staged / output.CARD, _card(plan, norms))
        write_json(staged / CONFIG, merged_config(plan))
    return norms


def error_lines(norms: Norms) -> list[str]:
    """Return one line on the error of the written adapter against the exact sum."""
    errors = {module: relative([pair]) for module, pair in norms.items()}
    worst = max(errors, key=lambda module: errors[module])
    overall, most = relative(norms.values()), errors[worst]
    return [f"relative Frobenius error {overall:.1e}, at most {most:.1e} ({worst})"]


def _card(plan: MergePlan, norms: Norms) -> str:
    """Return README.md: how it was made, from which files, and the error of every module."""
    request = plan.request
    lines = [f"method: {request.method}"]
    lines += [f"rank: {request.rank}"] if request.rank is not None else []
    lines += [f"energy: {request.energy!r}"] if request.energy is not None else []
    lines += [f"dtype: {name}" for name, stored in DTYPES.items() if stored == request.dtype != "F32"]
    lines += [f"base: {json.dumps(str(plan.base.folder))}"] if plan.base else []
    rows = [[path, f"{pair[0]:.4g}", f"{relative([pair]):.2e}"] for path, pair in norms.items()]
    return output.card(
        (plan.weighted, plan.base),
        "library_name: peft\ntags: [lora, merge]",
        "Merge of",
        f"ΔW = Σ weight · scale · B·A, method `{request.method}`, rank {plan.rank}, {output.made_with()}.\n"
        "Scales and weights are folded into B: alpha equals the rank, so the file's own scale is 1.",
        "\n".join(lines) + "\n",
        f"Relative Frobenius error against the exact sum: {relative(norms.values()):.2e} in all.",
        markdown_table(["module", "norm of ΔW", "relative error"], rows),
    )


def _rank(weighted: list[WeightedAdapter], modules: dict[str, Module], request: MergeRequest) -> int:
    method = find_method(request.method)
    rank, energy, given = request.rank, request.energy, f"method {method.name}"
    if method.rank == "chosen" and (rank is None) == (energy is None):
        raise RequestError(f"{given}: give either --rank R or --energy E")
    if method.rank != "chosen" and (rank is not None or energy is not None):
        chosen = " or ".join(each.name for each in methods().values() if each.rank == "chosen")
        raise RequestError(f"{given}: --rank and --energy belong to --method {chosen}")
    if rank is not None and rank < 1:
        raise RequestError(f"--rank {rank}: expected at least 1")
    if energy is not None and not 0 < energy <= 1:
        raise RequestError(f"--energy {energy}: expected a share above 0 and at most 1")
    ranks = sorted({module.rank for item in weighted for module in item.adapter.layout.values()})
    if method.rank == "equal" and len(ranks) > 1:
        raise ContentError(f"{given}: ranks {ranks} differ, and matrices of different size have no average")
    full = ranks[0] if method.rank == "equal" else max(module.rank for module in modules.values())
    if energy is None:
        return min(rank or full, full)
    spectra = (lowrank.singular_values(*factors_of(weighted, path).exact) for path in modules)
    return max(lowrank.rank_for(values, energy) for values in spectra)


def _tensors(plan: MergePlan, norms: Norms, progress: output.Progress) -> Iterator[Array]:
    merged = prefetch(functools.partial(_module, plan, find_method(plan.request.method)), plan.modules)
    for path, (written, found) in zip(plan.modules, merged, strict=True):
        norms[path] = found
        for axis, factor in enumerate(written):
            padding = [(0, 0), (0, 0)]
            padding[axis] = (0, plan.rank - factor.shape[axis])
            yield np.pad(factor, padding) if factor.shape[axis] < plan.rank else factor
            progress(factor.nbytes)
    for whole in plan.full_tensors:
        values = whole.read()
        yield values
        progress(values.nbytes)


def _module(plan: MergePlan, method: Method, path: str) -> tuple[tuple[Array, Array], tuple[float, float]]:
    """Return (A, B) as the file will hold them, and the norms of the exact ΔW and of what is missing."""
    factors = factors_of(plan.weighted, path)
    a, b = method.combine(factors, plan.rank)
    written = _rounded(a, plan.request.dtype), _rounded(b, plan.request.dtype)
    for factor, wanted, side in zip(written, (a, b), "AB", strict=True):
        where = f"{path}: merged {side} in {plan.request.dtype}"
        if factor is wanted:  # as it was read, and checked then
            continue
        require_finite(factor, f"{where}: too large for it")
        if not factor.any() and wanted.any():
            raise ContentError(f"{where}: too small for it, all of it would become 0")
    return written, lowrank.norms(factors.exact, written)


def _rounded(factor: Factor, dtype: str) -> Array:
    """Return what a file in `dtype` will hold of a factor; fp32 that stays fp32 is the same array."""
    with np.errstate(over="ignore"):  # infinity is refused by its place
        narrow = factor.astype(np.float32, copy=False)
    return to_fp32(from_fp32(narrow, dtype), dtype)
