"""`--method magnitude_prune --density D`: A and B without their smallest elements, added as in PEFT."""

from typing import TYPE_CHECKING

from tuneyard.adapters.methods import Values, method
from tuneyard.adapters.methods.linear import signed_roots
from tuneyard.adapters.methods.pruning import DENSITY, largest, weighted_sum

if TYPE_CHECKING:
    from tuneyard.adapters.model.lowrank import Pair, WeightedFactors


@method(
    "magnitude_prune", rank="equal", parameters=[DENSITY], adapters=(2, None), signs=False, full_tensors=False
)
def magnitude_prune(factors: "WeightedFactors", _rank: int, values: Values) -> "Pair":
    """Keep the largest elements and add them: A [r, inputs], B [outputs, r].

    Source: `_generalized_task_arithmetic_weighted_adapter` of PEFT 0.18.1.
    """
    roots = signed_roots(factors)
    downs, ups = zip(*factors.pairs, strict=True)
    a = weighted_sum(largest(downs, values, factors.module), roots)
    b = weighted_sum(largest(ups, values, factors.module), roots)
    return a, b
