"""Arithmetic on products B·A from their factors alone; a dense ΔW is never formed.

With A [r, inputs] and B [outputs, r], all that is needed lies in the r×r Gram matrices AAᵀ and
BᵀB: ‖BA‖² = tr(BᵀB·AAᵀ), and the singular values of BA are the square roots of the eigenvalues of
S·AAᵀ·S with S = (BᵀB)^½. Gram matrices are taken in fp64, which keeps singular values down to
1e-8 of the largest.
"""

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from tuneyard.core.weights import Array

Matrix = NDArray[np.float64]
Factor = Array | Matrix
Pair = tuple[Factor, Factor]  # A [r, inputs], B [outputs, r]
TINY, HUGE = 1e-8, 1e8  # root mean squares of B between which fp32 holds the squares of its rounding errors
NEGLIGIBLE = 1e-8  # of the largest singular value: below it lies what fp64 Gram matrices cannot tell


@dataclass(frozen=True)
class WeightedFactors:
    """One module's ΔW = Σ cᵢBᵢAᵢ: `pairs` (Aᵢ [rᵢ, inputs], Bᵢ [outputs, rᵢ]), `weights` cᵢ = wᵢ·sᵢ."""

    pairs: list[tuple[Array, Array]]
    weights: list[float]

    @cached_property
    def exact(self) -> Pair:
        """A [Σrᵢ, inputs] fp32 and B [outputs, Σrᵢ] fp64 with B·A = Σ cᵢBᵢAᵢ."""
        downs, ups = zip(*self.pairs, strict=True)
        both = np.concatenate(ups, axis=1, dtype=np.float64)
        both *= np.repeat(self.weights, [up.shape[1] for up in ups])  # no second copy
        return np.concatenate(downs), both


def gram(rows: Factor) -> Matrix:
    """Return X·Xᵀ [r, r] in fp64 for X [r, n]."""
    wide = rows.astype(np.float64, copy=False)
    return np.asarray(wide @ wide.T)


def product_norm(a: Factor, b: Factor) -> float:
    """Return the Frobenius norm of B·A."""
    return _norm(gram(a), gram(b.T))


def inner(one: tuple[Factor, Factor], other: tuple[Factor, Factor]) -> float:
    """Return ⟨B₁A₁, B₂A₂⟩ = tr((B₁ᵀB₂)(A₂A₁ᵀ)) for two pairs (A, B)."""
    a = other[0].astype(np.float64, copy=False) @ one[0].T.astype(np.float64, copy=False)
    b = one[1].T.astype(np.float64, copy=False) @ other[1].astype(np.float64, copy=False)
    return float(np.sum(b * a.T))


def norms(exact: tuple[Factor, Factor], found: tuple[Factor, Factor]) -> tuple[float, float]:
    """Return ‖B₁A₁‖ and ‖B₁A₁ − B₂A₂‖ (Frobenius) for two pairs (A, B).

    Where both share A, only the difference of the B enters, so that even rounding errors show.
    """
    if found[0] is exact[0]:
        shared, whole = gram(exact[0]), gram(exact[1].T)
        # Taken in fp64, measured in fp32 where that can hold the squares.
        held = TINY**2 <= np.trace(whole) / exact[1].size <= HUGE**2
        kind = np.float32 if held else np.float64
        missing = np.empty(exact[1].shape, kind)
        np.subtract(exact[1], found[1], out=missing, dtype=np.float64)
        return _norm(shared, whole), _norm(shared, (missing.T @ missing).astype(np.float64))
    a = np.concatenate([exact[0], found[0]])
    b = np.concatenate([exact[1], -found[1]], axis=1, dtype=np.float64)
    return product_norm(*exact), product_norm(a, b)


def singular_values(a: Factor, b: Factor) -> Matrix:
    """Return the r singular values of B·A, largest first."""
    root = _root(gram(b.T))
    values = np.linalg.eigvalsh(root @ gram(a) @ root)[::-1]
    return np.asarray(np.sqrt(np.maximum(values, 0.0)))


def truncate(a: Factor, b: Factor, rank: int) -> tuple[Matrix, Matrix]:
    """Return the pair (A' [rank, inputs], B' [outputs, rank]) whose product is nearest to B·A.

    B·A is projected on its leading right singular vectors (Eckart–Young); each singular value is
    shared evenly between the two sides, and directions that are not there are zeros.
    """
    gram_a, root = gram(a), _root(gram(b.T))
    values, vectors = np.linalg.eigh(root @ gram_a @ root)
    sigma = np.sqrt(np.maximum(values[::-1][:rank], 0.0))
    right = root @ vectors[:, ::-1][:, :rank]
    keep = sigma > NEGLIGIBLE * (sigma[0] if len(sigma) else 0.0)
    weight = np.divide(1.0, sigma, out=np.zeros_like(sigma), where=keep)
    left = gram_a @ right
    return (right * np.sqrt(weight)).T @ a, b @ (left * weight**1.5)


def rank_for(values: Matrix, energy: float) -> int:
    """Return the smallest rank that keeps a share `energy` of the squared singular values."""
    kept = np.cumsum(values**2)
    return int(np.searchsorted(kept, energy * kept[-1] * (1 - 1e-12)) + 1) if kept[-1] > 0 else 1


def _norm(gram_a: Matrix, gram_b: Matrix) -> float:
    return float(np.sqrt(max(float(np.sum(gram_a * gram_b)), 0.0)))


def _root(square: Matrix) -> Matrix:
    values, vectors = np.linalg.eigh(square)
    return np.asarray((vectors * np.sqrt(np.maximum(values, 0.0))) @ vectors.T)
