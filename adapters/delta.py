"""W + ΔW of one tensor, rounded once, a block of rows at a time.

fp16 and fp32 bases are summed in fp64. For bf16 bases fp32 is enough, but for the few sums so near to
the middle between two bf16 numbers that fp32's own error could decide: those are done again in fp64.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from adapters import nf4
from adapters.lowrank import Factor
from adapters.shards import Piece
from core.weights import STORED, Array, Stored, from_fp32, require_finite, to_fp32

BLOCK = 1 << 18  # elements in hand at once: what the second-level cache holds
NEAR = 16  # fp32 units from a tie within which a sum is done again
CANCELLED = 8  # a sum this many times smaller than the weight has lost too many of fp32's digits


@dataclass(slots=True)
class Retained:
    """What is retained of a ΔW after rounding into the base's dtype, as sums over the elements seen.

    `kept` is ⟨E, ΔW⟩ and `lost` ‖E − ΔW‖², where E is the change that the written weights show.
    """

    elements: float = 0.0
    unchanged: float = 0.0
    wanted: float = 0.0
    kept: float = 0.0
    lost: float = 0.0

    def add(self, other: "Retained") -> None:
        """Count another set of elements in."""
        self.elements += other.elements
        self.unchanged += other.unchanged
        self.wanted += other.wanted
        self.kept += other.kept
        self.lost += other.lost

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


def total(retained: dict[str, Retained]) -> Retained:
    """Return the sums over all modules."""
    found = Retained()
    for counts in retained.values():
        found.add(counts)
    return found


@dataclass(frozen=True, slots=True)
class Delta:
    """What happens to a tensor: `left` [rows, R] · `right` [R, columns] is added, after NF4 where asked.

    Factors are None where a tensor is only converted or only quantised; `quantise` is None,
    "nf4" or "nf4-double".
    """

    left: Factor | None = None
    right: Factor | None = None
    quantise: str | None = None


def apply(piece: Piece, delta: Delta, counts: Retained) -> Iterator[Stored]:
    """Yield the new values of a tensor in its output dtype; `counts` adds up what is retained of ΔW.

    `ContentError` where the sum leaves the range of the dtype.
    """
    shape = piece.source.shape
    columns = math.prod(shape[1:])
    rows = max(BLOCK // max(columns, 1), 1)
    total_rows = shape[0] if shape else 1
    quantised = None
    if delta.quantise:
        whole = _block(piece, 0, total_rows, columns)
        quantised = nf4.round_trip(whole, piece.source.dtype, double=delta.quantise == "nf4-double")
    wide = np.float32 if piece.dtype == "BF16" else np.float64
    left, right = _as(delta.left, wide), _as(delta.right, wide)
    for first in range(0, total_rows, rows):
        base = _block(piece, first, rows, columns) if quantised is None else quantised[first : first + rows]
        if left is None or right is None:
            yield from_fp32(base, piece.dtype)
            continue
        with np.errstate(over="ignore", invalid="ignore"):  # infinity is refused by its place
            added = np.asarray(left[first : first + rows] @ right)
            total = base + added.reshape(base.shape)
            stored = _rounded(total, piece.dtype)
            if piece.dtype == "BF16":
                _settle(stored, base, total, (left[first : first + rows], right))
        found = to_fp32(stored, piece.dtype)
        require_finite(found, f"{piece.name}: W + ΔW in {piece.dtype}")
        counts.add(_measure(base, added, found))
        yield stored


def _as(factor: Factor | None, kind: type[np.float32] | type[np.float64]) -> NDArray[np.floating] | None:
    with np.errstate(over="ignore"):
        return None if factor is None else factor.astype(kind, copy=False)


def _rounded(values: NDArray[np.floating], dtype: str) -> Stored:
    if dtype == "F16":  # from fp64 in one step: by way of fp32 it would be rounded twice
        with np.errstate(over="ignore"):
            return values.astype(np.float16)
    return from_fp32(values.astype(np.float32, copy=False), dtype)


def _settle(stored: Stored, base: Array, total: NDArray[np.floating], factors: tuple[Factor, Factor]) -> None:
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


def _block(piece: Piece, first: int, rows: int, columns: int) -> Array:
    """Return some rows of the base's tensor as fp32 [rows, columns]."""
    source = piece.source
    kind = np.dtype(STORED[source.dtype])
    total = source.shape[0] if source.shape else 1
    count = min(rows, total - first) * columns
    offset = source.start + first * columns * kind.itemsize
    flat = np.fromfile(piece.file, kind, count, offset=offset)
    values = to_fp32(flat, source.dtype)
    require_finite(values, f"{piece.file}: tensor {source.name!r} from row {first}")
    return values.reshape(-1, columns)


def _measure(base: Array, delta: NDArray[np.floating], found: Array) -> Retained:
    wanted = delta.reshape(-1)
    shown = np.subtract(found, base, dtype=wanted.dtype).reshape(-1)
    unchanged = wanted.size - int(np.count_nonzero(shown))
    kept = float(shown @ wanted)
    shown -= wanted
    return Retained(wanted.size, unchanged, float(wanted @ wanted), kept, float(shown @ shown))
