"""`--method linear`: PEFT's average of A and of B, cross terms and all; offered because others use it."""

import math

import numpy as np

from adapters.lowrank import Pair, WeightedFactors
from adapters.methods import method


@method("linear", rank="equal")
def linear(factors: WeightedFactors, _rank: int) -> Pair:
    """Return Σ dᵢAᵢ and Σ dᵢBᵢ with dᵢ = sign(cᵢ)·√|cᵢ| on both sides.

    Source: `_generalized_task_arithmetic_weighted_adapter` of PEFT 0.18.1. The product holds
    cross terms dᵢdⱼBᵢAⱼ, and a negative weight loses its sign.
    """
    shares = [math.copysign(math.sqrt(abs(c)), c) for c in factors.weights]
    a = sum(
        np.multiply(a, share, dtype=np.float64) for share, (a, _) in zip(shares, factors.pairs, strict=True)
    )
    b = sum(
        np.multiply(b, share, dtype=np.float64) for share, (_, b) in zip(shares, factors.pairs, strict=True)
    )
    return np.asarray(a), np.asarray(b)
