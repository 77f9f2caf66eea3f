"""Merge adapters: ΔW = Σ wᵢ·sᵢ·BᵢAᵢ written as one plain adapter, with its error measured by module.

`merge_request` reads the command line, or a merge recipe (YAML). `plan_merging` opens everything, checks it
and plans. `merge` writes the plan.
"""

import contextlib
import functools
import math
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from tuneyard.adapters.methods import Method, Values, find_method, methods, parameters_by_name
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
    parse_merged,
    union,
)
from tuneyard.adapters.model.weights import Weight, weight_text
from tuneyard.adapters.write import output
from tuneyard.adapters.write.carried_tokenizer import PROMPT_FILES, carry_ends, carry_tokenizer
from tuneyard.adapters.write.modules_to_save import FullTensor, plan_full_tensors
from tuneyard.core.documents import read_mapping
from tuneyard.core.documents.schema_errors import check_file
from tuneyard.core.errors import ContentError, RequestError
from tuneyard.core.files import bundled, json_text, read_object
from tuneyard.core.files.links import check_own_files
from tuneyard.core.installation.checkout import ROOT
from tuneyard.core.language.message import _, counted, joined
from tuneyard.core.language.number_format import size_words
from tuneyard.core.text.quoting import shell
from tuneyard.core.training.training_run import MERGE
from tuneyard.core.weights.adapter_files import CONFIG, PAIRS, PREFIX, WEIGHTS, Module
from tuneyard.core.weights.base_models import Base
from tuneyard.core.weights.dtypes import DTYPES, STORED_DTYPES
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
SCHEMA = ROOT / "recipes/merge/schema.json"


@dataclass(frozen=True, slots=True)
class MergeRequest:
    """A `merge` command: `parameters` of the method are not checked yet; `dtype` is e.g. F32."""

    adapters: list[tuple[str, Weight]]
    out: Path
    base: Path | None = None
    method: str = "exact"
    parameters: Mapping[str, object] = field(default_factory=dict)
    dtype: str = "F32"
    force: bool = False
    same_base: bool = False


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

    def write(self, progress: output.Progress) -> list[str]:
        """Write the merge and report its size, and its error if it has one."""
        line = _(
            "{sentence}: {modules}, rank {rank}, {size}.",
            sentence=error_sentence(self.method, merge(self, progress)),
            modules=counted(len(self.modules), "module", "modules"),
            rank=self.rank,
            size=size_words(self.bytes),
        )
        return [line]


def relative(norms: Iterable[tuple[float, float]]) -> float:
    """The relative Frobenius error over several modules: ‖difference‖ / ‖reference‖."""
    references, differences = zip(*norms, strict=True)
    reference, difference = math.hypot(*references), math.hypot(*differences)
    if reference:
        return difference / reference
    if difference:
        return math.inf
    return 0.0


def merge_request(texts: Sequence[str], options: Mapping[str, Any]) -> MergeRequest:
    """Read a command line: weighted adapters, or a recipe. Options override the recipe.

    A method or a parameter among the options replaces the recipe's method parameters.
    """
    fields: dict[str, Any] = {"adapters": texts, "method": "exact", "dtype": "fp32"}
    is_recipe = [text.endswith((".yaml", ".yml")) for text in texts]
    if is_recipe == [True]:
        fields |= _read_recipe(bundled(Path(texts[0])))
    elif any(is_recipe):
        raise RequestError(_("a recipe names its adapters itself: give it alone"))
    declared = parameters_by_name()
    recipe_parameters = {name: fields.pop(name) for name in declared if name in fields}
    recipe_method = fields["method"]
    option_parameters: dict[str, object] = {}
    for name, value in options.items():
        if value is None:
            continue
        if name in declared:
            option_parameters[name] = value
        else:
            fields[name] = value
    parameters = recipe_parameters
    if option_parameters or fields["method"] != recipe_method:
        parameters = option_parameters
    if not fields.get("out"):
        raise RequestError(_("no --out: the folder of the merged adapter, as in --out saves/merged"))
    base = fields.pop("base", None)
    return MergeRequest(
        [parse_merged(text) for text in fields.pop("adapters")],
        out=Path(os.path.expanduser(fields.pop("out"))),  # noqa: PTH111  # ~ of a recipe, which no shell reads
        base=Path(base) if base else None,
        parameters={name: value for name, value in parameters.items() if value is not None},
        dtype=DTYPES[fields.pop("dtype")].stored,
        **fields,
    )


def _read_recipe(path: Path) -> dict[str, Any]:
    """Read a merge recipe: the options of `merge` by name, and the list `adapters`."""
    fields = read_mapping(path, _("merge recipe"))
    if "model_name_or_path" in fields:
        raise ContentError(
            _(
                "{path} is a training recipe, expected a merge recipe. `tuneyard recipe train "
                "{recipe}` trains an adapter into its output_dir; merge that, as in saves/NAME=0.5",
                path=path,
                recipe=shell(path),
            )
        )
    schema: dict[str, Any] = read_object(SCHEMA)
    # Editors read the file in recipes/merge, which has neither plug-ins nor the parameters of methods.
    schema["additionalProperties"] = False
    for name, declarations in parameters_by_name().items():
        schemas: list[dict[str, Any]] = []
        for _unused, parameter in declarations:
            with_null = {**parameter.schema, "type": [parameter.schema["type"], "null"]}
            if with_null not in schemas:
                schemas.append(with_null)
        schema["properties"][name] = {"anyOf": schemas} if len(schemas) > 1 else schemas[0]
    if "method" in fields:
        schema["properties"]["method"] = {"enum": list(methods())}
    check_file(path, schema, fields)
    return fields


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
    name_of_base = base_name(used, base)

    check = functools.partial(output.check_output, request.out, inputs, "merge", force=request.force)
    check()
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


def merge(plan: MergePlan, progress: output.Progress) -> Norms:
    """Write a planned merge as one folder, with a few modules in memory at a time.

    The folder takes the place of `--out` as a whole, so that its files need not be written atomically.
    """
    norms: Norms = {}
    with workers(1) as pool, output.staged_for(plan.check) as staged:
        for item in plan.weighted:  # hashed during the merge, for merge.json
            pool.submit(getattr, item.adapter, "digest")
        with contextlib.closing(prefetch(functools.partial(_module, plan), plan.modules)) as modules:
            tensors = _tensors(plan, modules, norms, progress)
            write_weights(staged / WEIGHTS, plan.specs, tensors)
        adapters = [item.adapter.folder for item in plan.weighted]
        carry_tokenizer(adapters, staged, "not carried")
        carry_ends(adapters, staged)
        record = merge_record(plan, norms)
        texts = {MERGE: json_text(record), CARD: card_text(record), CONFIG: json_text(plan.config)}
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
