"""Pruning and sign election of PEFT's merge methods, on one tensor of every adapter at a time.

The tensors of a module are its A, its B, or its dense ΔW, one of each adapter and all of one shape. Results
are those of `peft/utils/merge_utils.py` (PEFT 0.18.1), with two differences: of equal elements the first are
kept, and random pruning divides by the density, as the paper does.
"""

from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING

from tuneyard.adapters.methods import Parameter, Values
from tuneyard.core.errors import RequestError
from tuneyard.core.language.message import _

if TYPE_CHECKING:
    from numpy.random import Generator

    from tuneyard.adapters.model.lowrank import Factor, WeightedFactors
    from tuneyard.core.weights.tensors import Array

DENSITY = Parameter(
    "density", float, _("share of the elements to keep, e.g. 0.5."), above=0, maximum=1, required=True
)
SEED = Parameter("seed", int, "seed of the random choice.", default=42, minimum=0)


def density_of(values: Values) -> float:
    """The value of `--density`, which every method here requires."""
    density = values["density"]
    if density is None:
        raise TypeError(_("density is required"))
    return density


def largest(tensors: "Iterable[Array]", values: Values, module: str) -> "Iterator[Array]":
    """Yield each tensor with its ⌊density · size⌋ elements of largest magnitude; the others are 0.

    `RequestError` if no element is left.
    """
    import numpy as np  # imported here, since `--help` lists the methods without it

    density = density_of(values)
    for tensor in tensors:
        count = int(density * tensor.size)
        if count == 0:
            raise RequestError(
                _(
                    "--density {density:g}: keeps none of the {size} elements of {module}; expected "
                    "1/{size} or more",
                    density=density,
                    size=tensor.size,
                    module=module,
                )
            )
        if count == tensor.size:
            yield tensor
            continue
        magnitudes = np.abs(tensor).reshape(-1)
        limit = np.partition(magnitudes, -count)[-count]
        kept = magnitudes > limit
        at_limit = np.flatnonzero(magnitudes == limit)
        kept[at_limit[: count - np.count_nonzero(kept)]] = True
        yield tensor * kept.reshape(tensor.shape)


def random_numbers(factors: "WeightedFactors", values: Values) -> "Generator":
    """The random numbers of a module: they depend on the seed and the module's name alone."""
    import numpy as np

    return np.random.default_rng([int(values["seed"] or 0), *factors.module.encode()])


def dropped(
    tensors: "Iterable[Array]", values: Values, numbers: "Generator", module: str
) -> "Iterator[Array]":
    """Yield each tensor with a random share of its elements, divided by this share. The others are 0.

    The expected value stays as it is (DARE, Yu et al. 2024, arXiv:2311.03099, section 3.1). `RequestError` if
    no element is left.
    """
    import numpy as np

    density = density_of(values)
    for tensor in tensors:
        if density == 1:
            yield tensor
            continue
        kept = numbers.random(tensor.shape, dtype=np.float32) < density
        if not kept.any():
            raise RequestError(
                _(
                    "--density {density:g}: by chance, none of the {number} elements of {module} is "
                    "kept; expected a larger density, or another --seed",
                    density=density,
                    number=tensor.size,
                    module=module,
                )
            )
        yield np.divide(tensor * kept, density, dtype=np.float32)


def weighted_sum(tensors: "Iterable[Array]", weights: Sequence[float]) -> "Factor":
    """Σ wᵢXᵢ in fp64."""
    import numpy as np

    total: Factor | None = None
    for tensor, weight in zip(tensors, weights, strict=True):
        term = np.multiply(weight, tensor, dtype=np.float64)
        if total is None:
            total = term
        else:
            total += term
    if total is None:
        raise ValueError(_("no tensors"))
    return total


def elected_mean(tensors: "Iterable[Array]", weights: Sequence[float]) -> "Factor":
    """Σ wᵢXᵢ over the adapters that agree with the elected sign, divided by their number, in fp64.

    The elected sign of an element is that of the unweighted sum, which is in fp32 as in PEFT (TIES, Yadav et
    al. 2023, arXiv:2306.01708).
    """
    import numpy as np

    kept = list(tensors)
    votes = np.zeros_like(kept[0])
    for tensor in kept:
        votes += tensor
    elected = np.where(votes >= 0, np.float32(1), np.float32(-1))
    total = np.zeros(votes.shape)
    agreeing = np.zeros(votes.shape, np.int32)
    for tensor, weight in zip(kept, weights, strict=True):
        agrees = np.sign(tensor) == elected
        total += np.multiply(weight, tensor * agrees, dtype=np.float64)
        agreeing += agrees
    return np.asarray(total / np.maximum(agreeing, 1))
