"""Adapters with weights: parsed, opened, and refused where they cannot be added."""

import math
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path

from tuneyard.adapters.lowrank import WeightedFactors
from tuneyard.adapters.store import SAVES, Adapter, open_adapter
from tuneyard.core.adapter_files import Module, module_misfit, stored_shape
from tuneyard.core.base_models import Base, check_base
from tuneyard.core.errors import ContentError, RequestError, show_value


@dataclass(frozen=True, slots=True)
class WeightedAdapter:
    """One adapter and the weight with which its ΔW counts."""

    adapter: Adapter
    weight: float


def parse_reference_weight(text: str) -> tuple[str, float]:
    """Return (reference, weight) of `REFERENCE=WEIGHT` or `REFERENCE:WEIGHT`; `RequestError` otherwise."""
    form = re.fullmatch(r"(.+)[=:](.*)", text, re.DOTALL)
    if form is None:
        example = f"{text.strip('=:') or 'rte'}=0.5"
        raise RequestError(f"{text!r}: expected NAME_OR_DIR=WEIGHT or NAME_OR_DIR:WEIGHT, e.g. {example}")
    return form[1], parse_weight(form[2], form[1])


def parse_optional_weight(text: str) -> tuple[str, float]:
    """Return (reference, weight) of `NAME_OR_DIR` (weight 1) or of what `parse_reference_weight` takes."""
    there = Path(text).is_dir() or (SAVES / text).is_dir()
    return (text, 1.0) if there or not re.search("[=:]", text) else parse_reference_weight(text)


def parse_weight(value: object, reference: str) -> float:
    """Return a finite weight; `RequestError` names the adapter whose weight is none."""
    try:
        weight = math.nan if isinstance(value, bool) else float(str(value))
    except ValueError:
        weight = math.nan
    if not math.isfinite(weight):
        raise RequestError(f"{reference}: weight {show_value(value)}: expected a finite number")
    return weight


def open_weighted(wanted: Iterable[tuple[str, float]], *, with_base: bool = False) -> list[WeightedAdapter]:
    """Open each adapter and check that all can be added: same revision, same shapes, same layers.

    `with_base` accepts adapters whose ΔW also needs the base's weights (DoRA, experts). Whether their bases
    are the same is `check_bases`'s.
    """
    weighted = []
    for reference, weight in wanted:
        weighted.append(WeightedAdapter(open_adapter(reference, with_base=with_base), weight))
    if not weighted:
        raise RequestError("no adapters given; expected NAME_OR_DIR=WEIGHT …")
    if not any(item.weight for item in weighted):
        raise RequestError("all weights are 0: nothing would be left")
    for one, other in combinations((item.adapter for item in weighted), 2):
        for reason in _differences(one, other):
            raise ContentError(reason)
    return weighted


def union(weighted: Iterable[WeightedAdapter]) -> dict[str, Module]:
    """Return every module that some part adapts, in the first order seen; its rank is the sum of theirs."""
    found: dict[str, Module] = {}
    for item in weighted:
        for path, module in item.adapter.layout.items():
            rank = module.rank + (found[path].rank if path in found else 0)
            found[path] = Module(module.kind, module.outputs, module.inputs, rank)
    return found


def factors_of(weighted: Iterable[WeightedAdapter], path: str) -> WeightedFactors:
    """Read the factors of one module from every part that has it, each with weight times scale."""
    adapters = [(item.adapter, item.weight) for item in weighted if path in item.adapter.layout]
    pairs = [adapter.factors(path) for adapter, _ in adapters]
    return WeightedFactors(pairs, [weight * adapter.lora.scale_of(path) for adapter, weight in adapters])


def notes(weighted: list[WeightedAdapter]) -> Iterator[str]:
    """Yield what a user should know although it stops nothing."""
    unnamed = [item.adapter.name for item in weighted if item.adapter.lora.base is None]
    if unnamed and len(weighted) > 1:
        yield f"not checked: {', '.join(unnamed)} names no base model"
    weights: dict[Path, list[float]] = {}
    used = [item for item in weighted if item.weight]
    for item in used:
        weights.setdefault(item.adapter.folder.resolve(), []).append(item.weight)
    for folder, given in weights.items():
        if len(given) > 1:
            yield f"{folder.name} is given {len(given)} times: its weights add up to {sum(given):g}"
    for item in used:
        for head in sorted(item.adapter.folder.glob("value_head.*")):
            yield f"left out: {head}, the value head of a reward model, which the result does not hold"
    skipped = [item.adapter.name for item in weighted if not item.weight]
    if skipped:
        yield f"weight 0: {', '.join(skipped)} left out"


def _differences(one: Adapter, other: Adapter) -> Iterator[str]:
    """Yield what forbids to add two adapters: another revision of the base, other shapes, missing factors."""
    revisions = [adapter.lora.raw.get("revision") or "main" for adapter in (one, other)]
    if revisions[0] != revisions[1]:
        where = f"{one.name} was trained on {revisions[0]}, {other.name} on {revisions[1]}"
        yield f"different base revisions: {where}"
    if one.lora.fan_in_fan_out != other.lora.fan_in_fan_out:
        yield f"fan_in_fan_out differs between {one.name} and {other.name}: not the same layers"
    for path, module in other.layout.items():
        known = one.layout.get(path, module)
        if known.sizes != module.sizes:
            where = f"is {known.sizes} in {one.name}, {module.sizes} in {other.name}"
            yield f"different base models: {path} {where}"
    for have, lack in ((one, other), (other, one)):
        with lack.lora.bounded():
            paths = [path for path in have.layout if path not in lack.layout and lack.lora.targets(path)]
        if paths:
            missing = f"{paths[0]} is missing: its config targets it, and {have.name} has it"
            yield f"{lack.weights.path}: {missing}"


def check_bases(base: Base | None, weighted: Iterable[WeightedAdapter], *, same: bool) -> Iterator[str]:
    """Refuse adapters that do not fit the base; yield what could not be checked (see `check_base`).

    Where no base is given that could decide, those are refused whose configs name different ones.
    """
    if base is None:
        models: dict[str, Adapter] = {}
        for adapter in (item.adapter for item in weighted):
            if name := adapter.lora.base:
                key = str(Path(name).resolve()) if Path(name).exists() else name.rstrip("/")
                models.setdefault(key, adapter)
        if len(models) > 1:
            one, other = list(models.values())[:2]
            where = f"{one.name} was trained on {one.lora.base}, {other.name} on {other.lora.base}"
            raise ContentError(
                f"different base models: {where}; where both are the same model, give it as --base DIR, "
                "which decides"
            )
        return
    for item in weighted:
        with item.adapter.lora.bounded():
            reason = next(_refusals(base, item.adapter), "") if item.weight else ""
        if reason:
            raise ContentError(reason)
    for item in weighted:
        if unchecked := check_adapter_base(item.adapter, base.folder, str(base.folder), same=same):
            yield unchecked


def check_adapter_base(adapter: Adapter, folder: Path, reference: str, *, same: bool) -> str:
    """Apply `core.base_models.check_base` to an opened adapter."""
    return check_base(adapter.folder, adapter.lora.base, folder, reference, same=same)


def _refusals(base: Base, adapter: Adapter) -> Iterator[str]:
    """Yield which modules the base lacks or shapes otherwise, and which the file lacks of its targets."""
    for path, module in adapter.layout.items():
        misfit = module_misfit(
            path, module, stored_shape(base, path), base.folder, fan_in_fan_out=adapter.lora.fan_in_fan_out
        )
        if misfit:
            yield f"{adapter.name}: {misfit}"
    bias = next((name for name in base.tensors if name.endswith(".bias")), None)
    if bias and adapter.lora.bias == "all" and not any(n.endswith(".bias") for n in adapter.full_tensors):
        yield f"{adapter.weights.path}: bias 'all', but {bias} of {base.folder} is not in it"
    if adapter.lora.raw.get("target_modules") == "all-linear":  # PEFT writes the names when it saves
        return
    for name, tensor in base.tensors.items():
        path = base.module_name(name).removesuffix(".weight")
        matrix = name.endswith(".weight") and len(tensor.shape) == 2
        if matrix and path not in adapter.layout and adapter.lora.targets(path):
            yield f"{adapter.weights.path}: {path} is missing, although its config targets it"
