"""Merge adapters: ΔW = Σ wᵢ·sᵢ·BᵢAᵢ written as one plain adapter, with its error measured by module.

`merge` does what a request asks for: `plan_merging` opens everything, checks it and plans, `write_merge`
writes the plan.
"""

import contextlib
import functools
import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from tuneyard.adapters.merge.request import MergeRequest
from tuneyard.adapters.methods import Method, Values, find_method, methods
from tuneyard.adapters.methods.exact import exact
from tuneyard.adapters.model import lowrank
from tuneyard.adapters.model.lora import vllm_notes
from tuneyard.adapters.model.provenance import (
    CARD,
    EXACT_SUM,
    FULL_RANK,
    Datasets,
    base_name,
    card_text,
    provenance,
    training_datasets,
)
from tuneyard.adapters.model.store import open_adapter
from tuneyard.adapters.model.unlearned import unlearned_notes
from tuneyard.adapters.model.weighted import (
    WeightedAdapter,
    check_inputs,
    factors_of,
    open_base_of,
    open_weighted,
    union,
)
from tuneyard.adapters.model.weights import weight_text
from tuneyard.adapters.write import output
from tuneyard.adapters.write.carried_tokenizer import PROMPT_FILES, carry_ends, carry_tokenizer
from tuneyard.adapters.write.inputs import (
    Inputs,
    PresentInputs,
    Value,
    folder_inputs,
    hashes_of,
    model_files,
    record_state,
    weighted_inputs,
)
from tuneyard.adapters.write.modules_to_save import FullTensor, needs_base, plan_full_tensors
from tuneyard.core.datasets.trained_examples import write_union
from tuneyard.core.errors import ContentError
from tuneyard.core.execution.state import NEW, State
from tuneyard.core.files import json_text
from tuneyard.core.files.links import check_own_files
from tuneyard.core.language.message import _, counted, joined
from tuneyard.core.language.number_format import size_words
from tuneyard.core.training.training_run import MERGE
from tuneyard.core.weights.adapter_files import CONFIG, PAIRS, PREFIX, WEIGHTS, Module
from tuneyard.core.weights.base_models import Base
from tuneyard.core.weights.dtypes import STORED_DTYPES
from tuneyard.core.weights.tensors import (
    Array,
    Spec,
    data_bytes,
    from_fp32,
    prefetch,
    require_finite,
    to_fp32,
    workers,
    write_weights,
)

Norms = dict[str, tuple[float, float]]
"""By module: ‖ΔW‖ (Frobenius) of the reference, and the norm of the difference of the file from it."""
MergedModule = tuple[tuple[Array, Array], tuple[float, float]]
"""A and B of a module as the file will contain them, and its entry in `Norms`."""
EXACT = 1e-6  # the rounding of fp32


@dataclass(frozen=True, slots=True)
class MergePlan:
    """A checked merge: every module with one rank, and the tensors saved in full.

    `weighted` has no adapters with weight 0. `datasets` lists the training datasets of each adapter. `specs`
    has name, dtype and shape of each tensor in the order of writing, `bytes` is the size of all of them.
    """

    request: MergeRequest
    method: Method
    values: Values
    weighted: list[WeightedAdapter]
    datasets: list[Datasets]
    base: Base | None
    rank: int
    modules: dict[str, Module]
    full_tensors: list[FullTensor]
    specs: list[Spec]
    bytes: int
    config: dict[str, object]
    notes: list[str]
    check: output.Check

    def lines(self) -> list[str]:
        """One line on the whole merge, and one for each tensor."""
        weights = "  ".join(
            f"{reference}={weight_text(weight)}" for reference, weight in self.request.adapters
        )
        heading = _(
            "{method}  {weights}  modules {modules}  tensors {tensors}  rank {rank}  {size:.1f} MB",
            method=self.request.method,
            weights=weights,
            modules=len(self.modules),
            tensors=len(self.specs),
            rank=self.rank,
            size=self.bytes / 1e6,
        )
        return [heading, *output.tensor_lines(self.specs)]

    def write(self, progress: output.Progress) -> output.Written:
        """Write the merge and report its size, and its error if it has one."""
        notes: list[str] = []
        line = _(
            "{sentence}: {modules}, rank {rank}, {size}.",
            sentence=error_sentence(self.method, write_merge(self, progress, notes)),
            modules=counted(len(self.modules), "module", "modules"),
            rank=self.rank,
            size=size_words(self.bytes),
        )
        return output.Written(self.request.out, [line], notes)


def relative(norms: Iterable[tuple[float, float]]) -> float:
    """The relative Frobenius error over several modules: ‖difference‖ / ‖reference‖."""
    references, differences = zip(*norms, strict=True)
    reference, difference = math.hypot(*references), math.hypot(*differences)
    if reference:
        return difference / reference
    if difference:
        return math.inf
    return 0.0


def merge(request: MergeRequest, progress: output.Progress = output.no_progress) -> output.Written:
    """Write the weighted sum of adapters as one plain adapter, unless `request.out` has it already.

    `progress` is called with the number of bytes done. Errors are those of `plan_merging`.
    """
    before = NEW if request.force else state(request)
    return output.make(request.out, before, functools.partial(plan_merging, request), progress)


def state(request: MergeRequest) -> State:
    """How far the result of a request is, by the hashes in its merge.json. No tensor is read."""
    if not output.is_there(request.out):
        return NEW
    return record_state(
        request.out / MERGE, "merge", request.out, functools.partial(_present_inputs, request)
    )


def _present_inputs(request: MergeRequest) -> PresentInputs:
    """What a merge would be made of now."""
    method = find_method(request.method)
    weighted = open_weighted(request.adapters, open_adapter, request.base)
    used = [item for item in weighted if item.weight]
    datasets = [training_datasets(item.adapter.folder) for item in used]
    base = None
    if request.base:
        base = open_base_of(weighted, request.base)
    return _inputs(request, method, method.values(request.parameters), used, datasets, base)


def _inputs(
    request: MergeRequest,
    method: Method,
    values: Values,
    used: Sequence[WeightedAdapter],
    datasets: Sequence[Datasets],
    base: Base | None,
) -> PresentInputs:
    """The inputs of a merge for merge.json. A base counts if a full tensor is merged against its own."""
    options: dict[str, Value] = {"--method": method.name, "--dtype": STORED_DTYPES[request.dtype].name}
    for parameter in method.parameters:
        options[parameter.option] = values[parameter.name]
    if method.plugin is not None:
        options["plug-in"] = method.plugin.identity()["sha256"]
    base_folder = base.folder if base else None
    options["base_model_name_or_path"] = base_name(used, base_folder)
    folders = []
    for item, adapter_datasets in zip(used, datasets, strict=True):
        folders.append(weighted_inputs(item, adapter_datasets))
    places = [item.adapter.folder for item in used]
    if base is not None and any(needs_base(item.adapter) for item in used):
        folders.append(folder_inputs("base", base.folder, model_files(base)))
        places.append(base.folder)
    return PresentInputs(Inputs(options=options, folders=folders), places)


def plan_merging(request: MergeRequest) -> MergePlan:
    """Open everything that a request names, check it once, and plan."""
    method = find_method(request.method)
    values = method.values(request.parameters)
    weighted = open_weighted(request.adapters, open_adapter, request.base)
    used = [item for item in weighted if item.weight]  # only they contribute to the rank
    method.check_weights(
        [weight for item in used for weight in item.weights], [item.adapter.name for item in used]
    )
    inputs = [item.adapter.folder for item in weighted]
    base = None
    if request.base:
        base = open_base_of(weighted, request.base)
        inputs.append(request.base)
    datasets = [training_datasets(item.adapter.folder) for item in used]
    name_of_base = base_name(used, request.base)

    check = functools.partial(output.check_output, request.out, inputs, "merge", force=request.force)
    check(changes=lambda: state(request).changes)
    for item in weighted:
        check_own_files(item.adapter.folder, PROMPT_FILES)
    notes = check_inputs(weighted, base, same_base=request.same_base)
    notes += unlearned_notes([item.adapter for item in used])
    notes += _sign_notes(method, used)

    full_tensors = plan_full_tensors(used, base, request.dtype)
    if not method.full_tensors:
        _refuse_full_tensors(method, full_tensors)
    rank, modules = _plan_modules(method, values, used)
    notes += vllm_notes(rank, any(tensor.base for tensor in full_tensors))
    config = _merged_config(used, name_of_base, rank, modules, full_tensors)
    specs = _specs(modules, request.dtype, full_tensors)
    size = sum(data_bytes(dtype, shape) for _unused, dtype, shape in specs)
    output.require_space(request.out.resolve(), size)
    return MergePlan(
        request,
        method,
        values,
        used,
        datasets,
        base,
        rank,
        modules,
        full_tensors,
        specs,
        size,
        config,
        notes,
        check,
    )


def _plan_modules(
    method: Method, values: Values, weighted: list[WeightedAdapter]
) -> tuple[int, dict[str, Module]]:
    """The rank of the result by the method's declaration, and every module with this rank."""
    modules = union(weighted)
    full_rank = max(module.rank for module in modules.values())
    if method.rank == "sum":
        rank = full_rank
    elif method.rank == "equal":
        rank = max(_equal_rank(method, weighted, path) for path in modules)
    elif method.rank == "parameter":
        smaller_sides = [min(module.outputs, module.inputs) for module in modules.values()]
        rank = min(int(values["rank"] or full_rank), max(smaller_sides))
    else:
        factors = (factors_of(weighted, path) for path in modules)
        rank = min(method.choose_rank(values, factors), full_rank)
    return rank, {path: module._replace(rank=rank) for path, module in modules.items()}


def _equal_rank(method: Method, weighted: list[WeightedAdapter], path: str) -> int:
    """The rank of a module that is the same in all adapters; `ContentError` if it is not."""
    ranks = {}
    for item in weighted:
        if path in item.adapter.modules and item.at(path):
            ranks[item.adapter.name] = item.adapter.modules[path].rank
    if len(set(ranks.values())) > 1:
        on_delta = f"{method.name}_svd"
        if on_delta not in methods():
            on_delta = "svd"
        listing = joined(f"{rank} ({name})" for name, rank in ranks.items())
        raise ContentError(
            _(
                "{module}: ranks {ranks}: method {method} needs equal ranks, since it averages A and "
                "B; use --method {fix}, which works on ΔW",
                module=path,
                ranks=listing,
                method=method.name,
                fix=on_delta,
            )
        )
    return next(iter(ranks.values()))


def _refuse_full_tensors(method: Method, full_tensors: list[FullTensor]) -> None:
    """`ContentError` if there are tensors to merge that are saved in full. Copies of the base's are none."""
    names = [tensor.name for tensor in full_tensors if tensor.base]
    if names:
        raise ContentError(
            _(
                "{name}: saved in full (modules_to_save or bias): method {method} merges A and B "
                "alone, as PEFT does; --method exact merges it too",
                name=names[0],
                method=method.name,
            )
        )


def _sign_notes(method: Method, weighted: list[WeightedAdapter]) -> Iterator[str]:
    """Notes on negative weights of a method that gives A and B the same sign."""
    if method.signs:
        return
    for item in weighted:
        negative = [weight for weight in item.weights if weight < 0]
        if negative:
            yield _(
                "{adapter}: weight {weight:g}: as in PEFT, {method} multiplies A and B by "
                "−√|weight|, which adds ΔW; --method exact subtracts it",
                adapter=item.adapter.name,
                weight=negative[0],
                method=method.name,
            )


def _specs(modules: dict[str, Module], dtype: str, full_tensors: list[FullTensor]) -> list[Spec]:
    """Name, dtype and shape of each tensor, in the order of writing."""
    specs: list[Spec] = []
    for path, module in modules.items():
        shapes = (module.rank, module.inputs), (module.outputs, module.rank)
        for suffix, shape in zip(PAIRS[module.kind], shapes, strict=True):
            specs.append((f"{PREFIX}{path}{suffix}", dtype, shape))
    specs += [(PREFIX + tensor.name, tensor.dtype, tensor.shape) for tensor in full_tensors]
    return specs


def _merged_config(
    weighted: list[WeightedAdapter],
    name_of_base: str | None,
    rank: int,
    modules: dict[str, Module],
    full_tensors: list[FullTensor],
) -> dict[str, object]:
    """The content of adapter_config.json: one rank, alpha = rank, no patterns, no rsLoRA."""
    first = weighted[0].adapter
    modules_to_save: set[str] = set()
    names: set[str] = set()
    names_are_enough = True  # together they mean the modules of the plan, and no others
    for item in weighted:
        lora = item.adapter.config
        modules_to_save.update(lora.modules_to_save)
        targets = lora.raw.get("target_modules")
        narrowed = lora.raw.get("exclude_modules") or lora.raw.get("layers_to_transform") not in (None, [])
        if isinstance(targets, list) and not narrowed and item.layers is None:
            names.update(targets)
        else:
            names_are_enough = False
    if not names_are_enough:
        names = set(modules)
    bias = "none"
    if any(tensor.name.endswith(".bias") for tensor in full_tensors):
        bias = "all"
    return {
        "base_model_name_or_path": name_of_base,
        "bias": bias,
        "fan_in_fan_out": first.config.fan_in_fan_out,
        "inference_mode": True,
        "init_lora_weights": True,
        "lora_alpha": rank,
        "lora_dropout": 0.0,
        "modules_to_save": sorted(modules_to_save) or None,
        "peft_type": "LORA",
        "r": rank,
        "revision": first.config.raw.get("revision"),
        "target_modules": sorted(names),
        "task_type": first.config.raw.get("task_type"),
        "use_dora": False,
        "use_rslora": False,
    }


def write_merge(plan: MergePlan, progress: output.Progress, notes: list[str]) -> Norms:
    """Write a planned merge as one folder, with a few modules in memory at a time, and add to the `notes`.

    The folder takes the place of `--out` as a whole, so that its files need not be written atomically.
    """
    norms: Norms = {}
    arguments = plan.request, plan.method, plan.values, plan.weighted, plan.datasets, plan.base
    with workers(1) as pool, output.staged_for(plan.check, notes) as staged:
        inputs = pool.submit(_inputs, *arguments)  # hashed during the merge
        with contextlib.closing(prefetch(functools.partial(_module, plan), plan.modules)) as modules:
            tensors = _tensors(plan, modules, norms, progress)
            write_weights(staged / WEIGHTS, plan.specs, tensors)
        adapters = [item.adapter.folder for item in plan.weighted]
        notes += carry_tokenizer(adapters, staged, _("not carried"))
        notes += carry_ends(adapters, staged)
        notes += write_union(staged, adapters)
        (staged / CONFIG).write_text(json_text(plan.config), encoding="utf-8")
        outputs = hashes_of(staged.iterdir())
        record = merge_record(plan, norms) | {"inputs": inputs.result().inputs, "outputs": outputs}
        texts = {MERGE: json_text(record), CARD: card_text(record)}
        for name, text in texts.items():
            (staged / name).write_text(text, encoding="utf-8")
    return norms


def error_sentence(method: Method, norms: Norms) -> str:
    """The error of the written adapter, in all and in the worst module; below `EXACT` it is rounding.

    `merge` compares only methods that approximate the weighted sum with the sum.
    """
    errors = {module: relative([pair]) for module, pair in norms.items()}
    worst = max(errors, key=lambda module: errors[module])
    if not any(norm for norm, _unused in norms.values()):
        return _("Merged by {name}, and ΔW = 0 in every module", name=method.name)
    if errors[worst] < EXACT:
        if method.exact_sum:
            return _("Merged exactly")
        return _("Merged by {name}, which is not the weighted sum", name=method.name)
    overall = relative(norms.values())
    line = _(
        "Merged with a relative Frobenius error of {error:.1e}, at most {largest:.1e} ({module})",
        error=overall,
        largest=errors[worst],
        module=worst,
    )
    if method.exact_sum:
        return line
    if method.matrix:
        return _(
            "{line}, which the rank cuts off the result of {name}, which is not the weighted sum",
            line=line,
            name=method.name,
        )
    return _(
        "{line}, from rounding the result of {name}, which is not the weighted sum",
        line=line,
        name=method.name,
    )


def merge_record(plan: MergePlan, norms: Norms) -> dict[str, object]:
    """The content of merge.json."""
    modules = {}
    for path, pair in norms.items():
        modules[path] = {"norm": pair[0], "error": _finite(relative([pair]))}
    compared_with = "method's result"
    if plan.method.exact_sum:
        compared_with = EXACT_SUM
    elif plan.method.matrix:
        compared_with = FULL_RANK
    details = {
        "method": plan.method.name,
        "parameters": dict(plan.values),
        "dtype": STORED_DTYPES[plan.request.dtype].name,
        "result": {
            "rank": plan.rank,
            "compared_with": compared_with,
            "error": _finite(relative(norms.values())),
            "modules": modules,
        },
    }
    return provenance("merge", plan.weighted, plan.datasets, plan.base, details)


def _finite(error: float) -> float | None:
    """None for infinity, which JSON does not have."""
    if math.isfinite(error):
        return error
    return None


def _tensors(
    plan: MergePlan, modules: Iterable[MergedModule], norms: Norms, progress: output.Progress
) -> Iterator[Array]:
    """Yield the tensors in the order of `MergePlan.specs`, and fill `norms` by module."""
    for path, (factors, pair) in zip(plan.modules, modules, strict=True):
        norms[path] = pair
        for axis, factor in enumerate(factors):
            missing = plan.rank - factor.shape[axis]
            if missing > 0:
                padding = [(0, 0), (0, 0)]
                padding[axis] = (0, missing)
                yield np.pad(factor, padding)
            else:
                yield factor
            progress(factor.nbytes)
    for tensor in plan.full_tensors:
        values = tensor.read()
        yield values
        progress(values.nbytes)


def _module(plan: MergePlan, path: str) -> MergedModule:
    """Merge one module."""
    factors = factors_of(plan.weighted, path)
    matrix = None
    if plan.method.matrix:
        matrix = plan.method.combine_matrix(factors, plan.values)
        a, b = lowrank.nearest(matrix, plan.rank)
    else:
        a, b = plan.method.combine(factors, plan.rank, plan.values)
    dtype = plan.request.dtype
    written = []
    for unrounded, side in ((a, "A"), (b, "B")):
        factor = to_fp32(from_fp32(to_fp32(unrounded, "F64"), dtype), dtype)
        written.append(factor)
        if factor is unrounded:  # fp32 that stays fp32, checked when it was read
            continue
        place = _("{path}: merged {side} in {dtype}", path=path, side=side, dtype=dtype)
        require_finite(factor, _("{place}: too large for it", place=place))
        if not factor.any() and unrounded.any():
            raise ContentError(_("{place}: too small for it, all of it would become 0", place=place))
    rounded = written[0], written[1]
    if matrix is not None:
        return rounded, lowrank.matrix_norms(matrix, rounded)
    reference = a, b
    if plan.method.exact_sum and plan.method is not exact:
        reference = factors.exact
    return rounded, lowrank.norms(reference, rounded)
