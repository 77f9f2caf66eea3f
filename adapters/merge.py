"""Weighted merges: ΔW = Σ wᵢ·sᵢ·BᵢAᵢ written as one plain adapter, module by module, its error measured."""

import functools
import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from tuneyard.adapters import lowrank, output, vllm
from tuneyard.adapters.card import CARD, card_text
from tuneyard.adapters.lowrank import Factor
from tuneyard.adapters.methods import Method, Values, find_method
from tuneyard.adapters.modules_to_save import FullTensor, plan_full_tensors
from tuneyard.adapters.prefetch import prefetch, workers
from tuneyard.adapters.provenance import MERGE, base_name, provenance
from tuneyard.adapters.request import DTYPES, MergeRequest
from tuneyard.adapters.weighted import WeightedAdapter, check_bases, factors_of, notes, open_weighted, union
from tuneyard.core.adapter_files import CONFIG, PAIRS, PREFIX, WEIGHTS, Module
from tuneyard.core.base_models import Base, open_base
from tuneyard.core.errors import ContentError
from tuneyard.core.files import write_json, write_text
from tuneyard.core.weights import SIZES, Array, Spec, from_fp32, require_finite, to_fp32, write_weights

Norms = dict[str, tuple[float, float]]
"""By module: ‖ΔW‖ (Frobenius) of the reference, and the norm of the difference of the file from it."""


@dataclass(frozen=True, slots=True)
class MergePlan:
    """A checked merge: every module with one rank, and the tensors saved in full."""

    request: MergeRequest
    method: Method
    values: Values
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
        """One line on the whole merge, and one for each tensor."""
        weights = "  ".join(f"{reference}={weight:g}" for reference, weight in self.request.adapters)
        return [
            f"{self.request.method}  {weights}  modules {len(self.modules)}  tensors {len(self.specs)}  "
            f"rank {self.rank}  {self.bytes / 1e6:.1f} MB",
            *(f"  {name}  {'×'.join(map(str, shape))}  {dtype}" for name, dtype, shape in self.specs),
        ]

    def write(self, progress: output.Progress) -> list[str]:
        """Write the merge; the lines are its report."""
        return error_lines(self.method, merge(self, progress))


def relative(norms: Iterable[tuple[float, float]]) -> float:
    """The relative Frobenius error of all given modules together: ‖difference‖ / ‖reference‖."""
    references, differences = zip(*norms, strict=True)
    reference, difference = math.hypot(*references), math.hypot(*differences)
    if reference:
        return difference / reference
    return math.inf if difference else 0.0


def plan_merging(request: MergeRequest) -> MergePlan:
    """Open and check everything that a request names.

    The content of no tensor is read, unless the method chooses its rank by it.
    """
    method = find_method(request.method)
    values = method.values(request.parameters)
    weighted = open_weighted(request.adapters)
    inputs = [item.adapter.folder for item in weighted] + ([request.base] if request.base else [])
    check = functools.partial(output.check_output, request.out, inputs, "merge", force=request.force)
    check()
    base = open_base(request.base) if request.base else None
    used = [item for item in weighted if item.weight]  # only they take up rank
    modules = union(used)
    rank = _rank(method, values, used, modules)
    plain = {path: Module(m.kind, m.outputs, m.inputs, rank) for path, m in modules.items()}
    unchecked = list(check_bases(base, weighted, same=request.same_base))
    full_tensors = plan_full_tensors(used, base, request.dtype)
    texts = [*notes(weighted), *vllm.notes(rank, any(one.base for one in full_tensors)), *unchecked]
    plan = MergePlan(request, method, values, used, rank, plain, full_tensors, texts, base, check)
    output.require_space(request.out.resolve(), plan.bytes)
    return plan


def merged_config(plan: MergePlan) -> dict[str, object]:
    """The content of adapter_config.json: one rank, alpha = rank, no patterns, no rsLoRA."""
    first = plan.weighted[0].adapter
    loras = [item.adapter.lora for item in plan.weighted]
    full_tensors = sorted({name for lora in loras for name in lora.modules_to_save})
    targets: list[Any] = [lora.raw.get("target_modules") for lora in loras]
    narrowing = [lora.raw.get(f) for lora in loras for f in ("exclude_modules", "layers_to_transform")]
    written = set(plan.modules)
    # Plain names are enough if together they mean these modules alone.
    if all(value in (None, []) for value in narrowing) and all(isinstance(t, list) for t in targets):
        written = {name for target in targets for name in target}
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
        for item in plan.weighted:  # hashed beside the merge, for merge.json
            pool.submit(getattr, item.adapter, "digest")
        write_weights(staged / WEIGHTS, plan.specs, _tensors(plan, norms, progress), {"format": "pt"})
        output.carry_tokenizer([item.adapter.folder for item in plan.weighted], staged, "not carried")
        record = merge_record(plan, norms)
        write_json(staged / MERGE, record)
        write_text(staged / CARD, card_text(record))
        write_json(staged / CONFIG, merged_config(plan))
    return norms


def error_lines(method: Method, norms: Norms) -> list[str]:
    """One line on the error of the written adapter, in all and in the worst module.

    Only a method that is meant to be the weighted sum is measured against the sum.
    """
    errors = {module: relative([pair]) for module, pair in norms.items()}
    worst = max(errors, key=lambda module: errors[module])
    overall = relative(norms.values())
    line = f"relative Frobenius error {overall:.1e}, at most {errors[worst]:.1e} ({worst})"
    if method.exact_sum:
        return [line]
    return [f"{line}, from rounding the result of {method.name}, which is not the weighted sum"]


def merge_record(plan: MergePlan, norms: Norms) -> dict[str, object]:
    """The content of merge.json."""
    modules = {}
    for path, pair in norms.items():
        modules[path] = {"norm": pair[0], "error": _finite(relative([pair]))}
    dtypes = {stored: name for name, stored in DTYPES.items()}
    details = {
        "method": plan.method.name,
        "parameters": dict(plan.values),
        "dtype": dtypes[plan.request.dtype],
        "result": {
            "rank": plan.rank,
            "compared_with": "exact sum" if plan.method.exact_sum else "method's result",
            "error": _finite(relative(norms.values())),
            "modules": modules,
        },
    }
    return provenance("merge", plan.weighted, plan.base, details)


def _finite(error: float) -> float | None:
    """JSON has no infinity."""
    return error if math.isfinite(error) else None


def _rank(method: Method, values: Values, weighted: list[WeightedAdapter], modules: dict[str, Module]) -> int:
    """The rank of the result, as the method's declaration has it."""
    if method.rank == "equal":
        ranks = sorted({module.rank for item in weighted for module in item.adapter.layout.values()})
        if len(ranks) > 1:
            raise ContentError(
                f"method {method.name}: ranks {ranks} differ, and matrices of different size have no average"
            )
        return ranks[0]
    full = max(module.rank for module in modules.values())
    if method.rank == "sum":
        return full
    return min(method.choose_rank(values, (factors_of(weighted, path) for path in modules)), full)


def _tensors(plan: MergePlan, norms: Norms, progress: output.Progress) -> Iterator[Array]:
    merged = prefetch(functools.partial(_module, plan), plan.modules)
    for path, (written, pair) in zip(plan.modules, merged, strict=True):
        norms[path] = pair
        for axis, factor in enumerate(written):
            missing = plan.rank - factor.shape[axis]
            padding = [(0, 0), (0, 0)]
            padding[axis] = (0, missing)
            yield np.pad(factor, padding) if missing > 0 else factor
            progress(factor.nbytes)
    for whole in plan.full_tensors:
        values = whole.read()
        yield values
        progress(values.nbytes)


def _module(plan: MergePlan, path: str) -> tuple[tuple[Array, Array], tuple[float, float]]:
    """Merge one module: (A, B) as the file will contain them, and its entry in `Norms`."""
    factors = factors_of(plan.weighted, path)
    a, b = plan.method.combine(factors, plan.rank, plan.values)
    written = _rounded(a, plan.request.dtype), _rounded(b, plan.request.dtype)
    for factor, unrounded, side in zip(written, (a, b), "AB", strict=True):
        place = f"{path}: merged {side} in {plan.request.dtype}"
        if factor is unrounded:  # as it was read, and checked then
            continue
        require_finite(factor, f"{place}: too large for it")
        if not factor.any() and unrounded.any():
            raise ContentError(f"{place}: too small for it, all of it would become 0")
    reference = factors.exact if plan.method.exact_sum else (a, b)
    return written, lowrank.norms(reference, written)


def _rounded(factor: Factor, dtype: str) -> Array:
    """A factor as a file in `dtype` will give it back; fp32 that stays fp32 is the same array."""
    with np.errstate(over="ignore"):  # infinity is refused by its place
        narrow = factor.astype(np.float32, copy=False)
    return to_fp32(from_fp32(narrow, dtype), dtype)
