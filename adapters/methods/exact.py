"""`--method exact`: the factors side by side, so that their product is the weighted sum itself."""

from typing import TYPE_CHECKING

from tuneyard.adapters.methods import Values, method

if TYPE_CHECKING:
    from tuneyard.adapters.model.lowrank import Pair, WeightedFactors


@method("exact", rank="sum", exact_sum=True)
def exact(factors: "WeightedFactors", _rank: int, _values: Values) -> "Pair":
    """The sum itself, of rank Σrᵢ."""
    return factors.exact
