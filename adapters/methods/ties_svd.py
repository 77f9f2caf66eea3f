"""`--method ties_svd --density D`: ties on ΔW instead of A and B, cut to a rank."""

from typing import TYPE_CHECKING

from tuneyard.adapters.methods import Values, matrix_method
from tuneyard.adapters.methods.pruning import DENSITY, elected_mean, largest

if TYPE_CHECKING:
    from tuneyard.adapters.model.lowrank import Delta, WeightedFactors


@matrix_method("ties_svd", parameters=[DENSITY], adapters=(2, None), full_tensors=False)
def ties_svd(factors: "WeightedFactors", values: Values) -> "Delta":
    """Keep the largest elements, elect a sign, and average the adapters that agree: ΔW [outputs, inputs].

    Each ΔWᵢ has its scale αᵢ/rᵢ once. PEFT 0.18.1 applies it a second time, in the weight.
    """
    kept = largest(factors.deltas(), values, factors.module)
    return elected_mean(kept, factors.adapter_weights)
