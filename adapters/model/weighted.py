"""Adapters with their weights: parsed, opened, checked that they can be added, and read module by module."""

import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations, permutations
from pathlib import Path
from typing import Generic, TypeVar

from tuneyard.adapters.model.adapter import Adapter, raise_together
from tuneyard.adapters.model.lora import LoraAdapter
from tuneyard.adapters.model.lowrank import WeightedFactors
from tuneyard.adapters.model.parents import parent_weight_notes, require_parents
from tuneyard.adapters.model.store import is_folder
from tuneyard.adapters.model.weights import (
    LayerWeights,
    Weight,
    layer_notes,
    parse_merge_weight,
    parse_weight,
)
from tuneyard.core.errors import ContentError, RequestError
from tuneyard.core.language.message import _, joined, typed
from tuneyard.core.text.references import parse_reference, parse_sum, sum_parts
from tuneyard.core.weights.adapter_files import Module, check_base, check_task, is_same_name
from tuneyard.core.weights.adapter_names import core_of, misnaming, rename_command
from tuneyard.core.weights.base_compatibility import shapes_of
from tuneyard.core.weights.base_models import Base, has_weights, open_base

A = TypeVar("A", bound=Adapter, covariant=True)


@dataclass(frozen=True)
class Weighted(Generic[A]):
    """An adapter and the weight of its ΔW in a sum. With weights by layer, `weight` is their largest."""

    adapter: A
    weight: float
    layers: LayerWeights | None = None

    def at(self, path: str) -> float:
        """The weight of one module, or of one tensor that is saved in full."""
        if self.layers is None:
            return self.weight
        return self.layers.at(path)

    @property
    def weights(self) -> list[float]:
        """Every weight other than 0 that a module has."""
        weights = {self.at(path) for path in (*self.adapter.modules, *self.adapter.full_tensors)}
        return sorted(weights - {0.0})


WeightedAdapter = Weighted[LoraAdapter]
"""One that can be added without the base's weights."""


def parse_reference_weight(text: str) -> tuple[str, float]:
    """Read `REFERENCE=WEIGHT` or `REFERENCE:WEIGHT`; `RequestError` for any other text."""
    reference, weight = _required_weight(text)
    return reference, parse_weight(weight, reference)


def parse_merged(text: str) -> tuple[str, Weight]:
    """Like `parse_reference_weight`, but the weight may be one by layer: `rte=0.5@0-11,0.2@12-23`."""
    reference, weight = _required_weight(text)
    return reference, parse_merge_weight(weight, reference)


def _required_weight(text: str) -> tuple[str, str]:
    _name, reference, weight = parse_reference(text, is_folder, named=False, weight="always")
    if weight is None or not reference:
        raise _no_weight(text)
    return reference, weight


def _no_weight(text: str) -> RequestError:
    """The refusal of a word without a weight."""
    if re.fullmatch(r"[^=:]*@[0-9-]+", text):
        return RequestError(
            _(
                "{text!r}: weights by layer without an adapter; in a YAML list they need quotes, as "
                'in "rte=0.5@0-11,0.2@12-23"',
                text=text,
            )
        )
    return RequestError(
        _(
            "{text!r}: expected NAME_OR_DIR=WEIGHT or NAME_OR_DIR:WEIGHT, e.g. {name}=0.5",
            text=text,
            name=re.split("[=:,]", text)[0] or "rte",
        )
    )


def parse_optional_weight(text: str) -> tuple[str, float]:
    """Like `parse_reference_weight`, but an adapter without a weight, also as NAME=PATH, has the weight 1."""
    _name, reference, weight = parse_reference(text, is_folder, named=False, weight="optional")
    if weight is None:
        return reference, 1.0
    if not reference:
        raise _no_weight(text)
    return reference, parse_weight(weight, reference)


def parse_named(text: str) -> tuple[str, list[tuple[str, float]]]:
    """Read an adapter's NAME, PATH or NAME=PATH: the name it goes by, and its references with weights.

    The name of a path is its last part. `NAME=rte:0.5+mnli:0.5` is a weighted sum, `rte=0.5` and
    `rte:0.5` are one adapter with its weight, as for a merge. A sum without a name goes by its text.
    """
    name, references = parse_sum(text, is_folder)
    if len(references) > 1 and all(weight is None for _name, _reference, weight in references):
        example = "+".join(f"{reference}:0.5" for _name, reference, _weight in references)
        raise RequestError(
            _("{text!r}: a sum needs weights, as in both={example}", text=text, example=example)
        )
    if name is None:
        name = "+".join(Path(part).name for part in sum_parts(text))
    weighted = []
    for _name, reference, weight in references:
        if weight is not None and reference:
            weighted.append((reference, parse_weight(weight, reference)))
        elif weight is None and len(references) == 1:
            weighted.append((reference, 1.0))
        else:
            raise _no_weight(reference or text)
    return name, weighted


def open_alone(reference: str | Path, open_one: Callable[[str | Path], A], base: Path | None) -> A:
    """Open one adapter that a command uses without others, as `open_weighted`."""
    adapter = open_one(reference)
    check_task(adapter.config.path, adapter.config.raw)
    require_parents([adapter], base)
    return adapter


def open_weighted(
    references: Iterable[tuple[str, Weight]], open_one: Callable[[str], A], base: Path | None = None
) -> list[Weighted[A]]:
    """Open each adapter by `open_adapter` or `open_any`, for a sum that is added to `base`.

    `ContentError` if one was trained on an adapter that the sum lacks. `check_inputs` checks that they can be
    added.
    """
    weighted = []
    for reference, weight in references:
        if isinstance(weight, LayerWeights):
            weighted.append(Weighted(open_one(reference), weight.largest, weight))
        else:
            weighted.append(Weighted(open_one(reference), weight))
    if not weighted:
        raise RequestError(_("no adapters given; expected NAME_OR_DIR=WEIGHT …"))
    by_layer = any(item.layers and item.weight for item in weighted)
    if not by_layer and not any(map(sum, _weights_by_folder(weighted).values())):
        raise RequestError(_("the weights of each adapter add up to 0, which leaves nothing: change one"))
    for item in weighted:
        check_task(item.adapter.config.path, item.adapter.config.raw)
    require_parents([item.adapter for item in weighted if item.weight], base)
    return weighted


def open_base_of(weighted: Sequence[Weighted[Adapter]], folder: Path) -> Base:
    """Open the base in a folder. If it has none, the error names the base of the adapters' training."""
    try:
        return open_base(folder)
    except RequestError as error:
        adapter = weighted[0].adapter
        raise RequestError(
            _(
                "{error}; {name} was trained on {base}",
                error=error,
                name=adapter.name,
                base=adapter.config.base,
            )
        ) from error


def _weights_by_folder(weighted: Iterable[Weighted[Adapter]]) -> dict[Path, list[float]]:
    """The weights other than 0 of each folder, which may be given several times, without those by layer."""
    weights: dict[Path, list[float]] = {}
    for item in weighted:
        if item.weight and item.layers is None:
            weights.setdefault(item.adapter.folder.resolve(), []).append(item.weight)
    return weights


def check_inputs(weighted: Sequence[Weighted[Adapter]], base: Base | None, *, same_base: bool) -> list[str]:
    """Refuse adapters that cannot be added, and list notes on what could not be checked.

    `same_base` is the user's statement that the adapters' base and `base` are the same model.
    """
    check_together(weighted)
    notes = list(_notes(weighted))
    if base is None:
        return [*notes, *check_base_names(weighted)]
    for item in weighted:
        adapter = item.adapter
        if item.weight:
            check_names_in(adapter, base)
            with adapter.config.in_bounded_time():
                raise_together([*adapter.misfits(base), *_missing(adapter, base)], adapter.name)
        unchecked = check_base(
            adapter.folder, adapter.config.base, base.folder, str(base.folder), same=same_base
        )
        if unchecked:
            notes.append(unchecked)
    return notes


def check_names_in(adapter: Adapter, base: Base) -> None:
    """`ContentError` if the base has the adapter's modules under other names."""
    missing = {path: module for path, module in adapter.modules.items() if not base.find(f"{path}.weight")}
    renaming = misnaming(adapter.folder, missing, shapes_of(base), base.folder)
    if renaming:
        raise ContentError(_("{name}: {problem}", name=adapter.name, problem=renaming))


def check_fit(adapters: Sequence[LoraAdapter], folder: Path, *, same_base: bool) -> list[str]:
    """`check_inputs` for adapters each alone, if the base has weights in safetensors to compare with."""
    notes: list[str] = []
    if adapters and has_weights(folder):
        base = open_base(folder)
        for adapter in adapters:
            notes += check_inputs([WeightedAdapter(adapter, 1.0)], base, same_base=same_base)
    return notes


def check_together(weighted: Sequence[Weighted[Adapter]]) -> None:
    """Refuse adapters with different base revisions, shapes or layers."""
    adapters = [item.adapter for item in weighted]
    for one, other in permutations(adapters, 2):
        revision = one.config.raw.get("revision") or "main"
        other_revision = other.config.raw.get("revision") or "main"
        if revision != other_revision:
            raise ContentError(
                _(
                    "different base revisions: {name} was trained on {revision}, {other} on {second}",
                    name=one.name,
                    revision=revision,
                    other=other.name,
                    second=other_revision,
                )
            )
        if one.config.fan_in_fan_out != other.config.fan_in_fan_out:
            raise ContentError(
                _(
                    "fan_in_fan_out differs between {name} and {other}: not the same layers",
                    name=one.name,
                    other=other.name,
                )
            )
        if not isinstance(one, LoraAdapter) or not isinstance(other, LoraAdapter):
            continue  # no adapter of another kind is added to others
        for path, module in one.modules.items():
            other_module = other.modules.get(path, module)
            if module.sizes != other_module.sizes:
                raise ContentError(
                    _(
                        "different base models: {module} is {kind} in {one}, {other} in {second}; merge "
                        "adapters of one base",
                        module=path,
                        kind=module.sizes,
                        one=one.name,
                        other=other_module.sizes,
                        second=other.name,
                    )
                )
        _check_fronts(one, other)
        _check_layers(one, other)


def _check_fronts(one: Adapter, other: Adapter) -> None:
    """Refuse two adapters that have the same modules under names of two classes of a model."""
    paths_by_core = {core_of(path): path for path in other.modules}
    for path in one.modules:
        other_path = paths_by_core.get(core_of(path), path)
        if other_path != path and path not in other.modules:
            command = typed(rename_command(one.folder, one.config.base or "BASE"))
            raise ContentError(
                _(
                    "different classes of the base model: {path} in {adapter} is {name} in {second}; "
                    "expected the names of one base: {command}",
                    path=path,
                    adapter=one.name,
                    name=other_path,
                    second=other.name,
                    command=command,
                )
            )


def _check_layers(complete: Adapter, adapter: Adapter) -> None:
    """Refuse an adapter without a module that its config targets and that the `complete` one has."""
    with adapter.config.in_bounded_time():
        for path in complete.modules:
            if path not in adapter.modules and adapter.config.targets(path):
                raise ContentError(
                    _(
                        "{path}: {module} is missing: its config targets it, and {name} has it",
                        path=adapter.weights.path,
                        module=path,
                        name=complete.name,
                    )
                )


def check_base_names(weighted: Sequence[Weighted[Adapter]]) -> list[str]:
    """Refuse adapters whose configs name different bases, since no base is given to compare them with.

    The result has notes on names of which only the last part is the same.
    """
    named = [item.adapter for item in weighted if item.adapter.config.base]
    notes: dict[str, None] = {}
    for one, other in combinations(named, 2):
        base, other_base = str(one.config.base), str(other.config.base)
        if _same_place(base) == _same_place(other_base):
            continue
        are_here = Path(base).exists() and Path(other_base).exists()
        if are_here or not is_same_name(base, other_base):
            raise ContentError(
                _(
                    "different base models: {adapter} was trained on {base}, {name} on {model}; if both "
                    "are the same model, give it as --base DIR, which decides (with --same-base if one "
                    "is not here)",
                    adapter=one.name,
                    base=base,
                    name=other.name,
                    model=other_base,
                )
            )
        note = _(
            "{adapter} was trained on {base}, {other} on {other_base}: taken for one model "
            "by the last part of the name; --base DIR compares",
            adapter=one.name,
            base=base,
            other=other.name,
            other_base=other_base,
        )
        notes[note] = None
    return list(notes)


def _same_place(base: str) -> str:
    """One spelling of a base's folder or name."""
    if Path(base).exists():
        return str(Path(base).resolve())
    return base.rstrip("/")


def _missing(adapter: Adapter, base: Base) -> Iterator[str]:
    """Yield biases and modules of the base that the config targets but the file lacks."""
    if adapter.config.bias == "all" and not any(name.endswith(".bias") for name in adapter.full_tensors):
        for name in base.tensors:
            if name.endswith(".bias"):
                yield _(
                    "bias 'all', but {name} of {folder} is not in the file", name=name, folder=base.folder
                )
    if adapter.config.raw.get("target_modules") == "all-linear":  # PEFT writes the names when it saves
        return
    for name, tensor in base.tensors.items():
        path = base.module_name(name).removesuffix(".weight")
        is_matrix = name.endswith(".weight") and len(tensor.shape) == 2
        if is_matrix and path not in adapter.modules and adapter.config.targets(path):
            yield _("{path} is missing, although its config targets it", path=path)


def _notes(weighted: Sequence[Weighted[Adapter]]) -> Iterator[str]:
    """Notes on inputs that count otherwise than a user may expect, or not at all."""
    unnamed = [item.adapter.name for item in weighted if item.adapter.config.base is None]
    if unnamed and len(weighted) > 1:
        yield _("not checked: {names} names no base model", names=joined(unnamed))
    used = [item for item in weighted if item.weight]
    yield from parent_weight_notes([(item.adapter, item.weight) for item in used])
    for folder, shares in _weights_by_folder(weighted).items():
        if len(shares) > 1:
            yield _(
                "{name} is given {number} times: its weights add up to {weight:g}",
                name=folder.name,
                number=len(shares),
                weight=sum(shares),
            )
    for item in used:
        if item.layers is not None:
            yield from layer_notes(item.adapter, item.layers)
        for head in sorted(item.adapter.folder.glob("value_head.*")):
            yield _("left out: {path}, the value head of a reward model", path=head)
    unused = [item.adapter.name for item in weighted if not item.weight]
    if unused:
        yield _("weight 0: {names} left out", names=joined(unused))


def union(weighted: Iterable[WeightedAdapter]) -> dict[str, Module]:
    """Every module with a weight, in the order of first occurrence; its rank is the sum of theirs."""
    modules: dict[str, Module] = {}
    for item in weighted:
        for path, module in item.adapter.modules.items():
            if not item.at(path):
                continue
            if path in modules:
                modules[path] = module._replace(rank=modules[path].rank + module.rank)
            else:
                modules[path] = module
    return modules


def factors_of(weighted: Iterable[WeightedAdapter], path: str) -> WeightedFactors:
    """Read the factors of one module from every adapter that has it with a weight."""
    pairs, scales, weights = [], [], []
    total = 0.0
    for item in weighted:
        adapter, weight = item.adapter, item.at(path)
        total += weight
        if path in adapter.modules and weight:
            pairs.append(adapter.factors(path))
            scales.append(adapter.config.scale_of(path))
            weights.append(weight)
    return WeightedFactors(path, pairs, scales, weights, total)
