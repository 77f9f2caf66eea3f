"""`--method svd --rank R | --energy E`: the product of a given rank that is nearest to the sum."""

from collections.abc import Iterable
from typing import TYPE_CHECKING

from tuneyard.adapters.methods import Parameter, Values, method
from tuneyard.core.errors import RequestError
from tuneyard.core.language.message import _

if TYPE_CHECKING:
    from tuneyard.adapters.model.lowrank import Pair, WeightedFactors

RANK = Parameter("rank", int, "rank of the result.", minimum=1)
ENERGY = Parameter(
    "energy", float, "share of the squared singular values to keep, e.g. 0.99.", above=0, maximum=1
)


def chosen_rank(values: Values, modules: "Iterable[WeightedFactors]") -> int:
    """`--rank` itself, or the smallest rank that keeps `--energy` in every module."""
    from tuneyard.adapters.model import lowrank

    rank, energy = values["rank"], values["energy"]
    if rank is not None and energy is None:
        return int(rank)
    if energy is None or rank is not None:
        raise RequestError(_("method svd: give either --rank R or --energy E"))
    ranks = []
    for factors in modules:
        spectrum = lowrank.singular_values(*factors.exact)
        ranks.append(lowrank.rank_for(spectrum, energy))
    return max(ranks)


@method("svd", rank=chosen_rank, parameters=(RANK, ENERGY), exact_sum=True)
def svd(factors: "WeightedFactors", rank: int, _values: Values) -> "Pair":
    """A [rank, inputs] and B [outputs, rank] whose product is nearest to the sum (Eckart–Young)."""
    from tuneyard.adapters.model import lowrank

    a, b = factors.exact
    if len(a) <= rank:
        return a, b
    return lowrank.truncate(a, b, rank)
