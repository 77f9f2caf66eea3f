"""Tensors that adapters save in full (`modules_to_save`, biases): merged as W₀ + Σwᵢ(Wᵢ − W₀).

A weighted sum of values would scale the base itself, which must be given. Copies of its embeddings, which
PEFT saves beside their factors, are carried on.
"""

import math
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from tuneyard.adapters.weighted import WeightedAdapter
from tuneyard.core.adapter_files import PREFIX
from tuneyard.core.base_models import EMBEDDINGS, HEADS, Base
from tuneyard.core.errors import ContentError, RequestError
from tuneyard.core.weights import Array


@dataclass(frozen=True, slots=True)
class FullTensor:
    """One full tensor of a merge; `base` is the stored name of W₀, None for a copy of the base."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    weighted: list[WeightedAdapter]
    base: tuple[Base, str] | None

    def read(self) -> Array:
        """Return the merged values as fp32, summed in fp64."""
        if self.base is None:
            return self.weighted[0].adapter.full_tensor(self.name)
        model, stored = self.base
        start = model.read(stored)
        start = np.pad(start, [(0, self.shape[0] - start.shape[0]), *[(0, 0)] * (start.ndim - 1)])
        total = start.astype(np.float64)
        for item in self.weighted:
            total += item.weight * np.subtract(item.adapter.full_tensor(self.name), start, dtype=np.float64)
        return total.astype(np.float32)


def plan_full_tensors(weighted: list[WeightedAdapter], base: Base | None, dtype: str) -> list[FullTensor]:
    """Return the full tensors of a merge; refuse them without `base`, and where they clash with factors."""
    holders: dict[str, list[WeightedAdapter]] = {}
    for item in weighted:
        for name in item.adapter.full_tensors:
            holders.setdefault(name, []).append(item)
    merged = [name for name in holders if not name.endswith(".base_layer.weight")]
    if merged and base is None:
        kept = ", ".join(merged[:3]) + (f" and {len(merged) - 3} more" if len(merged) > 3 else "")
        raise RequestError(
            f"{kept}: full tensors (modules_to_save or bias), which can only be merged against the base's; "
            "give --base DIR"
        )
    copies = []
    for name in (name for name in holders if name not in merged):
        first, *others = holders[name]
        for item in others:
            if not np.array_equal(item.adapter.full_tensor(name), first.adapter.full_tensor(name)):
                raise ContentError(
                    f"different base models: {name}, a copy of the base's, differs between "
                    f"{first.adapter.name} and {item.adapter.name}"
                )
        tensor = first.adapter.weights.tensors[PREFIX + name]
        copies.append(FullTensor(name, tensor.dtype, tensor.shape, holders[name], None))
    return copies + [_merged(name, holders[name], weighted, base, dtype) for name in merged if base]


def _merged(
    name: str, holders: list[WeightedAdapter], weighted: Iterable[WeightedAdapter], base: Base, dtype: str
) -> FullTensor:
    module, first = name.rpartition(".")[0], holders[0].adapter.name
    for item in weighted:
        if module in item.adapter.layout:
            raise ContentError(
                f"{module}: {item.adapter.name} has factors for it, {first} saves it in full: PEFT can hold "
                "only one of them"
            )
    stored = base.find(name.replace(".base_layer.", "."))
    if stored is None:
        raise ContentError(f"{base.folder}: has no tensor {name!r}, which {first} saves in full")
    shape = base.tensors[stored].shape
    shapes = [item.adapter.weights.tensors[PREFIX + name].shape for item in holders]
    wanted = max(shapes)
    table = name.endswith((*EMBEDDINGS, *HEADS))  # which resize_vocab gives further rows
    enlarged = table and wanted[:1] > shape[:1] and wanted[1:] == shape[1:]
    for item, found in zip(holders, shapes, strict=True):
        if found != wanted or (wanted != shape and not enlarged):
            own = f"{list(found)} in {item.adapter.name}"
            raise ContentError(f"{name}: {own}, {list(shape)} in {base.folder}")
    if enlarged and math.fsum(item.weight for item in holders) != 1:
        raise ContentError(
            f"{name}: {wanted[0]} rows, {shape[0]} in {base.folder}: from where the training of the others "
            "began is not known, so that the weights of the adapters must add up to 1"
        )
    return FullTensor(name, dtype, wanted, holders, (base, stored))
