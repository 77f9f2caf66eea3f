"""Arithmetic on products B·A from their factors, without the dense ΔW.

With A [r, inputs] and B [outputs, r], the r×r Gram matrices AAᵀ and BᵀB are enough: ‖BA‖² = tr(BᵀB·AAᵀ), and
the singular values of BA are the square roots of the eigenvalues of S·AAᵀ·S with S = (BᵀB)^½. Gram matrices
in fp64 keep singular values down to 1e-8 of the largest.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from tuneyard.core.weights.tensors import Array

Matrix = NDArray[np.float64]
Factor = Array | Matrix
Pair = tuple[Factor, Factor]  # A [r, inputs], B [outputs, r]
Delta = Factor
"""A dense ΔW [outputs, inputs]."""
TINY, HUGE = 1e-8, 1e8  # root mean squares of B between which fp32 holds the squares of its rounding errors
NEGLIGIBLE = 1e-8  # of the largest singular value: fp64 Gram matrices cannot resolve smaller ones


@dataclass(frozen=True)
class WeightedFactors:
    """One module's ΔW = Σ wᵢ·sᵢ·BᵢAᵢ of the adapters that have it.

    `pairs` are Aᵢ [rᵢ, inputs] and Bᵢ [outputs, rᵢ], `scales` the sᵢ, `adapter_weights` the wᵢ.
    `total_weight` also counts the weights of adapters that do not have the module.
    """

    module: str
    pairs: list[tuple[Array, Array]]
    scales: list[float]
    adapter_weights: list[float]
    total_weight: float

    @property
    def weights(self) -> list[float]:
        """The factors wᵢ·sᵢ of the products BᵢAᵢ."""
        return [weight * scale for weight, scale in zip(self.adapter_weights, self.scales, strict=True)]

    @property
    def shape(self) -> tuple[int, int]:
        """Outputs and inputs of the module."""
        down, up = self.pairs[0]
        return up.shape[0], down.shape[1]

    @cached_property
    def exact(self) -> Pair:
        """A [Σrᵢ, inputs] fp32 and B [outputs, Σrᵢ] fp64 with B·A = Σ cᵢBᵢAᵢ, where cᵢ = wᵢ·αᵢ/rᵢ.

            A = [A₁; A₂; …]    B = [c₁B₁, c₂B₂, …]

        Only B is scaled, so that A stays as it was trained. No cross term BᵢAⱼ arises. `--method exact`
        writes this sum, and other methods approximate it.
        """
        downs, ups = zip(*self.pairs, strict=True)
        a = np.concatenate(downs)
        b = np.concatenate(ups, axis=1, dtype=np.float64)
        ranks = [up.shape[1] for up in ups]
        b *= np.repeat(self.weights, ranks)  # no second copy
        return a, b

    def deltas(self) -> Iterator[Array]:
        """Yield each adapter's own ΔWᵢ = sᵢ·BᵢAᵢ [outputs, inputs] as fp32."""
        for (down, up), scale in zip(self.pairs, self.scales, strict=True):
            yield np.multiply(up, scale, dtype=np.float32) @ down


def gram(rows: Factor) -> Matrix:
    """X·Xᵀ [r, r] in fp64 for X [r, n]."""
    wide = rows.astype(np.float64, copy=False)
    return np.asarray(wide @ wide.T)


def product_norm(a: Factor, b: Factor) -> float:
    """Frobenius norm of B·A."""
    return _norm(gram(a), gram(b.T))


def inner(one: Pair, other: Pair) -> float:
    """⟨B₁A₁, B₂A₂⟩ = tr((B₁ᵀB₂)(A₂A₁ᵀ)) for two pairs (A, B)."""
    a = other[0].astype(np.float64, copy=False) @ one[0].T.astype(np.float64, copy=False)
    b = one[1].T.astype(np.float64, copy=False) @ other[1].astype(np.float64, copy=False)
    return float(np.sum(b * a.T))


def norms(exact: Pair, rounded: Pair) -> tuple[float, float]:
    """‖B₁A₁‖ and ‖B₁A₁ − B₂A₂‖ (Frobenius) for two pairs (A, B).

    If both share A, the difference is (B₁ − B₂)·A, so that even rounding errors are measured.
    """
    a, b = exact
    rounded_a, rounded_b = rounded
    if rounded_a is a:
        gram_a, gram_b = gram(a), gram(b.T)
        # The difference is taken in fp64 and measured in fp32 if fp32 can represent the squares.
        fits_fp32 = TINY**2 <= np.trace(gram_b) / b.size <= HUGE**2
        difference = np.empty(b.shape, np.float32 if fits_fp32 else np.float64)
        np.subtract(b, rounded_b, out=difference, dtype=np.float64)
        return _norm(gram_a, gram_b), _norm(gram_a, (difference.T @ difference).astype(np.float64))
    both_a = np.concatenate([a, rounded_a])
    both_b = np.concatenate([b, -rounded_b], axis=1, dtype=np.float64)
    return product_norm(a, b), product_norm(both_a, both_b)


def singular_values(a: Factor, b: Factor) -> Matrix:
    """The r singular values of B·A, largest first."""
    root = _root(gram(b.T))
    values = np.linalg.eigvalsh(root @ gram(a) @ root)[::-1]
    return np.asarray(np.sqrt(np.maximum(values, 0.0)))


def singular_vectors(a: Factor, b: Factor) -> tuple[Matrix, Matrix, Matrix]:
    """U [outputs, k], σ [k] and Vᵀ [k, inputs] with B·A = U·diag(σ)·Vᵀ, largest first, without zeros.

    QR decompositions of both factors leave a matrix of at most r×r to decompose.
    """
    left_basis, left_rest = np.linalg.qr(b.astype(np.float64, copy=False))
    right_basis, right_rest = np.linalg.qr(a.T.astype(np.float64, copy=False))
    left, sigma, right = np.linalg.svd(left_rest @ right_rest.T, full_matrices=False)
    present = sigma > NEGLIGIBLE * sigma.max(initial=0.0)
    return left_basis @ left[:, present], sigma[present], right[present] @ right_basis.T


def truncate(a: Factor, b: Factor, rank: int) -> tuple[Matrix, Matrix]:
    """A' [rank, inputs] and B' [outputs, rank] whose product is nearest to B·A.

    B·A is projected on its leading right singular vectors (Eckart–Young). Each singular value is shared
    evenly between the two sides. Missing directions are zeros.
    """
    gram_a, root = gram(a), _root(gram(b.T))
    values, vectors = np.linalg.eigh(root @ gram_a @ root)
    sigma = np.sqrt(np.maximum(values[::-1][:rank], 0.0))
    right = root @ vectors[:, ::-1][:, :rank]
    keep = sigma > NEGLIGIBLE * sigma.max(initial=0.0)
    weight = np.divide(1.0, sigma, out=np.zeros_like(sigma), where=keep)
    left = gram_a @ right
    return (right * np.sqrt(weight)).T @ a, b @ (left * weight**1.5)


def nearest(matrix: Delta, rank: int) -> Pair:
    """A [≤ rank, inputs] and B [outputs, ≤ rank] whose product is nearest to a dense matrix (Eckart–Young).

    The rows of A, or the columns of B, are the leading eigenvectors of the smaller Gram matrix of the two.
    """
    wide = matrix.astype(np.float64, copy=False)
    if len(matrix) < matrix.shape[1]:
        left = _leading(wide @ wide.T, rank)
        return left.T @ wide, left
    right = _leading(wide.T @ wide, rank)
    return right.T, wide @ right


def _leading(square: Matrix, rank: int) -> Matrix:
    """The eigenvectors [n, ≤ rank] of the largest eigenvalues of a symmetric matrix."""
    _unused, vectors = np.linalg.eigh(square)
    return np.asarray(vectors[:, ::-1][:, :rank])


def matrix_norms(matrix: Delta, pair: Pair) -> tuple[float, float]:
    """‖M‖ and ‖M − B·A‖ (Frobenius) for a dense M [outputs, inputs] and a pair (A, B)."""
    a, b = pair
    difference = b.astype(np.float64, copy=False) @ a.astype(np.float64, copy=False)
    np.subtract(matrix, difference, out=difference)
    return float(np.linalg.norm(matrix.astype(np.float64, copy=False))), float(np.linalg.norm(difference))


def rank_for(values: Matrix, energy: float) -> int:
    """The smallest rank that keeps a share `energy` of the squared singular values."""
    kept = np.cumsum(values**2)
    if kept[-1] == 0:
        return 1
    return int(np.searchsorted(kept, energy * kept[-1] * (1 - 1e-12)) + 1)


def _norm(gram_a: Matrix, gram_b: Matrix) -> float:
    return float(np.sqrt(max(float(np.sum(gram_a * gram_b)), 0.0)))


def _root(square: Matrix) -> Matrix:
    values, vectors = np.linalg.eigh(square)
    return np.asarray((vectors * np.sqrt(np.maximum(values, 0.0))) @ vectors.T)
