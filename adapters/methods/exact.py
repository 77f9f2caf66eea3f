"""`--method exact`: the factors side by side, so that their product is the weighted sum itself."""

from typing import TYPE_CHECKING

from tuneyard.adapters.methods import Values, method

if TYPE_CHECKING:
    from tuneyard.adapters.lowrank import Pair, WeightedFactors


@method("exact", rank="sum", exact_sum=True)
def exact(factors: "WeightedFactors", _rank: int, _values: Values) -> "Pair":
    """A [Σrᵢ, inputs] fp32 and B [outputs, Σrᵢ] fp64 with B·A = Σ cᵢBᵢAᵢ, where cᵢ = wᵢ·αᵢ/rᵢ.

        A = [A₁; A₂; …]    B = [c₁B₁, c₂B₂, …]

    Only B is scaled, so that A stays as it was trained. No cross term BᵢAⱼ arises.
    """
    import numpy as np  # imported here, since `--help` lists the methods without it

    downs, ups = zip(*factors.pairs, strict=True)
    a = np.concatenate(downs)
    b = np.concatenate(ups, axis=1, dtype=np.float64)
    ranks = [up.shape[1] for up in ups]
    b *= np.repeat(factors.weights, ranks)  # no second copy
    return a, b
