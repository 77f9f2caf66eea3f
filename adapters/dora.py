"""DoRA: W' = m · (W + s·B·A) / ‖W + s·B·A‖, each output's row of W rescaled to the norm m.

Liu et al. 2024, arXiv:2402.09353, as PEFT 0.18.1 computes it (tuners/lora/dora.py). With ΔW = W' − W a DoRA
adapter can be added to a base like any other, but its ΔW needs the base's weights.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tuneyard.adapters.delta import Change, Places, Product, base_blocks
from tuneyard.adapters.lowrank import Matrix
from tuneyard.core.errors import ContentError
from tuneyard.core.weights.tensors import Array, Tensor


@dataclass(frozen=True, slots=True)
class Rescaled:
    """weight · (W' − W) = weight · ((g − 1)·W + g·P), where P = s·B·A and g = m / ‖W + P‖.

    `gains` g is [rows, 1], or [1, columns] if the stored weight is transposed (its outputs are columns).
    """

    product: Product
    gains: Matrix
    weight: float

    def rows(self, first: int, base: Array, kind: str) -> NDArray[np.floating]:
        """See `adapters.delta.Change`."""
        gains = self._gains_of(first, len(base))
        base_factor = (self.weight * (gains - 1)).astype(kind)
        product_factor = (self.weight * gains).astype(kind)
        return np.asarray(base_factor * base + product_factor * self.product.rows(first, base, kind))

    def exact(self, first: int, base: Array, places: Places) -> Matrix:
        """See `adapters.delta.Change`."""
        gains = np.broadcast_to(self._gains_of(first, len(base)), base.shape)[places]
        product = self.product.exact(first, base, places)
        return np.asarray(self.weight * ((gains - 1) * base[places].astype(np.float64) + gains * product))

    def _gains_of(self, first: int, count: int) -> Matrix:
        if self.gains.shape[0] == 1:
            return self.gains
        return self.gains[first : first + count]


def rescaled(
    source: Tensor,
    base_as: str | None,
    product: Product,
    magnitude: Array,
    weight: float,
    *,
    transposed: bool,
) -> Change:
    """Compute the gains of a DoRA module from the base's tensor, a block of rows at a time, in fp64.

    `ContentError` if a row of W + s·B·A is zero, which no magnitude can rescale.
    """
    outputs = product.left.shape[0]
    if transposed:
        outputs = product.right.shape[1]
    squares = np.zeros(outputs)
    for first, base in base_blocks(source, base_as):
        total = base + product.rows(first, base, "float64")
        if transposed:
            squares += np.einsum("ij,ij->j", total, total)
        else:
            squares[first : first + len(base)] = np.einsum("ij,ij->i", total, total)
    if not squares.all():
        number = int(np.argmin(squares))
        raise ContentError(
            f"{source.file}: tensor {source.name!r}: W + s·B·A is zero at output {number}: DoRA has no "
            "direction to rescale there"
        )
    gains = magnitude.astype(np.float64) / np.sqrt(squares)
    if transposed:
        return Rescaled(product, gains[None, :], weight)
    return Rescaled(product, gains[:, None], weight)
