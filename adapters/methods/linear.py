"""`--method linear`: PEFT's average of A and of B, for comparison. It contains cross terms."""

import math
from typing import TYPE_CHECKING

from tuneyard.adapters.methods import Values, method

if TYPE_CHECKING:
    from tuneyard.adapters.model.lowrank import Pair, WeightedFactors


@method("linear", rank="equal", signs=False)
def linear(factors: "WeightedFactors", _rank: int, _values: Values) -> "Pair":
    """Σ dᵢAᵢ [r, inputs] and Σ dᵢBᵢ [outputs, r] with dᵢ = sign(cᵢ)·√|cᵢ| on both sides.

    Source: `_generalized_task_arithmetic_weighted_adapter` of PEFT 0.18.1. The product contains
    cross terms dᵢdⱼBᵢAⱼ, and a negative weight loses its sign.
    """
    from tuneyard.adapters.methods.pruning import weighted_sum

    roots = signed_roots(factors)
    downs, ups = zip(*factors.pairs, strict=True)
    return weighted_sum(downs, roots), weighted_sum(ups, roots)


def signed_roots(factors: "WeightedFactors") -> list[float]:
    """The weights dᵢ of A and of B, as PEFT has them."""
    return [math.copysign(math.sqrt(abs(weight)), weight) for weight in factors.weights]
