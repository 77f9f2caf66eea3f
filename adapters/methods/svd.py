"""`--method svd --rank R | --energy E`: the product of a given rank that is nearest to the sum."""

from tuneyard.adapters import lowrank
from tuneyard.adapters.lowrank import Pair, WeightedFactors
from tuneyard.adapters.methods import method


@method("svd", rank="chosen")
def svd(factors: WeightedFactors, rank: int) -> Pair:
    """Return A [rank, inputs] and B [outputs, rank] whose product is nearest to the sum (Eckart–Young)."""
    a, b = factors.exact
    return lowrank.truncate(a, b, rank) if len(a) > rank else (a, b)
