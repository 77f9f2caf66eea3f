"""Merge tensors that adapters save in full (`modules_to_save`, biases) as W₀ + Σwᵢ(Wᵢ − W₀).

A weighted sum of the values would scale the base too, so the base is needed. PEFT also saves copies of the
base's embeddings next to their factors. They are copied to the result.
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from tuneyard.adapters.model.adapter import Adapter
from tuneyard.adapters.model.weighted import Weighted
from tuneyard.core.errors import ContentError, RequestError
from tuneyard.core.language.message import _, joined
from tuneyard.core.weights.adapter_files import (
    PREFIX,
    full_tensor_mismatch,
    is_enlarged_table,
    unwrapped_tensor,
)
from tuneyard.core.weights.base_models import Base
from tuneyard.core.weights.tensors import Array, to_fp32

COPY = ".base_layer.weight"  # the end of the name of a copy of the base's tensor


@dataclass(frozen=True, slots=True)
class FullTensor:
    """One full tensor of a merge. `base` is the model with the stored name of W₀, None for a base copy."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    weighted: Sequence[Weighted[Adapter]]
    base: tuple[Base, str] | None

    def read(self) -> Array:
        """The merged values as fp32, summed in fp64. New rows of an enlarged table start at 0 in W₀."""
        if self.base is None:
            return self.weighted[0].adapter.full_tensor(self.name)
        model, stored = self.base
        start = model.read(stored)
        start = np.pad(start, [(0, self.shape[0] - start.shape[0]), *[(0, 0)] * (start.ndim - 1)])
        total = start.astype(np.float64)
        for item in self.weighted:
            change = np.subtract(item.adapter.full_tensor(self.name), start, dtype=np.float64)
            total += item.at(self.name) * change
        return to_fp32(total, "F64")


def needs_base(adapter: Adapter) -> bool:
    """True if an adapter has a full tensor that is merged against the base's, and not a copy of it."""
    return any(not name.endswith(COPY) for name in adapter.full_tensors)


def plan_full_tensors(
    weighted: Sequence[Weighted[Adapter]], base: Base | None, dtype: str
) -> list[FullTensor]:
    """Plan the full tensors of a merge.

    `RequestError` if one needs the base and `base` is None. `ContentError` if shapes or values contradict.
    """
    holders: dict[str, list[Weighted[Adapter]]] = {}
    for item in weighted:
        for name in item.adapter.full_tensors:
            holders.setdefault(name, []).append(item)
    copies = [name for name in holders if name.endswith(COPY)]
    merged = [name for name in holders if name not in copies]
    full_tensors = [_base_copy(name, holders[name]) for name in copies]
    if merged and base is None:
        listing = joined(merged[:3])
        if len(merged) > 3:
            listing = _("{names} and {number} more", names=listing, number=len(merged) - 3)
        raise RequestError(
            _(
                "{names}: full tensors (modules_to_save or bias), which can only be merged against "
                "the base's; give --base DIR",
                names=listing,
            )
        )
    if base is not None:
        full_tensors += [_merged(name, holders[name], weighted, base, dtype) for name in merged]
    return full_tensors


def _base_copy(name: str, holders: Sequence[Weighted[Adapter]]) -> FullTensor:
    """A copy of the base's tensor, which must be equal in all adapters that have it."""
    first = holders[0].adapter
    values = None
    for item in holders[1:]:
        if values is None:
            values = first.full_tensor(name)
        if not np.array_equal(item.adapter.full_tensor(name), values):
            raise ContentError(
                _(
                    "different base models: {name}, a copy of the base's, differs between {one} and {other}",
                    name=name,
                    one=first.name,
                    other=item.adapter.name,
                )
            )
    tensor = first.weights.tensors[PREFIX + name]
    return FullTensor(name, tensor.dtype, tensor.shape, holders, None)


def _merged(
    name: str,
    holders: Sequence[Weighted[Adapter]],
    weighted: Iterable[Weighted[Adapter]],
    base: Base,
    dtype: str,
) -> FullTensor:
    module, first = name.rpartition(".")[0], holders[0].adapter.name
    for item in weighted:
        if module in item.adapter.modules:
            raise ContentError(
                _(
                    "{module}: {name} has factors for it, {first} saves it in full: PEFT can hold only "
                    "one of them",
                    module=module,
                    name=item.adapter.name,
                    first=first,
                )
            )
    stored = base.find(unwrapped_tensor(name))
    shapes = [item.adapter.weights.tensors[PREFIX + name].shape for item in holders]
    if stored is None:
        misfit = full_tensor_mismatch(name, shapes[0], None, base.folder, may_grow=True)
        raise ContentError(_("{name}: {problem}", name=first, problem=misfit))
    base_shape = base.tensors[stored].shape
    for item, shape in zip(holders, shapes, strict=True):
        misfit = full_tensor_mismatch(name, shape, base_shape, base.folder, may_grow=True)
        if misfit:
            raise ContentError(_("{name}: {problem}", name=item.adapter.name, problem=misfit))
        if shape != shapes[0]:
            raise ContentError(
                _(
                    "{name}: {shapes} in {first}, {shape} in {other}: expected one shape in all adapters",
                    name=name,
                    shapes=list(shapes[0]),
                    first=first,
                    shape=list(shape),
                    other=item.adapter.name,
                )
            )
    shape = shapes[0]
    if is_enlarged_table(name, shape, base_shape) and math.fsum(item.at(name) for item in holders) != 1:
        raise ContentError(
            _(
                "{name}: {rows} rows, {other} in {folder}: nobody recorded the values with which "
                "training began in the new rows, so the weights of the adapters must add up to 1",
                name=name,
                rows=shape[0],
                other=base_shape[0],
                folder=base.folder,
            )
        )
    return FullTensor(name, dtype, shape, holders, (base, stored))
