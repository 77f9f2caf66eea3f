"""`--method exact`: the factors side by side, so that the product is the sum itself, in rank Σrᵢ."""

from typing import TYPE_CHECKING

from tuneyard.adapters.methods import Values, method

if TYPE_CHECKING:
    from tuneyard.adapters.lowrank import Pair, WeightedFactors


@method("exact", rank="sum", exact_sum=True)
def exact(factors: "WeightedFactors", _rank: int, _values: Values) -> "Pair":
    """A [Σrᵢ, inputs] and B [outputs, Σrᵢ] with B·A = Σ cᵢBᵢAᵢ."""
    return factors.exact
