"""`--method linear`: PEFT's average of A and of B, cross terms and all; offered because others use it."""

import math

import numpy as np

from tuneyard.adapters.lowrank import Pair, WeightedFactors
from tuneyard.adapters.methods import method


@method("linear", rank="equal")
def linear(factors: WeightedFactors, _rank: int) -> Pair:
    """Return Σ dᵢAᵢ and Σ dᵢBᵢ with dᵢ = sign(cᵢ)·√|cᵢ| on both sides.

    Source: `_generalized_task_arithmetic_weighted_adapter` of PEFT 0.18.1. The product holds
    cross terms dᵢdⱼBᵢAⱼ, and a negative weight loses its sign.
    """
    shares = [math.copysign(math.sqrt(abs(c)), c) for c in factors.weights]
    sides = zip(*factors.pairs, strict=True)
    sums = [
        sum(np.multiply(d, x, dtype=np.float64) for d, x in zip(shares, side, strict=True)) for side in sides
    ]
    return np.asarray(sums[0]), np.asarray(sums[1])
