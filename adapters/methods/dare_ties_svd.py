"""`--method dare_ties_svd --density D`: dare_ties on ΔW instead of A and B, cut to a rank."""

from typing import TYPE_CHECKING

from tuneyard.adapters.methods import Values, matrix_method
from tuneyard.adapters.methods.pruning import DENSITY, SEED, dropped, elected_mean, random_numbers

if TYPE_CHECKING:
    from tuneyard.adapters.model.lowrank import Delta, WeightedFactors


@matrix_method("dare_ties_svd", parameters=[DENSITY, SEED], adapters=(2, None), full_tensors=False)
def dare_ties_svd(factors: "WeightedFactors", values: Values) -> "Delta":
    """Drop elements by chance, elect a sign, and average the adapters that agree: ΔW [outputs, inputs].

    Each ΔWᵢ has its scale αᵢ/rᵢ once. PEFT 0.18.1 applies it a second time, in the weight.
    """
    numbers = random_numbers(factors, values)
    kept = dropped(factors.deltas(), values, numbers, factors.module)
    return elected_mean(kept, factors.adapter_weights)
