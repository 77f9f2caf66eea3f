"""`--method dare_linear_svd --density D`: dare_linear on ΔW instead of A and B, cut to a rank."""

from typing import TYPE_CHECKING

from tuneyard.adapters.methods import Values, matrix_method
from tuneyard.adapters.methods.pruning import DENSITY, SEED, dropped, random_numbers, weighted_sum

if TYPE_CHECKING:
    from tuneyard.adapters.model.lowrank import Delta, WeightedFactors


@matrix_method("dare_linear_svd", parameters=[DENSITY, SEED], adapters=(2, None), full_tensors=False)
def dare_linear_svd(factors: "WeightedFactors", values: Values) -> "Delta":
    """Drop elements by chance and add the others: ΔW [outputs, inputs].

    Each ΔWᵢ has its scale αᵢ/rᵢ once. PEFT 0.18.1 applies it a second time, in the weight.
    """
    numbers = random_numbers(factors, values)
    kept = dropped(factors.deltas(), values, numbers, factors.module)
    return weighted_sum(kept, factors.adapter_weights)
