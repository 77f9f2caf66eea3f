"""Find adapters whose ΔW is in the weights of a base, whatever program merged it there.

`llamafactory-cli export` and PEFT's `merge_and_unload` leave no record. The difference from the base before
is compared with the ΔW of each adapter.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from tuneyard.adapters.model.adapter import Adapter
from tuneyard.adapters.model.change import Change, base_blocks
from tuneyard.adapters.model.lowrank import Matrix
from tuneyard.core.weights.base_models import Base, has_weights, open_base
from tuneyard.core.weights.tensors import STORED, Tensor

COMPARED = 3  # modules of each adapter
TOLERANCE = 0.2  # of a share: a base in bf16 lacks a part of a small ΔW


def merged_into(base: Path, before: Path, adapters: Sequence[Adapter]) -> list[Adapter]:
    """The adapters that `base` has with the weight 1 and `before` has not.

    The shares of all adapters in base - before are found together, by least squares. [] if the weights of
    both bases cannot be compared.
    """
    if not adapters or not has_weights(base) or not has_weights(before):
        return []
    opened, opened_before = open_base(base), open_base(before)
    fitting = [adapter.on_base(opened_before) for adapter in adapters]
    if any(list(adapter.misfits(opened_before)) for adapter in fitting):
        return []
    products = np.zeros((len(fitting), len(fitting)))
    projections = np.zeros(len(fitting))
    for path in _compared_modules(fitting, opened_before):
        pair = _stored_pair(path, opened, opened_before)
        if pair is None:
            return []
        for difference, changes in _blocks(path, *pair, fitting):
            products += changes @ changes.T
            projections += changes @ difference
    shares = np.linalg.lstsq(products, projections)[0]
    return [adapter for adapter, share in zip(adapters, shares, strict=True) if abs(share - 1) < TOLERANCE]


def _compared_modules(adapters: Sequence[Adapter], base: Base) -> list[str]:
    """Some modules of each adapter with another ΔW than 0."""
    paths: dict[str, None] = {}
    for adapter in adapters:
        changed = (path for path in adapter.modules if not adapter.is_zero(path, base))
        paths.update(dict.fromkeys(path for path, _unused in zip(changed, range(COMPARED), strict=False)))
    return list(paths)


def _stored_pair(path: str, base: Base, before: Base) -> tuple[Tensor, Tensor] | None:
    """A module's weight in both bases; None if they do not have it with one shape, as plain numbers."""
    name, name_before = base.find(f"{path}.weight"), before.find(f"{path}.weight")
    if name is None or name_before is None:
        return None
    tensor, tensor_before = base.tensors[name], before.tensors[name_before]
    if tensor.shape != tensor_before.shape:
        return None
    if tensor.dtype not in STORED or tensor_before.dtype not in STORED:
        return None
    return tensor, tensor_before


def _blocks(
    path: str, tensor: Tensor, before: Tensor, adapters: Sequence[Adapter]
) -> Iterator[tuple[Matrix, Matrix]]:
    """Yield, some rows at a time, the difference [elements] and each ΔW [adapters, elements]."""
    changes: dict[int, Change] = {}
    for number, adapter in enumerate(adapters):
        if path in adapter.modules:
            changes[number] = adapter.change(1.0, path, before, None)
    pairs = zip(base_blocks(tensor, None), base_blocks(before, None), strict=True)
    for (first, rows), (_unused, rows_before) in pairs:
        deltas = np.zeros((len(adapters), rows.size))
        for number, change in changes.items():
            deltas[number] = change.rows(first, rows_before, "float64").reshape(-1)
        yield (rows.astype(np.float64) - rows_before).reshape(-1), deltas
