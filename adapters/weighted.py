"""Adapters with their weights: parsed from the command line, opened, and read module by module."""

import contextlib
import math
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Generic, TypeVar

from tuneyard.adapters.adapter import Adapter
from tuneyard.adapters.kinds.lora import LoraAdapter
from tuneyard.adapters.lowrank import WeightedFactors
from tuneyard.adapters.store import SAVES
from tuneyard.core.errors import RequestError, show_value
from tuneyard.core.weights.adapter_files import Module

A = TypeVar("A", bound=Adapter, covariant=True)


@dataclass(frozen=True)
class Weighted(Generic[A]):
    """An adapter and the weight of its ΔW in a sum."""

    adapter: A
    weight: float


WeightedAdapter = Weighted[LoraAdapter]
"""One that can be added without the base's weights."""


def parse_reference_weight(text: str) -> tuple[str, float]:
    """Split `REFERENCE=WEIGHT` or `REFERENCE:WEIGHT`; `RequestError` for any other text."""
    match = re.fullmatch(r"(.+)[=:](.*)", text, re.DOTALL)
    if match is None:
        example = f"{text.strip('=:') or 'rte'}=0.5"
        raise RequestError(f"{text!r}: expected NAME_OR_DIR=WEIGHT or NAME_OR_DIR:WEIGHT, e.g. {example}")
    return match[1], parse_weight(match[2], match[1])


def parse_optional_weight(text: str) -> tuple[str, float]:
    """Like `parse_reference_weight`, but an adapter without a weight, also as NAME=PATH, has the weight 1."""
    is_folder = Path(text).is_dir() or (SAVES / text).is_dir()
    if is_folder or not re.search("[=:][^/]*$", text):  # a weight has no slash, as the path of NAME=PATH has
        return text, 1.0
    return parse_reference_weight(text)


def parse_named(text: str) -> tuple[str, list[tuple[str, float]]]:
    """Read an adapter's NAME, PATH or NAME=PATH: the name it goes by, and its references with weights.

    The name of a path is its last part. `NAME=rte:0.5+mnli:0.5` is a weighted sum.
    """
    name, equals, references = text.partition("=")
    if not equals or Path(text).is_dir():
        return Path(text).name, [(text, 1.0)]
    if "+" in references and not Path(references).is_dir():
        return name, [parse_reference_weight(part) for part in references.split("+")]
    return name, [parse_optional_weight(references)]


def parse_weight(text: str, reference: str) -> float:
    """Read a finite weight; the `RequestError` for any other text names the adapter."""
    weight = math.nan
    with contextlib.suppress(ValueError):
        weight = float(text)
    if not math.isfinite(weight):
        example = text if Path(text).is_dir() else reference  # NAME=PATH without a weight
        raise RequestError(
            f"{reference}: weight {show_value(text)}: expected a finite number, as in {example}=0.5"
        )
    return weight


def open_weighted(references: Iterable[tuple[str, float]], open_one: Callable[[str], A]) -> list[Weighted[A]]:
    """Open each adapter by `open_adapter` or `open_any`. `compatibility` checks that they can be added."""
    weighted = [Weighted(open_one(reference), weight) for reference, weight in references]
    if not weighted:
        raise RequestError("no adapters given; expected NAME_OR_DIR=WEIGHT …")
    if not any(item.weight for item in weighted):
        raise RequestError("all weights are 0: nothing would be left")
    return weighted


def union(weighted: Iterable[WeightedAdapter]) -> dict[str, Module]:
    """Every module of some adapter, in the order of first occurrence; its rank is the sum of theirs."""
    modules: dict[str, Module] = {}
    for item in weighted:
        for path, module in item.adapter.modules.items():
            if path in modules:
                modules[path] = replace(module, rank=modules[path].rank + module.rank)
            else:
                modules[path] = module
    return modules


def factors_of(weighted: Iterable[WeightedAdapter], path: str) -> WeightedFactors:
    """Read the factors of one module from every adapter that has it, each with weight times scale."""
    pairs, weights = [], []
    for item in weighted:
        adapter = item.adapter
        if path in adapter.modules:
            pairs.append(adapter.factors(path))
            weights.append(item.weight * adapter.config.scale_of(path))
    return WeightedFactors(pairs, weights)
