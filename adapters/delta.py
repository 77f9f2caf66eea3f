"""W + ΔW of one tensor, rounded once, a block of rows at a time.

fp16 and fp32 bases are summed in fp64, bf16 bases in fp32 but for the few sums so near to the middle between
two bf16 numbers that fp32's own error could decide: those are done again in fp64.
"""

import logging
import math
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from tuneyard.adapters.lowrank import Factor, Matrix
from tuneyard.adapters.shards import Piece
from tuneyard.core.weights import Array, Stored, Tensor, blocks_of, from_fp32, require_finite, to_fp32

BLOCK = 1 << 18  # elements in hand at once: what the second-level cache holds
NEAR = 16  # fp32 units from a tie within which a sum is done again
NF4_BLOCK = 64  # elements with one scale
NF4_DTYPES = {"BF16": "bfloat16", "F16": "float16"}
CANCELLED = 8  # a sum this many times smaller than the weight has lost too many of fp32's digits
Places = tuple[NDArray[np.intp], ...]  # row numbers and column numbers of elements


class Change(Protocol):
    """A ΔW of one tensor that is worked out for a block of its rows at a time.

    `first` is the number of the block's first row, `base` the base's values there as fp32 [rows, columns].
    """

    def rows(self, first: int, base: Array, kind: str) -> NDArray[np.floating]:
        """ΔW of the block, computed in `kind` (float32 or float64)."""

    def exact(self, first: int, base: Array, places: Places) -> Matrix:
        """ΔW of single elements of the block, computed in fp64."""


class Product:
    """ΔW = left · right with left [rows, R] and right [R, columns]; each dtype is converted to once."""

    def __init__(self, left: Factor, right: Factor) -> None:
        self.left = left
        self.right = right
        self._converted: dict[str, tuple[NDArray[np.floating], NDArray[np.floating]]] = {}

    def rows(self, first: int, base: Array, kind: str) -> NDArray[np.floating]:
        """See `Change`."""
        with np.errstate(over="ignore", invalid="ignore"):  # infinity is refused by its place
            if kind not in self._converted:
                left, right = (factor.astype(kind, copy=False) for factor in (self.left, self.right))
                self._converted[kind] = left, right
            left, right = self._converted[kind]
            return np.asarray(left[first : first + len(base)] @ right)

    def exact(self, first: int, base: Array, places: Places) -> Matrix:  # noqa: ARG002  # as `Change` has it
        """See `Change`."""
        left = self.left[first + places[0]].astype(np.float64)
        right = self.right.T[places[1]].astype(np.float64)
        return np.asarray(np.einsum("ij,ij->i", left, right))


class Retained(NamedTuple):
    """What is retained of a ΔW after rounding into the base's dtype, as sums over the elements seen.

    `kept` is ⟨E, ΔW⟩ and `lost` ‖E − ΔW‖², where E is the change that the written weights show.
    """

    elements: float = 0.0
    unchanged: float = 0.0
    wanted: float = 0.0
    kept: float = 0.0
    lost: float = 0.0

    @property
    def fraction(self) -> float:
        """The retained fraction of ΔW: ⟨E, ΔW⟩ / ‖ΔW‖² (1 where ΔW is zero)."""
        return self.kept / self.wanted if self.wanted else 1.0

    @property
    def error(self) -> float:
        """The relative Frobenius error ‖E − ΔW‖ / ‖ΔW‖ (0 where ΔW is zero)."""
        return math.sqrt(self.lost / self.wanted) if self.wanted else 0.0

    @property
    def unchanged_share(self) -> float:
        """The share of elements with a ΔW that do not change at all."""
        return self.unchanged / self.elements if self.elements else 0.0


def total(retained: Iterable[Retained]) -> Retained:
    """Return the sums over several sets of elements."""
    return Retained(*map(sum, zip(*retained, strict=True)))


def apply(
    piece: Piece, changes: Sequence[Change], base_as: str | None, sums: list[Retained]
) -> Iterator[Stored]:
    """Yield the new values of a tensor in its output dtype; what is retained of ΔW is added to `sums`.

    ΔW is the sum of `changes`; a tensor without any is only converted or quantised. With `base_as` ("nf4" or
    "nf4-double") the base is as NF4 gives it back. `ContentError` if the sum leaves the range of the dtype.
    """
    bases = base_blocks(piece.source, base_as)
    if not changes:
        yield from (from_fp32(base, piece.dtype) for _, base in bases)
        return
    kind = "float32" if piece.dtype == "BF16" else "float64"
    for first, base in bases:
        added = changes[0].rows(first, base, kind)
        for change in changes[1:]:
            added = added + change.rows(first, base, kind)
        with np.errstate(over="ignore", invalid="ignore"):  # infinity is refused by its place
            total = base + added
            stored = from_fp32(total, piece.dtype)  # from fp64 in one step, not by way of fp32
            if piece.dtype == "BF16":
                _settle(stored, base, total, changes, first)
        written = to_fp32(stored, piece.dtype)
        require_finite(written, f"{piece.name}: W + ΔW in {piece.dtype}")
        wanted = added.reshape(-1)
        effect = np.subtract(written, base, dtype=wanted.dtype).reshape(-1)
        unchanged, kept = wanted.size - int(np.count_nonzero(effect)), float(effect @ wanted)
        effect -= wanted
        sums.append(Retained(wanted.size, unchanged, float(wanted @ wanted), kept, float(effect @ effect)))
        yield stored


def base_blocks(tensor: Tensor, base_as: str | None) -> Iterator[tuple[int, Array]]:
    """Yield (first row, rows) of a tensor; its NF4 is made of it as one, since scales are of blocks of it."""
    if base_as is None:
        yield from blocks_of(tensor, BLOCK)
        return
    _, whole = next(blocks_of(tensor, math.prod(tensor.shape)))
    quantised = nf4(whole, tensor.dtype, double=base_as == "nf4-double")
    step = max(BLOCK // whole.shape[1], 1)
    yield from ((first, quantised[first : first + step]) for first in range(0, len(quantised), step))


def _settle(
    stored: Stored, base: Array, total: NDArray[np.floating], changes: Sequence[Change], first: int
) -> None:
    """Round those sums again from fp64 that cancelled, or lie within a few fp32 units of a tie in bf16."""
    cancelled = np.abs(total) * CANCELLED < np.abs(base)
    low = total.view(np.uint32)  # `total` is given up
    low &= 0xFFFF
    low -= np.uint32(0x8000 - NEAR)
    places = np.nonzero((low <= 2 * NEAR) | cancelled)
    exact = base[places].astype(np.float64)
    for change in changes:
        exact += change.exact(first, base, places)
    near = exact.astype(np.float32)
    tie = (near.view(np.uint32) & 0xFFFF == 0x8000) & (near != exact)
    toward = np.where(exact > near, np.inf, -np.inf).astype(np.float32)
    near[tie] = np.nextafter(near, toward)[tie]
    stored[places] = from_fp32(near, "BF16")


def nf4(values: Array, dtype: str, *, double: bool) -> Array:
    """Return a matrix of stored `dtype` as bitsandbytes' NF4 gives it back in that dtype; both are fp32.

    That is what a QLoRA adapter saw of it (Dettmers et al. 2023). `double`: the scales are quantised too.
    """
    import torch

    logging.getLogger("bitsandbytes").setLevel(logging.ERROR)  # it says which fast kernels it lacks
    from bitsandbytes import functional

    weights = torch.from_numpy(values).to(getattr(torch, NF4_DTYPES.get(dtype, "float32")))
    packed, state = functional.quantize_4bit(
        weights, blocksize=NF4_BLOCK, quant_type="nf4", compress_statistics=double
    )
    found: Array = functional.dequantize_4bit(packed, state).float().numpy()
    return found
