"""`--method ties --density D`: TIES on A and on B, each on its own, as PEFT does it."""

from typing import TYPE_CHECKING

from tuneyard.adapters.methods import Values, method
from tuneyard.adapters.methods.linear import signed_roots
from tuneyard.adapters.methods.pruning import DENSITY, elected_mean, largest

if TYPE_CHECKING:
    from tuneyard.adapters.model.lowrank import Pair, WeightedFactors


@method("ties", rank="equal", parameters=[DENSITY], adapters=(2, None), signs=False, full_tensors=False)
def ties(factors: "WeightedFactors", _rank: int, values: Values) -> "Pair":
    """Trim, elect a sign, and average the adapters that agree: A [r, inputs], B [outputs, r].

    Source: `_generalized_task_arithmetic_weighted_adapter` of PEFT 0.18.1.
    """
    roots = signed_roots(factors)
    downs, ups = zip(*factors.pairs, strict=True)
    a = elected_mean(largest(downs, values, factors.module), roots)
    b = elected_mean(largest(ups, values, factors.module), roots)
    return a, b
