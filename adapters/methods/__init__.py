"""Merge methods: one function with `@method` in a file here, or at an entry point `tuneyard.merge_methods`.

The function gets one module's factors and weights, the rank of the result and the method's parameters, and
returns the merged (A, B). The options of `merge`, the keys of its YAML file and of merge.json, and the checks
of their values come from the parameters that a method declares.
"""

import contextlib
import functools
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from tuneyard.core.documents.schema_errors import violations
from tuneyard.core.errors import RequestError
from tuneyard.core.installation.plugins import Plugin, registry

if TYPE_CHECKING:
    from tuneyard.adapters.lowrank import Pair, WeightedFactors

Values = Mapping[str, float | None]
"""The parameters of a method by name; None for a parameter without value and default."""
Combine = Callable[["WeightedFactors", int, Values], "Pair"]
ChooseRank = Callable[[Values, "Iterable[WeightedFactors]"], int]
Rank = Literal["sum", "equal"] | ChooseRank
GROUP: Literal["tuneyard.merge_methods"] = "tuneyard.merge_methods"
TAKEN = {
    "adapters", "base", "dry_run", "dtype", "force", "help", "method", "out", "same_base",
}  # fmt: skip
"""Options and keys of `merge` itself. A parameter must have another name."""


@dataclass(frozen=True, slots=True)
class Parameter:
    """A number that a merge method takes: an option of `merge`, a key of its YAML file and of merge.json.

    `--help` prints `help` after the method's name. The value may be `minimum` and `maximum`, but must be
    greater than `above`. Without a `default` the value is None if the user gives none.
    """

    name: str
    kind: type[int] | type[float]
    help: str
    default: float | None = None
    minimum: float | None = None
    above: float | None = None
    maximum: float | None = None

    def __post_init__(self) -> None:
        if self.name in TAKEN or not self.name.isidentifier():
            raise ValueError(f"a parameter cannot be called {self.name!r}")

    @property
    def option(self) -> str:
        """The option of the command line, e.g. `--rank`."""
        return "--" + self.name.replace("_", "-")

    @property
    def schema(self) -> dict[str, Any]:
        """The JSON Schema of the parameter."""
        schema: dict[str, Any] = {"type": "integer" if self.kind is int else "number"}
        bounds = {"minimum": self.minimum, "exclusiveMinimum": self.above, "maximum": self.maximum}
        schema.update((name, bound) for name, bound in bounds.items() if bound is not None)
        return schema

    def check(self, value: object, place: str) -> float:
        """Read a value of the command line (text) or of a YAML file; `RequestError` names its place."""
        number = value
        if isinstance(value, str):
            with contextlib.suppress(ValueError):
                number = self.kind(value)
        messages = [violation.message for violation in violations(self.schema, number, exact=True)]
        if messages:
            raise RequestError(f"{place}: {', '.join(messages)}")
        return self.kind(str(number))


@dataclass(frozen=True, slots=True)
class Method:
    """A merge method by the name of `--method`. `plugin` is its package, None for a method of Tuneyard.

    `rank` is the rank of the result: the "sum" of the adapters' ranks, their common rank if all must be
    "equal", or a function that chooses it from the parameters and the factors of every module. `exact_sum` is
    True for methods that approximate the weighted sum: `merge` reports their error against the sum. For any
    other method `merge` reports the rounding of the method's own result.
    """

    name: str
    rank: Rank
    function: Combine
    parameters: tuple[Parameter, ...] = ()
    exact_sum: bool = False
    plugin: Plugin | None = None

    def values(self, parameters: Mapping[str, object]) -> dict[str, float | None]:
        """Check parameters and add the defaults; `RequestError` for a parameter of another method."""
        declared = {parameter.name: parameter for parameter in self.parameters}
        for name in parameters:
            if name not in declared:
                owners = [method.name for method, _ in parameters_by_name()[name]]
                option = name.replace("_", "-")
                raise RequestError(
                    f"method {self.name}: --{option} belongs to --method {' or '.join(owners)}"
                )
        values: dict[str, float | None] = {}
        for name, parameter in declared.items():
            values[name] = parameter.default
            if name in parameters:
                values[name] = parameter.check(parameters[name], parameter.option)
        return values

    def choose_rank(self, values: Values, modules: "Iterable[WeightedFactors]") -> int:
        """Call the method's own `rank` function; `PluginError` of a plug-in."""
        if not callable(self.rank):
            raise TypeError(f"method {self.name} chooses no rank")
        if self.plugin is None:
            return self.rank(values, modules)
        with self.plugin.guarded():
            return int(self.rank(values, modules))

    def combine(self, factors: "WeightedFactors", rank: int, values: Values) -> "Pair":
        """Merge one module: A [≤ rank, inputs] and B [outputs, ≤ rank]; `PluginError` of a plug-in."""
        if self.plugin is None:
            return self.function(factors, rank, values)
        import numpy as np  # imported here, since `--help` lists the methods without it

        inputs, outputs = factors.pairs[0][0].shape[1], factors.pairs[0][1].shape[0]
        with self.plugin.guarded():
            a, b = self.function(factors, rank, values)
            if (a.shape[1:], b.shape[:1]) != ((inputs,), (outputs,)) or a.shape[0] != b.shape[-1]:
                shapes = f"A {list(a.shape)} and B {list(b.shape)}"
                raise ValueError(f"{shapes} are no factors of {outputs}×{inputs}")
            if a.shape[0] > rank:
                raise ValueError(f"rank {a.shape[0]} is above {rank}, the rank of the result")
            if not (np.isfinite(a).all() and np.isfinite(b).all()):
                raise ValueError("A or B contains NaN or infinity")
        return a, b


def method(
    name: str, *, rank: Rank, parameters: Iterable[Parameter] = (), exact_sum: bool = False
) -> Callable[[Combine], Method]:
    """Declare a function as the merge method `name`; the fields are those of `Method`."""
    return lambda function: Method(name, rank, function, tuple(parameters), exact_sum)


@functools.cache
def methods() -> dict[str, Method]:
    """Every method by name. A plug-in that cannot be used is left out with a warning."""
    return registry(GROUP, __name__, Method, "method")


def find_method(name: str) -> Method:
    """Look a method up; `RequestError` lists the existing methods."""
    if name not in methods():
        raise RequestError(f"--method {name!r} is not one of {', '.join(methods())}")
    return methods()[name]


def parameters_by_name() -> dict[str, list[tuple[Method, Parameter]]]:
    """The methods that declare each parameter. Several may declare the same name."""
    declared: dict[str, list[tuple[Method, Parameter]]] = {}
    for each in methods().values():
        for parameter in each.parameters:
            declared.setdefault(parameter.name, []).append((each, parameter))
    return declared
