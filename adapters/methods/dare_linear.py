"""`--method dare_linear --density D`: DARE on A and on B, then their weighted average, as PEFT does it."""

from typing import TYPE_CHECKING

from tuneyard.adapters.methods import Values, method
from tuneyard.adapters.methods.linear import signed_roots
from tuneyard.adapters.methods.pruning import DENSITY, SEED, dropped, random_numbers, weighted_sum

if TYPE_CHECKING:
    from tuneyard.adapters.model.lowrank import Pair, WeightedFactors


@method(
    "dare_linear",
    rank="equal",
    parameters=[DENSITY, SEED],
    adapters=(2, None),
    signs=False,
    full_tensors=False,
)
def dare_linear(factors: "WeightedFactors", _rank: int, values: Values) -> "Pair":
    """Drop elements by chance and add the others: A [r, inputs], B [outputs, r].

    Source: `_generalized_task_arithmetic_weighted_adapter` of PEFT 0.18.1.
    """
    roots = signed_roots(factors)
    downs, ups = zip(*factors.pairs, strict=True)
    numbers = random_numbers(factors, values)
    a = weighted_sum(dropped(downs, values, numbers, factors.module), roots)
    b = weighted_sum(dropped(ups, values, numbers, factors.module), roots)
    return a, b
