"""Merge methods: a file here, or an entry point `tuneyard.merge_methods`, holds one function with `@method`.

A method gets one module's factors and weights and the rank of the result, and returns the merged (A, B).
"""

import functools
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from tuneyard.core.errors import RequestError
from tuneyard.core.plugins import Plugin, registry

if TYPE_CHECKING:
    from tuneyard.adapters.lowrank import Pair, WeightedFactors

Combine = Callable[["WeightedFactors", int], "Pair"]
Rank = Literal["sum", "equal", "chosen"]
GROUP: Literal["tuneyard.merge_methods"] = "tuneyard.merge_methods"


@dataclass(frozen=True, slots=True)
class Method:
    """A merge method by the name of `--method`; `plugin` is where it came from, None for one of this folder.

    `rank` is what the result's rank follows from: the "sum" of the adapters' ranks, their one rank where all
    have an "equal" one, or the user's choice ("chosen": --rank or --energy).
    """

    name: str
    rank: Rank
    function: Combine
    plugin: Plugin | None = None

    def combine(self, factors: "WeightedFactors", rank: int) -> "Pair":
        """Return the merged A [≤ rank, inputs] and B [outputs, ≤ rank]; `PluginError` of a plug-in."""
        if self.plugin is None:
            return self.function(factors, rank)
        import numpy as np  # which the list of names in `--help` does without

        inputs, outputs = factors.pairs[0][0].shape[1], factors.pairs[0][1].shape[0]
        with self.plugin.guarded():
            a, b = self.function(factors, rank)
            if (a.shape[1:], b.shape[:1]) != ((inputs,), (outputs,)) or a.shape[0] != b.shape[-1]:
                found = f"A {list(a.shape)} and B {list(b.shape)}"
                raise ValueError(f"{found} are no factors of {outputs}×{inputs}")
            if a.shape[0] > rank:
                raise ValueError(f"rank {a.shape[0]} is above {rank}, the rank of the result")
            if not (np.isfinite(a).all() and np.isfinite(b).all()):
                raise ValueError("A or B holds NaN or infinity")
        return a, b


def method(name: str, *, rank: Rank) -> Callable[[Combine], Method]:
    """Declare a function as the merge method `name`; for `rank` see `Method`."""
    return lambda function: Method(name, rank, function)


def names() -> list[str]:
    """Return the names of this folder's methods without importing them: a file is called as its method."""
    return sorted(path.stem for path in Path(__file__).parent.glob("[a-z]*.py"))


@functools.cache
def methods() -> dict[str, Method]:
    """Return every method by name; a plug-in that cannot be used is left out with a warning."""
    return registry(GROUP, __name__, Method, "merge method")


def find_method(name: str) -> Method:
    """Return a method by its name; `RequestError` names those that are there."""
    if name not in methods():
        raise RequestError(f"--method {name!r} is not one of {', '.join(methods())}")
    return methods()[name]
