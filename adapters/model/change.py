"""The change ΔW of one tensor, a block of rows at a time, and the blocks of the base that it is added to."""

import logging
import math
from collections.abc import Iterator, Sequence
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from tuneyard.adapters.model.lowrank import Factor, Matrix
from tuneyard.core.weights.dtypes import STORED_DTYPES
from tuneyard.core.weights.tensors import Array, Tensor, blocks_of

BLOCK = 1 << 18  # elements in memory at once, which fit into the second-level cache
NF4_BLOCK = 64  # elements with one scale
Places = tuple[NDArray[np.intp], ...]  # row numbers and column numbers of elements


class Change(Protocol):
    """ΔW of one tensor, computed for a block of its rows at a time.

    `first` is the number of the block's first row, `base` the base's values there as fp32 [rows, columns].
    """

    def rows(self, first: int, base: Array, kind: str) -> NDArray[np.floating]:
        """ΔW of the block, computed in `kind` (float32 or float64)."""

    def exact(self, first: int, base: Array, places: Places) -> Matrix:
        """ΔW of single elements of the block, computed in fp64."""


class Product:
    """ΔW = left · right with left [rows, R] and right [R, columns], kept in every dtype that was needed."""

    def __init__(self, left: Factor, right: Factor) -> None:
        self.left = left
        self.right = right
        self._converted: dict[str, tuple[NDArray[np.floating], NDArray[np.floating]]] = {}

    def rows(self, first: int, base: Array, kind: str) -> NDArray[np.floating]:
        """See `Change`."""
        if kind not in self._converted:
            self._converted[kind] = (
                self.left.astype(kind, copy=False),
                self.right.astype(kind, copy=False),
            )
        left, right = self._converted[kind]
        return np.asarray(left[first : first + len(base)] @ right)

    def exact(self, first: int, base: Array, places: Places) -> Matrix:  # noqa: ARG002  # as `Change` has it
        """See `Change`."""
        left = self.left[first + places[0]].astype(np.float64)
        right = self.right.T[places[1]].astype(np.float64)
        return np.asarray(np.einsum("ij,ij->i", left, right))


def summed(changes: Sequence[Change]) -> list[Change]:
    """Put all products side by side into one, before the other changes."""
    products = [change for change in changes if isinstance(change, Product)]
    if len(products) < 2:
        return list(changes)
    left = np.concatenate([product.left for product in products], axis=1)
    right = np.concatenate([product.right for product in products])
    return [Product(left, right), *(change for change in changes if not isinstance(change, Product))]


def base_blocks(tensor: Tensor, base_as: str | None) -> Iterator[tuple[int, Array]]:
    """Yield (first row, rows) of a tensor. NF4 takes the whole tensor at once: its blocks run across rows."""
    if base_as is None:
        yield from blocks_of(tensor, BLOCK)
        return
    _unused, whole = next(blocks_of(tensor, math.prod(tensor.shape)))
    quantised = nf4(whole, tensor.dtype, double=base_as == "nf4-double")
    step = max(BLOCK // whole.shape[1], 1)
    for first in range(0, len(quantised), step):
        yield first, quantised[first : first + step]


def nf4(values: Array, dtype: str, *, double: bool) -> Array:
    """Quantise a matrix to bitsandbytes' NF4 and back, in its stored `dtype`. Argument and result are fp32.

    A QLoRA training sees these weights (Dettmers et al. 2023). `double` quantises the scales too.
    """
    import torch

    logging.getLogger("bitsandbytes").setLevel(logging.ERROR)  # it warns of missing fast kernels
    from bitsandbytes import functional

    torch_dtype = torch.float32  # also of fp64
    if dtype in STORED_DTYPES:
        torch_dtype = getattr(torch, STORED_DTYPES[dtype].torch)
    weights = torch.from_numpy(values).to(torch_dtype)
    packed, state = functional.quantize_4bit(
        weights, blocksize=NF4_BLOCK, quant_type="nf4", compress_statistics=double
    )
    dequantised: Array = functional.dequantize_4bit(packed, state).float().numpy()
    return dequantised
