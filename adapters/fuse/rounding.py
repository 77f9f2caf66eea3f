"""W + ΔW of one tensor, rounded once, a block of rows at a time.

fp16 and fp32 bases are summed in fp64, bf16 bases in fp32. A few sums lie so near to the middle between two
bf16 numbers that fp32's own error could decide. Those are repeated in fp64.
"""

import math
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from tuneyard.adapters.fuse.shards import Piece
from tuneyard.adapters.model.change import Change, base_blocks
from tuneyard.core.language.message import _
from tuneyard.core.weights.tensors import Array, Stored, from_fp32, require_finite, to_fp32

NEAR = 16  # fp32 units: sums that are nearer to a tie are repeated
CANCELLED = 8  # a sum this many times smaller than the weight has lost too many of fp32's digits


class Retained(NamedTuple):
    """Sums over elements that measure how much of ΔW the written weights retain after rounding.

    With the change E of the written weights, `squares` is ‖ΔW‖², `kept` ⟨E, ΔW⟩ and `lost` ‖E − ΔW‖².
    """

    elements: float
    unchanged: float
    squares: float
    kept: float
    lost: float

    @property
    def fraction(self) -> float:
        """The retained fraction of ΔW: ⟨E, ΔW⟩ / ‖ΔW‖² (1 if ΔW is zero)."""
        if not self.squares:
            return 1.0
        return self.kept / self.squares

    @property
    def error(self) -> float:
        """The relative Frobenius error ‖E − ΔW‖ / ‖ΔW‖ (0 if ΔW is zero)."""
        if not self.squares:
            return 0.0
        return math.sqrt(self.lost / self.squares)

    @property
    def unchanged_share(self) -> float:
        """The share of elements that are equal to the base's."""
        return self.unchanged / self.elements


def total(retained: Iterable[Retained]) -> Retained:
    """Add the sums of several sets of elements."""
    return Retained(*map(sum, zip(*retained, strict=True)))


def apply(
    piece: Piece, changes: Sequence[Change], base_as: str | None, sums: list[Retained]
) -> Iterator[Stored]:
    """Yield the new values of a tensor in its output dtype. Each block appends its `Retained` to `sums`.

    ΔW is the sum of `changes`. A tensor without changes is only converted or quantised. `base_as` ("nf4" or
    "nf4-double") quantises the base to NF4 and back first. `ContentError` if a sum leaves the dtype's range.
    """
    bases = base_blocks(piece.source, base_as)
    if not changes:
        for _unused, base in bases:
            yield from_fp32(base, piece.dtype)
        return
    kind = "float32" if piece.dtype == "BF16" else "float64"
    for first, base in bases:
        added = changes[0].rows(first, base, kind)
        for change in changes[1:]:
            added = added + change.rows(first, base, kind)
        total = base + added
        stored = from_fp32(total, piece.dtype)  # from fp64 in one step, not by way of fp32
        if piece.dtype == "BF16":
            _round_again(stored, base, total, changes, first)
        written = to_fp32(stored, piece.dtype)
        require_finite(written, _("{name}: W + ΔW in {dtype}", name=piece.name, dtype=piece.dtype))
        sums.append(_retained(written, base, added))
        yield stored


def _retained(written: Array, base: Array, added: NDArray[np.floating]) -> Retained:
    """Measure how much of ΔW (`added`) a block of `written` values has."""
    delta = added.reshape(-1)
    effect = np.subtract(written, base, dtype=delta.dtype).reshape(-1)
    unchanged = delta.size - int(np.count_nonzero(effect))
    kept = float(effect @ delta)
    effect -= delta
    squares, lost = float(delta @ delta), float(effect @ effect)
    if delta.dtype == np.float32 and not 0 < squares + kept + lost < math.inf:
        return _retained(written, base, added.astype(np.float64))  # fp32 cannot represent the squares
    return Retained(delta.size, unchanged, squares, kept, lost)


def _round_again(
    stored: Stored, base: Array, total: NDArray[np.floating], changes: Sequence[Change], first: int
) -> None:
    """Round sums from fp64 that cancelled in fp32, or lie within a few fp32 units of a tie in bf16."""
    cancelled = np.abs(total) * CANCELLED < np.abs(base)
    low = total.view(np.uint32)  # `total` is overwritten
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
