"""`--method magnitude_prune_svd --density D`: magnitude_prune on ΔW instead of A and B, cut to a rank."""

from typing import TYPE_CHECKING

from tuneyard.adapters.methods import Values, matrix_method
from tuneyard.adapters.methods.pruning import DENSITY, largest, weighted_sum

if TYPE_CHECKING:
    from tuneyard.adapters.model.lowrank import Delta, WeightedFactors


@matrix_method("magnitude_prune_svd", parameters=[DENSITY], adapters=(2, None), full_tensors=False)
def magnitude_prune_svd(factors: "WeightedFactors", values: Values) -> "Delta":
    """Keep the largest elements and add them: ΔW [outputs, inputs].

    Each ΔWᵢ has its scale αᵢ/rᵢ once. PEFT 0.18.1 applies it a second time, in the weight.
    """
    kept = largest(factors.deltas(), values, factors.module)
    return weighted_sum(kept, factors.adapter_weights)
