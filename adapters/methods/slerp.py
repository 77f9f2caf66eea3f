"""`--method slerp`: spherical interpolation between the ΔW of two adapters, module by module."""

import math
from typing import TYPE_CHECKING

from tuneyard.adapters.methods import Values, method
from tuneyard.core.errors import ContentError
from tuneyard.core.language.message import _

if TYPE_CHECKING:
    from tuneyard.adapters.model.lowrank import Pair, WeightedFactors

PARALLEL = 1e-6  # of sin θ: below it, the two coefficients differ from 1 − t and t by less than 1e-12


@method("slerp", rank="sum", adapters=(2, 2), min_weight=0, full_tensors=False)
def slerp(factors: "WeightedFactors", _rank: int, _values: Values) -> "Pair":
    """sin((1−t)θ)/sin θ · ΔW₁ + sin(tθ)/sin θ · ΔW₂ with t = w₂/(w₁+w₂), in rank r₁ + r₂.

    ΔWᵢ = sᵢ·BᵢAᵢ, and θ is the angle between both as vectors (Shoemake 1985). If they are parallel, if one of
    them is 0, or if an adapter does not have the module, the interpolation is linear. `ContentError` if θ is
    180°.
    """
    from tuneyard.adapters.model.lowrank import WeightedFactors

    shares = [weight / factors.total_weight for weight in factors.adapter_weights]
    angle = _angle(factors)
    if angle is not None:
        shares = [math.sin(share * angle) / math.sin(angle) for share in shares]
    moved = WeightedFactors(factors.module, factors.pairs, factors.scales, shares, 1.0)
    return moved.exact


def _angle(factors: "WeightedFactors") -> float | None:
    """The angle between the two ΔW, None if they are parallel or one of them is 0."""
    from tuneyard.adapters.model import lowrank

    if len(factors.pairs) < 2:
        return None
    one, other = factors.pairs
    norms = lowrank.product_norm(*one) * lowrank.product_norm(*other)
    if norms == 0:
        return None
    cosine = lowrank.inner(one, other) / norms
    angle = math.acos(max(-1.0, min(1.0, cosine)))
    if math.sin(angle) > PARALLEL:
        return angle
    if cosine < 0:
        raise ContentError(
            _(
                "{module}: method slerp: the two ΔW are opposite, and no direction lies between "
                "them; --method exact adds them",
                module=factors.module,
            )
        )
    return None
