"""`--method dare_ties --density D`: DARE on A and on B, then the sign election of TIES, as PEFT does it."""

from typing import TYPE_CHECKING

from tuneyard.adapters.methods import Values, method
from tuneyard.adapters.methods.linear import signed_roots
from tuneyard.adapters.methods.pruning import DENSITY, SEED, dropped, elected_mean, random_numbers

if TYPE_CHECKING:
    from tuneyard.adapters.model.lowrank import Pair, WeightedFactors


@method(
    "dare_ties", rank="equal", parameters=[DENSITY, SEED], adapters=(2, None), signs=False, full_tensors=False
)
def dare_ties(factors: "WeightedFactors", _rank: int, values: Values) -> "Pair":
    """Drop, elect a sign, and average the adapters that agree: A [r, inputs], B [outputs, r].

    Source: `_generalized_task_arithmetic_weighted_adapter` of PEFT 0.18.1.
    """
    roots = signed_roots(factors)
    downs, ups = zip(*factors.pairs, strict=True)
    numbers = random_numbers(factors, values)
    a = elected_mean(dropped(downs, values, numbers, factors.module), roots)
    b = elected_mean(dropped(ups, values, numbers, factors.module), roots)
    return a, b
