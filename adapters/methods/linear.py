"""`--method linear`: PEFT's average of A and of B, for comparison. It contains cross terms."""

import math
from typing import TYPE_CHECKING

from tuneyard.adapters.methods import Values, method

if TYPE_CHECKING:
    from tuneyard.adapters.lowrank import Pair, WeightedFactors


@method("linear", rank="equal")
def linear(factors: "WeightedFactors", rank: int, _values: Values) -> "Pair":
    """Σ dᵢAᵢ [rank, inputs] and Σ dᵢBᵢ [outputs, rank] with dᵢ = sign(cᵢ)·√|cᵢ| on both sides.

    Source: `_generalized_task_arithmetic_weighted_adapter` of PEFT 0.18.1. The product contains
    cross terms dᵢdⱼBᵢAⱼ, and a negative weight loses its sign.
    """
    import numpy as np

    a = np.zeros((rank, factors.pairs[0][0].shape[1]))
    b = np.zeros((factors.pairs[0][1].shape[0], rank))
    for (down, up), weight in zip(factors.pairs, factors.weights, strict=True):
        share = math.copysign(math.sqrt(abs(weight)), weight)
        a += np.multiply(share, down, dtype=np.float64)
        b += np.multiply(share, up, dtype=np.float64)
    return a, b
