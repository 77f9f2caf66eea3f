"""Extract a LoRA from a full fine-tune: each ΔW = W(model) − W(base), cut to a rank.

`extract` does what a request asks for: `plan_extraction` opens both models, checks them and plans,
`write_lora` writes the plan, one matrix at a time. Matrices of layers become LoRA modules. Embeddings, the
head, norms and biases do not: the result names those that changed, and says how much of the change is in
them.
"""

import contextlib
import functools
import math
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
from tqdm import tqdm

from tuneyard.adapters.merge.merge import MergedModule, Norms, relative
from tuneyard.adapters.model import lowrank
from tuneyard.adapters.model.adapter import layer_of
from tuneyard.adapters.model.lora import vllm_notes
from tuneyard.adapters.model.provenance import CARD, model_card, scientific
from tuneyard.adapters.write import output
from tuneyard.adapters.write.carried_tokenizer import PROMPT_FILES, carry_ends, carry_tokenizer
from tuneyard.adapters.write.inputs import (
    Inputs,
    PresentInputs,
    Value,
    folder_inputs,
    hashes_of,
    model_files,
    prompt_files,
    record_state,
)
from tuneyard.core.datasets.trained_examples import write_union
from tuneyard.core.errors import ContentError
from tuneyard.core.execution.state import NEW, State
from tuneyard.core.files import json_text
from tuneyard.core.files.links import check_own_files
from tuneyard.core.installation.checkout import version
from tuneyard.core.language.message import _, counted, joined
from tuneyard.core.language.number_format import size_words
from tuneyard.core.text.markdown import markdown_table
from tuneyard.core.text.quoting import markdown_text
from tuneyard.core.weights.adapter_files import (
    CONFIG,
    EMBEDDINGS,
    HEADS,
    PAIRS,
    PREFIX,
    WEIGHTS,
    Module,
    is_enlarged_table,
)
from tuneyard.core.weights.base_models import Base, open_base
from tuneyard.core.weights.class_defaults import is_conv1d
from tuneyard.core.weights.dtypes import STORED_DTYPES
from tuneyard.core.weights.tensors import (
    Array,
    Spec,
    Tensor,
    blocks_of,
    data_bytes,
    from_fp32,
    prefetch,
    require_finite,
    to_fp32,
    workers,
    write_weights,
)

BLOCK = 1 << 22  # elements of a tensor in memory when two models are compared
NOT_LINEAR = re.compile(r"\.experts\.|\.(gate|router)\.weight$")
"""Experts and routers of mixtures: parameters, which PEFT's LoRA modules do not replace."""
BUFFER = re.compile(r"\.rotary_emb\.inv_freq$|\.attn\.(masked_)?bias$")
"""Constants of a layer, which are not trained."""
SHOWN = 3  # names in a line
RECORD = "extract.json"  # what the adapter was made of


@dataclass(frozen=True, slots=True)
class ExtractRequest:
    """An `extract` command; `dtype` is e.g. F32."""

    model: Path
    base: Path
    rank: int
    out: Path
    dtype: str = "F32"


@dataclass(frozen=True, slots=True)
class TensorPair:
    """A tensor of the fine-tune and the same one of the base."""

    model: Tensor
    base: Tensor

    def differences(self) -> Iterator[Array]:
        """Yield the change by blocks of rows as fp32; `ContentError` for NaN or infinity."""
        blocks = zip(blocks_of(self.model, BLOCK), blocks_of(self.base, BLOCK), strict=True)
        for (_unused, values), (_unused, start) in blocks:
            yield values - start

    @property
    def is_changed(self) -> bool:
        """True if an element differs; it stops at the first block with one."""
        return any(difference.any() for difference in self.differences())

    @property
    def norm(self) -> float:
        """‖W(model) − W(base)‖ (Frobenius)."""
        squares = 0.0
        for difference in self.differences():
            wide = difference.astype(np.float64).reshape(-1)
            squares += float(wide @ wide)
        return math.sqrt(squares)

    def delta(self) -> Array:
        """The whole change of a matrix as fp32, as it is stored."""
        delta = np.empty(self.model.shape, np.float32)
        first = 0
        for difference in self.differences():
            delta[first : first + len(difference)] = difference
            first += len(difference)
        return delta


class Losses(NamedTuple):
    """The error of each module, and the norm of the changes in tensors without a LoRA."""

    norms: Norms
    left_out: float


@dataclass(frozen=True, slots=True)
class ExtractPlan:
    """A checked extraction: the LoRA modules, and the changed tensors that are left out.

    `pairs` has the tensors of each module, `left_out` those of tensors without a LoRA, both by their names in
    the model.
    """

    request: ExtractRequest
    model: Base
    base: Base
    rank: int
    modules: dict[str, Module]
    pairs: dict[str, TensorPair]
    left_out: dict[str, TensorPair]
    specs: list[Spec]
    bytes: int
    config: dict[str, object]
    notes: list[str]
    check: output.Check

    def lines(self) -> list[str]:
        """One line on the whole adapter, and one for each tensor."""
        request = self.request
        heading = _(
            "extract  {model}  from {base}  modules {number}  tensors {tensors}  rank {rank}  {size:.1f} MB",
            model=request.model,
            base=request.base,
            number=len(self.modules),
            tensors=len(self.specs),
            rank=self.rank,
            size=self.bytes / 1e6,
        )
        return [heading, *output.tensor_lines(self.specs)]

    def write(self, progress: output.Progress) -> output.Written:
        """Write the adapter and report what the rank loses, and what is not in a LoRA."""
        notes: list[str] = []
        losses = write_lora(self, progress, notes)
        lines = [_rank_sentence(self, losses.norms), *_left_out_sentences(self, losses)]
        return output.Written(self.request.out, lines, notes)


def extract(request: ExtractRequest, progress: output.Progress = output.no_progress) -> output.Written:
    """Make a LoRA of a full fine-tune, unless `request.out` has it already.

    `progress` is called with the number of bytes done. Errors are those of `plan_extraction`.
    """
    return output.make(request.out, state(request), functools.partial(plan_extraction, request), progress)


def state(request: ExtractRequest) -> State:
    """How far the result of a request is, by the hashes in its extract.json. No tensor is read."""
    if not output.is_there(request.out):
        return NEW
    present = functools.partial(_present_inputs, request)
    return record_state(request.out / RECORD, "extract", request.out, present)


def _present_inputs(request: ExtractRequest) -> PresentInputs:
    """What an extraction would be made of now."""
    return _inputs(request, open_base(request.model), open_base(request.base))


def _inputs(request: ExtractRequest, model: Base, base: Base) -> PresentInputs:
    """The inputs of an extraction for extract.json. The adapter names its base by the path of --base."""
    options: dict[str, Value] = {
        "--rank": request.rank,
        "--dtype": STORED_DTYPES[request.dtype].name,
        "--base": str(request.base),
    }
    folders = [
        folder_inputs("model", model.folder, [*model_files(model), *prompt_files(model.folder)]),
        folder_inputs("base", base.folder, model_files(base)),
    ]
    return PresentInputs(Inputs(options=options, folders=folders), [model.folder, base.folder])


def plan_extraction(request: ExtractRequest) -> ExtractPlan:
    """Open both models, check that they belong together, and find the tensors that changed.

    `ContentError` if they have other tensors or shapes, or if no matrix of a layer changed.
    """
    model, base = open_base(request.model), open_base(request.base)
    check = functools.partial(_check_output, request)
    check(changes=lambda: state(request).changes)
    check_own_files(model.folder, PROMPT_FILES)
    for each in (model, base):
        if each.config.get("quantization_config"):
            raise ContentError(
                _("{folder}: its weights are quantised; expected the unquantised model", folder=each.folder)
            )
    types = [str(each.config.get("model_type")) for each in (model, base)]
    if types[0] != types[1]:
        raise ContentError(
            _(
                "{model} is a {kind} model, {base} a {other} model; expected the base that was fine-tuned",
                model=request.model,
                kind=types[0],
                base=request.base,
                other=types[1],
            )
        )
    pairs, notes = _pair_tensors(model, base)
    is_transposed = is_conv1d(model.config)
    modules: dict[str, Module] = {}
    changed: dict[str, TensorPair] = {}
    left_out: dict[str, TensorPair] = {}
    for name, pair in tqdm(pairs.items(), "comparing", delay=2, leave=False):
        if not pair.is_changed:
            continue
        if _is_layer_matrix(name, pair):
            path = name.removesuffix(".weight")
            sizes = pair.model.shape[::-1] if is_transposed else pair.model.shape
            modules[path] = Module("linear", sizes[0], sizes[1], request.rank, is_transposed)
            changed[path] = pair
        else:
            left_out[name] = pair
    if not modules:
        reason = _("their weights are equal")
        if left_out:
            reason = _("only {names} differ", names=_listing(left_out))
        raise ContentError(
            _(
                "{model} and {base}: {reason}, so that there is no LoRA to extract; expected a full "
                "fine-tune and its base",
                model=request.model,
                base=request.base,
                reason=reason,
            )
        )
    rank = min(request.rank, max(min(module.outputs, module.inputs) for module in modules.values()))
    modules = {path: module._replace(rank=rank) for path, module in modules.items()}
    dtypes = sorted({tensor.dtype for pair in pairs.values() for tensor in (pair.model, pair.base)})
    if len(dtypes) > 1:
        notes.append(
            _(
                "the weights are {dtypes}: rounding to another dtype counts as a change",
                dtypes=joined(dtypes, _(" and ")),
            )
        )
    notes += vllm_notes(rank, full_tensors=False)
    specs = _specs(modules, request.dtype)
    size = sum(data_bytes(dtype, shape) for _unused, dtype, shape in specs)
    output.require_space(request.out.resolve(), size)
    config = _config(request, rank, modules, base, is_transposed)
    return ExtractPlan(
        request, model, base, rank, modules, changed, left_out, specs, size, config, notes, check
    )


def _check_output(request: ExtractRequest, changes: output.Changes = tuple) -> Path:
    """Resolve the output; `RequestError` if it exists, or lies in one of the models."""
    target = output.check_outside(request.out, [request.model, request.base])
    output.check_free(request.out, force=False, replaceable=False, changes=changes)
    return target


def _pair_tensors(model: Base, base: Base) -> tuple[dict[str, TensorPair], list[str]]:
    """The tensors of both models by their name in the model, and notes on those that only one of them has."""
    notes: list[str] = []
    names, base_names = _names(model), _names(base)
    pairs: dict[str, TensorPair] = {}
    for name, stored in names.items():
        base_stored = base_names.get(name) or base.find(name)
        if base_stored is None:
            raise ContentError(
                _(
                    "{folder}: {base} has no tensor {name}; expected its own base",
                    folder=model.folder,
                    base=base.folder,
                    name=name,
                )
            )
        tensor, start = model.tensors[stored], base.tensors[base_stored]
        if tensor.shape == start.shape:
            pairs[name] = TensorPair(tensor, start)
        elif is_enlarged_table(name, tensor.shape, start.shape):
            rows = tensor.shape[0] - start.shape[0]
            notes.append(
                _(
                    "{name}: {number} rows more than in the base, and the LoRA has no rows of its own",
                    name=name,
                    number=rows,
                )
            )
        else:
            raise ContentError(
                _(
                    "{folder}: {name} has the shape {shape}, {other} in {base}; expected its own base",
                    folder=model.folder,
                    name=name,
                    shape=list(tensor.shape),
                    other=list(start.shape),
                    base=base.folder,
                )
            )
    for name, base_stored in base_names.items():
        if name in names:
            continue
        tied = model.find(name)  # a head that is tied in the fine-tune alone
        if tied is None:
            raise ContentError(
                _(
                    "{folder}: no tensor {name}, which {base} has; expected its own base",
                    folder=model.folder,
                    name=name,
                    base=base.folder,
                )
            )
        pairs[name] = TensorPair(model.tensors[tied], base.tensors[base_stored])
    return pairs, notes


def _names(model: Base) -> dict[str, str]:
    """The stored name of each tensor by its name in the model, without buffers that older versions saved."""
    names = {}
    for stored in model.tensors:
        if not BUFFER.search(stored):
            names[model.module_name(stored)] = stored
    return names


def _is_layer_matrix(name: str, pair: TensorPair) -> bool:
    """True for the weight of a linear layer, the kind of module that PEFT adapts with A and B."""
    is_matrix = name.endswith(".weight") and len(pair.model.shape) == 2
    is_table = name.endswith((*EMBEDDINGS, *HEADS))
    return is_matrix and not is_table and layer_of(name) is not None and not NOT_LINEAR.search(name)


def _specs(modules: dict[str, Module], dtype: str) -> list[Spec]:
    """Name, dtype and shape of each tensor, in the order of writing."""
    specs: list[Spec] = []
    for path, module in modules.items():
        down, up = PAIRS[module.kind]
        specs.append((f"{PREFIX}{path}{down}", dtype, (module.rank, module.inputs)))
        specs.append((f"{PREFIX}{path}{up}", dtype, (module.outputs, module.rank)))
    return specs


def _config(
    request: ExtractRequest, rank: int, modules: dict[str, Module], base: Base, is_transposed: bool
) -> dict[str, object]:
    """The content of adapter_config.json: one rank, alpha = rank."""
    targets = {path.rpartition(".")[2] for path in modules}
    for stored in base.tensors:
        path = base.module_name(stored).removesuffix(".weight")
        if path.rpartition(".")[2] in targets and path not in modules:
            targets = set(modules)  # the last parts of the names would mean other modules, too
            break
    return {
        "base_model_name_or_path": str(request.base),
        "bias": "none",
        "fan_in_fan_out": is_transposed,
        "inference_mode": True,
        "init_lora_weights": True,
        "lora_alpha": rank,
        "lora_dropout": 0.0,
        "modules_to_save": None,
        "peft_type": "LORA",
        "r": rank,
        "revision": None,
        "target_modules": sorted(targets),
        "task_type": "CAUSAL_LM",
        "use_dora": False,
        "use_rslora": False,
    }


def write_lora(plan: ExtractPlan, progress: output.Progress, notes: list[str]) -> Losses:
    """Write a planned extraction as one folder, add to the `notes`, and measure what it loses."""
    norms: Norms = {}
    left_out = math.hypot(*(pair.norm for pair in plan.left_out.values()))
    losses = Losses(norms, left_out)
    request = plan.request
    with workers(1) as pool, output.staged_for(plan.check, notes) as staged:
        inputs = pool.submit(_inputs, request, plan.model, plan.base)  # hashed during the extraction
        with contextlib.closing(prefetch(functools.partial(_module, plan), plan.modules)) as modules:
            write_weights(staged / WEIGHTS, plan.specs, _tensors(plan, modules, norms, progress))
        notes += carry_tokenizer([request.model], staged, _("not carried"))
        notes += carry_ends([request.model], staged)
        notes += write_union(staged, [request.model])
        (staged / CONFIG).write_text(json_text(plan.config), encoding="utf-8")
        outputs = hashes_of(staged.iterdir())
        record = {"command": "extract", "inputs": inputs.result().inputs, "outputs": outputs}
        (staged / RECORD).write_text(json_text(record | {"tuneyard": version()}), encoding="utf-8")
        (staged / CARD).write_text(_card(plan, losses), encoding="utf-8")
    return losses


def _module(plan: ExtractPlan, path: str) -> MergedModule:
    """A and B of one module as the file will contain them, and ‖ΔW‖ and the norm of what they lack."""
    delta = plan.pairs[path].delta()
    if plan.modules[path].transposed:
        delta = delta.T
    a, b = lowrank.nearest(delta, plan.rank)
    written = []
    for factor in (a, b):
        rounded = to_fp32(from_fp32(to_fp32(factor, "F64"), plan.request.dtype), plan.request.dtype)
        require_finite(rounded, _("{path}: ΔW in {dtype}", path=path, dtype=plan.request.dtype))
        written.append(rounded)
    pair = written[0], written[1]
    return pair, lowrank.matrix_norms(delta, pair)


def _tensors(
    plan: ExtractPlan, modules: Iterable[MergedModule], norms: Norms, progress: output.Progress
) -> Iterator[Array]:
    """Yield the tensors in the order of the plan, and fill `norms` by module."""
    for path, ((a, b), pair) in zip(plan.modules, modules, strict=True):
        norms[path] = pair
        missing = plan.rank - len(a)
        for factor, padding in ((a, [(0, missing), (0, 0)]), (b, [(0, 0), (0, missing)])):
            yield np.pad(factor, padding)
            progress(factor.nbytes)


def _rank_sentence(plan: ExtractPlan, norms: Norms) -> str:
    """What the rank loses, in all and in the worst module."""
    errors = {path: relative([pair]) for path, pair in norms.items()}
    worst = max(errors, key=lambda path: errors[path])
    return _(
        "Extracted with a relative Frobenius error of {error:.1e}, at most {largest:.1e} ({module}): "
        "{modules}, rank {rank}, {size}.",
        error=relative(norms.values()),
        largest=errors[worst],
        module=worst,
        modules=counted(len(norms), "module", "modules"),
        rank=plan.rank,
        size=size_words(plan.bytes),
    )


def _left_out_sentences(plan: ExtractPlan, losses: Losses) -> list[str]:
    """The changed tensors without a LoRA, their share of the change, and the error with them."""
    if not plan.left_out:
        return []
    changed = math.hypot(*(norm for norm, _unused in losses.norms.values()), losses.left_out)
    lost = math.hypot(*(difference for _unused, difference in losses.norms.values()), losses.left_out)
    return [
        _(
            "Not in the LoRA: {names}, {share:.1%} of the norm of all changes. With these the "
            "error is {error:.1e}.",
            names=_listing(plan.left_out),
            share=losses.left_out / changed,
            error=lost / changed,
        )
    ]


def _listing(names: Iterable[str]) -> str:
    all_names = list(names)
    listing = joined(all_names[:SHOWN])
    if len(all_names) > SHOWN:
        return _("{names} and {number} more", names=listing, number=len(all_names) - SHOWN)
    return listing


def _card(plan: ExtractPlan, losses: Losses) -> str:
    """README.md: what the adapter was made of, and what each module lost."""
    front = {"base_model": str(plan.request.base), "library_name": "peft", "tags": ["lora"]}
    rows = []
    for path, pair in losses.norms.items():
        rows.append([path, f"{pair[0]:.4g}", scientific(relative([pair]))])
    paragraphs = [
        f"# LoRA of {markdown_text(plan.request.model.resolve().name)}",
        markdown_text(
            f"ΔW of a full fine-tune ({plan.request.model}) against its base, cut to rank {plan.rank}."
        ),
        markdown_text(_rank_sentence(plan, losses.norms)),
        *map(markdown_text, _left_out_sentences(plan, losses)),
        markdown_table(["module", _("norm of ΔW"), "relative error"], rows),
    ]
    return model_card(front, "\n\n".join(paragraphs) + "\n")
