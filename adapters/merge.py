"""Weighted merges: ΔW = Σ wᵢ·sᵢ·BᵢAᵢ written as one plain adapter, module by module, its error measured."""

import functools
import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from adapters import lowrank, vllm
from adapters.base import Base
from adapters.compatibility import check_bases
from adapters.lowrank import Factor
from adapters.methods import Method, find_method, methods
from adapters.modules_to_save import FullTensor, plan_full_tensors
from adapters.prefetch import prefetch
from adapters.store import PAIRS, PREFIX, WEIGHTS, Module
from adapters.weighted import WeightedAdapter, active, check_one_base, factors_of, notes, union
from core.errors import ContentError, RequestError
from core.weights import SIZES, Array, Spec, from_fp32, require_finite, to_fp32, write_weights

Norms = dict[str, tuple[float, float]]  # by module: ‖ΔW‖ (Frobenius), and of what the file misses of it


@dataclass(frozen=True, slots=True)
class MergeRequest:
    """What a user asked to be merged; `rank` or `energy` is for methods that need one, `dtype` e.g. F32."""

    wanted: list[tuple[str, float]]
    out: Path
    base: Path | None = None
    method: str = "exact"
    rank: int | None = None
    energy: float | None = None
    dtype: str = "F32"
    force: bool = False
    same_base: bool = False


@dataclass(frozen=True, slots=True)
class MergePlan:
    """What a merge will write: every module with one rank, and the tensors saved in full."""

    request: MergeRequest
    weighted: list[WeightedAdapter]
    rank: int
    modules: dict[str, Module]
    full_tensors: list[FullTensor]
    notes: list[str]
    base: Base | None = None

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


def relative(norms: Iterable[tuple[float, float]]) -> float:
    """Return ‖missing‖ / ‖exact‖ of all modules together whose `Norms` are given."""
    exact, missing = (math.hypot(*values) for values in zip(*norms, strict=True))
    return missing / exact if exact else (math.inf if missing else 0.0)


def plan_merge(weighted: list[WeightedAdapter], request: MergeRequest, base: Base | None = None) -> MergePlan:
    """Return what merging will write; the content of no tensor is read except to find a rank by energy."""
    method = find_method(request.method)
    used = active(weighted)
    modules = union(used)
    rank = _rank(used, modules, request, method)
    plain = {path: Module(m.kind, m.outputs, m.inputs, rank) for path, m in modules.items()}
    if base is None:
        check_one_base(weighted)
    unchecked = list(check_bases(base, weighted, same=request.same_base)) if base else []
    full_tensors = plan_full_tensors(used, base, request.dtype)
    said = [*notes(weighted), *vllm.notes(rank, any(one.base for one in full_tensors)), *unchecked]
    return MergePlan(request, used, rank, plain, full_tensors, said, base)


def merged_config(plan: MergePlan) -> dict[str, object]:
    """Return a plain adapter_config.json: one rank, alpha = rank, no patterns, no rsLoRA."""
    first = plan.weighted[0].adapter
    loras = [item.adapter.lora for item in plan.weighted]
    full_tensors = sorted({name for lora in loras for name in lora.modules_to_save})
    return {
        "base_model_name_or_path": base_name(plan.weighted, plan.base),
        "bias": "all" if any(whole.name.endswith(".bias") for whole in plan.full_tensors) else "none",
        "fan_in_fan_out": first.lora.fan_in_fan_out,
        "inference_mode": True,
        "init_lora_weights": True,
        "lora_alpha": plan.rank,
        "lora_dropout": 0.0,
        "modules_to_save": full_tensors or None,
        "peft_type": "LORA",
        "r": plan.rank,
        "revision": first.config.get("revision"),
        "target_modules": _targets(plan),
        "task_type": first.config.get("task_type"),
        "use_dora": False,
        "use_rslora": False,
    }


def _targets(plan: MergePlan) -> list[str]:
    """Return the sources' plain names where together they mean these modules alone, else every path."""
    configs = [item.adapter.config for item in plan.weighted]
    narrowing = [
        config.get(field) for config in configs for field in ("exclude_modules", "layers_to_transform")
    ]
    targets: list[Any] = [config.get("target_modules") for config in configs]
    if any(found not in (None, []) for found in narrowing) or not all(isinstance(t, list) for t in targets):
        return sorted(plan.modules)
    return sorted({name for names in targets for name in names})


def base_name(weighted: Iterable[WeightedAdapter], base: Base | None) -> str | None:
    """Return the base as the adapters name it, or the folder given where they name it differently."""
    named = list(dict.fromkeys(item.adapter.base for item in weighted if item.adapter.base))
    return str(base.folder) if base and len(named) > 1 else next(iter(named), None)


def write_merge(plan: MergePlan, folder: Path, progress: Callable[[int], object]) -> Norms:
    """Write the weights into `folder`, a few modules in memory at a time; `progress` is given bytes."""
    norms: Norms = {}
    write_weights(folder / WEIGHTS, plan.specs, _tensors(plan, norms, progress), {"format": "pt"})
    return norms


def _rank(
    weighted: list[WeightedAdapter], modules: dict[str, Module], request: MergeRequest, method: Method
) -> int:
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


def _tensors(plan: MergePlan, norms: Norms, progress: Callable[[int], object]) -> Iterator[Array]:
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
