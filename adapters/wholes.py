"""Tensors that adapters keep whole (`modules_to_save`, biases): merged as W₀ + Σwᵢ(Wᵢ − W₀).

They hold values and no changes, so a weighted sum of them would scale the base itself; the base
must be given. Copies of base embeddings, which PEFT saves beside their factors, are carried on.
"""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from adapters.base import Base
from adapters.parts import Part
from adapters.store import PREFIX
from core.errors import ContentError, RequestError
from core.weights import Array


@dataclass(frozen=True, slots=True)
class Whole:
    """One whole tensor of a merge; `base` is the stored name of W₀, None for a copy of the base."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    parts: list[Part]
    base: tuple[Base, str] | None

    def read(self) -> Array:
        """Return the merged values as fp32, summed in fp64."""
        if self.base is None:
            return self.parts[0].adapter.whole(self.name)
        model, stored = self.base
        start = model.read(stored)
        total = start.astype(np.float64)
        for part in self.parts:
            change = np.subtract(part.adapter.whole(self.name), start, dtype=np.float64)
            total += part.weight * change
        return total.astype(np.float32)


def plan_wholes(parts: list[Part], base: Base | None, dtype: str) -> list[Whole]:
    """Return the whole tensors of a merge; refuse them without `base`, and where they clash with factors."""
    names = list(dict.fromkeys(name for part in parts for name in part.adapter.wholes))
    if not names:
        return []
    holders = {name: [part for part in parts if name in part.adapter.wholes] for name in names}
    copies = [name for name in names if _is_copy(name)]
    wholes = [_carried(name, holders[name]) for name in copies]
    merged = [name for name in names if name not in copies]
    if merged and base is None:
        kept = ", ".join(merged[:3]) + (f" and {len(merged) - 3} more" if len(merged) > 3 else "")
        raise RequestError(
            f"{kept}: whole values (modules_to_save or bias), which can only be merged against the base's; "
            "give --base DIR"
        )
    return wholes + [_merged(name, holders[name], parts, base, dtype) for name in merged if base]


def _is_copy(name: str) -> bool:
    return name.endswith(".base_layer.weight")


def _carried(name: str, holders: list[Part]) -> Whole:
    first = holders[0].adapter
    for part in holders[1:]:
        if not np.array_equal(part.adapter.whole(name), first.whole(name)):
            raise ContentError(
                f"different base models: {name}, a copy of the base's, differs between {first.name} "
                f"and {part.adapter.name}"
            )
    tensor = first.weights.tensors[PREFIX + name]
    return Whole(name, tensor.dtype, tensor.shape, holders, None)


def _merged(name: str, holders: list[Part], parts: Iterable[Part], model: Base, dtype: str) -> Whole:
    module = name.rpartition(".")[0]
    for part in parts:
        if module in part.adapter.layout:
            raise ContentError(
                f"{module}: {part.adapter.name} has factors for it, {holders[0].adapter.name} keeps it "
                "whole: PEFT can hold only one of them"
            )
    stored = model.find(name.replace(".base_layer.", "."))
    if stored is None:
        raise ContentError(
            f"{model.folder}: has no tensor {name!r}, which {holders[0].adapter.name} keeps whole"
        )
    shape = model.tensors[stored].shape
    for part in holders:
        found = part.adapter.weights.tensors[PREFIX + name].shape
        if found != shape:
            raise ContentError(
                f"{name}: {list(found)} in {part.adapter.name}, {list(shape)} in {model.folder}"
            )
    return Whole(name, dtype, shape, holders, (model, stored))
