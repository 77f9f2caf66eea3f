"""W + ΔW of one tensor, rounded once, a block of rows at a time.

fp16 and fp32 bases are summed in fp64, bf16 bases in fp32 but for the few sums so near to the middle between
two bf16 numbers that fp32's own error could decide: those are done again in fp64.
"""

import logging
import math
from collections.abc import Iterable, Iterator
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from adapters.base import Piece
from adapters.lowrank import Pair
from core.weights import Array, Stored, Tensor, blocks_of, from_fp32, require_finite, to_fp32

BLOCK = 1 << 18  # elements in hand at once: what the second-level cache holds
NEAR = 16  # fp32 units from a tie within which a sum is done again
NF4_BLOCK = 64  # elements with one scale
NF4_DTYPES = {"BF16": "bfloat16", "F16": "float16"}
CANCELLED = 8  # a sum this many times smaller than the weight has lost too many of fp32's digits


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


def apply(piece: Piece, factors: Pair | None, base_as: str | None, sums: list[Retained]) -> Iterator[Stored]:
    """Yield the new values of a tensor in its output dtype; what is retained of ΔW is added to `sums`.

    ΔW is the product of `factors` [rows, R] and [R, columns], None where a tensor is only converted or
    quantised; with `base_as` ("nf4" or "nf4-double") the base is as NF4 gives it back. `ContentError` where
    the sum leaves the range of the dtype.
    """
    bases = _bases(piece.source, base_as)
    if factors is None:
        yield from (from_fp32(base, piece.dtype) for _, base in bases)
        return
    with np.errstate(over="ignore"):
        kind = "float32" if piece.dtype == "BF16" else "float64"
        left, right = (factor.astype(kind, copy=False) for factor in factors)
    for first, base in bases:
        rows = left[first : first + len(base)]
        with np.errstate(over="ignore", invalid="ignore"):  # infinity is refused by its place
            added = np.asarray(rows @ right)
            total = base + added
            stored = from_fp32(total, piece.dtype)  # from fp64 in one step, not by way of fp32
            if piece.dtype == "BF16":
                _settle(stored, base, total, (rows, right))
        found = to_fp32(stored, piece.dtype)
        require_finite(found, f"{piece.name}: W + ΔW in {piece.dtype}")
        wanted = added.reshape(-1)
        shown = np.subtract(found, base, dtype=wanted.dtype).reshape(-1)
        unchanged, kept = wanted.size - int(np.count_nonzero(shown)), float(shown @ wanted)
        shown -= wanted
        sums.append(Retained(wanted.size, unchanged, float(wanted @ wanted), kept, float(shown @ shown)))
        yield stored


def _bases(tensor: Tensor, base_as: str | None) -> Iterator[tuple[int, Array]]:
    """Yield (first row, rows) of a tensor; its NF4 is made of it as one, since scales are of blocks of it."""
    if base_as is None:
        yield from blocks_of(tensor, BLOCK)
        return
    _, whole = next(blocks_of(tensor, math.prod(tensor.shape)))
    quantised = nf4(whole, tensor.dtype, double=base_as == "nf4-double")
    step = max(BLOCK // whole.shape[1], 1)
    yield from ((first, quantised[first : first + step]) for first in range(0, len(quantised), step))


def _settle(stored: Stored, base: Array, total: NDArray[np.floating], factors: Pair) -> None:
    """Round those sums again from fp64 that cancelled, or lie within a few fp32 units of a tie in bf16."""
    cancelled = np.abs(total) * CANCELLED < np.abs(base)
    low = total.view(np.uint32)  # `total` is given up
    low &= 0xFFFF
    low -= np.uint32(0x8000 - NEAR)
    where = np.nonzero((low <= 2 * NEAR) | cancelled)
    left, right = factors[0][where[0]].astype(np.float64), factors[1].T[where[1]].astype(np.float64)
    exact = base[where] + np.einsum("ij,ij->i", left, right)
    near = exact.astype(np.float32)
    tie = (near.view(np.uint32) & 0xFFFF == 0x8000) & (near != exact)
    toward = np.where(exact > near, np.inf, -np.inf).astype(np.float32)
    near[tie] = np.nextafter(near, toward)[tie]
    stored[where] = from_fp32(near, "BF16")


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
