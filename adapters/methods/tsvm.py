"""`--method tsvm`: Task Singular Vectors merging (TSV-M), computed on the factors.

Source: Gargiulo et al., CVPR 2025, arXiv:2412.00081, section 4.2. Singular vectors of different adapters that
overlap interfere in a sum. TSV-M replaces them by the nearest orthonormal vectors and leaves the singular
values as they are. Weights multiply the singular values of their adapter.
"""

from collections.abc import Iterable
from typing import TYPE_CHECKING

from tuneyard.adapters.methods import Parameter, Values, method

if TYPE_CHECKING:
    from tuneyard.adapters.model.lowrank import Matrix, Pair, WeightedFactors

KEEP = Parameter(
    "keep", float, "share of each adapter's singular vectors to keep.", default=1, above=0, maximum=1
)


def kept_count(rank: int, values: Values) -> int:
    """How many singular vectors of an adapter of this rank to keep, at least one."""
    share = values["keep"] or 1.0
    return max(1, round(share * rank))


def rank_of_result(values: Values, modules: "Iterable[WeightedFactors]") -> int:
    """The largest number of kept singular vectors of a module."""
    largest = 0
    for factors in modules:
        kept = sum(kept_count(len(down), values) for down, _unused in factors.pairs)
        largest = max(largest, kept)
    return largest


@method("tsvm", rank=rank_of_result, parameters=[KEEP])
def tsvm(factors: "WeightedFactors", _rank: int, values: Values) -> "Pair":
    """A [≤ rank, inputs] with orthonormal rows, and B [outputs, ≤ rank] with the singular values.

    The paper keeps 1/T of the singular vectors of T full matrices. Low-rank adapters have fewer: all are kept
    by default.
    """
    import numpy as np

    from tuneyard.adapters.model import lowrank

    lefts, sigmas, rights = [], [], []
    for (down, up), weight in zip(factors.pairs, factors.weights, strict=True):
        left, sigma, right = lowrank.singular_vectors(down, up)
        count = kept_count(len(down), values)
        lefts.append(left[:, :count])
        sigmas.append(weight * sigma[:count])
        rights.append(right[:count])
    left = _nearest_orthonormal(np.concatenate(lefts, axis=1))
    right = _nearest_orthonormal(np.concatenate(rights))
    return right, left * np.concatenate(sigmas)


def _nearest_orthonormal(vectors: "Matrix") -> "Matrix":
    """P·Qᵀ of the singular value decomposition P·D·Qᵀ (orthogonal Procrustes, Schönemann 1966).

    Directions with D = 0 are left out: without them, adapters that are equal give their mean.
    """
    import numpy as np

    from tuneyard.adapters.model import lowrank

    left, sigma, right = np.linalg.svd(vectors, full_matrices=False)
    present = sigma > lowrank.NEGLIGIBLE * sigma.max(initial=0.0)
    return np.asarray(left[:, present] @ right[present])
