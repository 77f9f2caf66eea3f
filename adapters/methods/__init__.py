"""Merge methods: one function with `@method` in a file here, or at an entry point `tuneyard.merge_methods`.

The function gets one module's factors and weights, the rank of the result and the method's parameters, and
returns the merged (A, B). A function with `@matrix_method` returns the merged ΔW itself. The options of
`merge`, the keys of its YAML file and of merge.json, and the checks of their values come from the parameters
that a method declares.
"""

import contextlib
import functools
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from tuneyard.core.documents.schema_errors import violations
from tuneyard.core.errors import RequestError
from tuneyard.core.language.message import _, joined, relative
from tuneyard.core.plugins import Plugin, registry

if TYPE_CHECKING:
    from tuneyard.adapters.model.lowrank import Delta, Pair, WeightedFactors

Values = Mapping[str, float | None]
"""The parameters of a method by name; None for a parameter without value and default."""
Combine = Callable[["WeightedFactors", int, Values], "Pair"]
CombineMatrix = Callable[["WeightedFactors", Values], "Delta"]
ChooseRank = Callable[[Values, "Iterable[WeightedFactors]"], int]
Rank = Literal["sum", "equal", "parameter"] | ChooseRank
GROUP: Literal["tuneyard.merge_methods"] = "tuneyard.merge_methods"
TAKEN = {
    "adapters", "base", "dry_run", "dtype", "force", "help", "method", "out", "same_base",
}  # fmt: skip
"""Options and keys of `merge` itself. A parameter must have another name."""


@dataclass(frozen=True, slots=True)
class Parameter:
    """A number that a merge method takes: an option of `merge`, a key of its YAML file and of merge.json.

    `--help` prints `help` after the method's name. The value may be `minimum` and `maximum`, but must be
    greater than `above`. Without a `default` the value is None if the user gives none. A `required` parameter
    has no default.
    """

    name: str
    kind: type[int] | type[float]
    help: str
    default: float | None = None
    minimum: float | None = None
    above: float | None = None
    maximum: float | None = None
    required: bool = False

    def __post_init__(self) -> None:
        if self.name in TAKEN or not self.name.isidentifier():
            raise ValueError(_("a parameter cannot be called {name!r}", name=self.name))

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
            raise RequestError(_("{place}: {problems}", place=relative(place), problems=joined(messages)))
        return self.kind(str(number))


@dataclass(frozen=True, slots=True)
class Method:
    """A merge method by the name of `--method`. `plugin` is its package, None for a method of Tuneyard.

    `rank` is the rank of the result: the "sum" of the adapters' ranks, their common rank if all must be
    "equal", the "parameter" of that name (without a value the sum), or a function that chooses it from the
    parameters and the factors of every module. `exact_sum` is True for methods that approximate the weighted
    sum: `merge` reports their error against the sum. For any other method `merge` reports the error of the
    file against the method's own result.

    A method has a `function`, which returns A and B, or a `matrix`, which returns ΔW [outputs, inputs].
    `merge` writes the nearest product of the result's rank. `adapters` are the smallest and the largest
    number of adapters. `min_weight` is the smallest weight, None if any will do. `signs` is False if a
    negative weight adds ΔW, since A and B both get its sign. `full_tensors` is False if the method has no
    meaning for tensors that are saved in full.
    """

    name: str
    rank: Rank
    function: Combine | None = None
    matrix: CombineMatrix | None = None
    parameters: tuple[Parameter, ...] = ()
    exact_sum: bool = False
    adapters: tuple[int, int | None] = (1, None)
    min_weight: float | None = None
    signs: bool = True
    full_tensors: bool = True
    plugin: Plugin | None = None

    def values(self, parameters: Mapping[str, object]) -> dict[str, float | None]:
        """Check parameters and add the defaults; `RequestError` for a parameter of another method."""
        declared = {parameter.name: parameter for parameter in self.parameters}
        for name in parameters:
            if name not in declared:
                owners = [method.name for method, _unused in parameters_by_name()[name]]
                option = name.replace("_", "-")
                raise RequestError(
                    _(
                        "method {name}: --{option} belongs to --method {owners}",
                        name=self.name,
                        option=option,
                        owners=joined(owners, _(" or ")),
                    )
                )
        values: dict[str, float | None] = {}
        for name, parameter in declared.items():
            values[name] = parameter.default
            if name in parameters:
                values[name] = parameter.check(parameters[name], parameter.option)
            elif parameter.required:
                raise RequestError(
                    _(
                        "method {method}: no {option}: {explanation}",
                        method=self.name,
                        option=parameter.option,
                        explanation=parameter.help,
                    )
                )
        return values

    def check_weights(self, weights: Sequence[float], names: Sequence[str]) -> None:
        """`RequestError` if the method does not take so many adapters, or one of their weights.

        `weights` are all weights other than 0, `names` the names of their adapters.
        """
        least, most = self.adapters
        if len(names) < least or (most is not None and len(names) > most):
            expected = str(least)
            if most != least:
                expected = _("{number} or more", number=least)
            raise RequestError(
                _(
                    "method {method}: adapters with a weight other than 0: {number} ({names}), "
                    "expected {expected}; --method exact takes any number",
                    method=self.name,
                    number=len(names),
                    names=joined(names),
                    expected=expected,
                )
            )
        for weight in weights:
            if self.min_weight is not None and weight < self.min_weight:
                raise RequestError(
                    _(
                        "method {method}: weight {weight:g}: expected {least:g} or more; --method "
                        "exact takes any weight",
                        method=self.name,
                        weight=weight,
                        least=self.min_weight,
                    )
                )

    def choose_rank(self, values: Values, modules: "Iterable[WeightedFactors]") -> int:
        """Call the method's own `rank` function; `PluginError` of a plug-in."""
        if not callable(self.rank):
            raise TypeError(_("method {name} chooses no rank", name=self.name))
        if self.plugin is None:
            return self.rank(values, modules)
        with self.plugin.guarded():
            return int(self.rank(values, modules))

    def combine(self, factors: "WeightedFactors", rank: int, values: Values) -> "Pair":
        """Merge one module: A [≤ rank, inputs] and B [outputs, ≤ rank]; `PluginError` of a plug-in."""
        if self.function is None:
            raise TypeError(_("method {name} returns no factors", name=self.name))
        if self.plugin is None:
            return self.function(factors, rank, values)
        import numpy as np  # imported here, since `--help` lists the methods without it

        outputs, inputs = factors.shape
        with self.plugin.guarded():
            a, b = self.function(factors, rank, values)
            if (a.shape[1:], b.shape[:1]) != ((inputs,), (outputs,)) or a.shape[0] != b.shape[-1]:
                shapes = _("A {shape} and B {other}", shape=list(a.shape), other=list(b.shape))
                raise ValueError(
                    _(
                        "{shapes} are no factors of {outputs}×{inputs}",
                        shapes=shapes,
                        outputs=outputs,
                        inputs=inputs,
                    )
                )
            if a.shape[0] > rank:
                raise ValueError(
                    _("rank {shape} is above {rank}, the rank of the result", shape=a.shape[0], rank=rank)
                )
            if not (np.isfinite(a).all() and np.isfinite(b).all()):
                raise ValueError(_("A or B contains NaN or infinity"))
        return a, b

    def combine_matrix(self, factors: "WeightedFactors", values: Values) -> "Delta":
        """The merged ΔW [outputs, inputs] of one module; `PluginError` of a plug-in."""
        if self.matrix is None:
            raise TypeError(_("method {name} returns no matrix", name=self.name))
        if self.plugin is None:
            return self.matrix(factors, values)
        import numpy as np

        with self.plugin.guarded():
            merged = self.matrix(factors, values)
            if merged.shape != factors.shape:
                raise ValueError(
                    _(
                        "ΔW {shape} is no matrix of {expected}",
                        shape=list(merged.shape),
                        expected=list(factors.shape),
                    )
                )
            if not np.isfinite(merged).all():
                raise ValueError(_("ΔW contains NaN or infinity"))
        return merged


def method(
    name: str, *, rank: Rank, parameters: Iterable[Parameter] = (), **fields: Any
) -> Callable[[Combine], Method]:
    """Declare a function as the merge method `name`; the fields are those of `Method`."""
    return lambda function: Method(name, rank, function, parameters=tuple(parameters), **fields)


RANK = Parameter("rank", int, "rank of the result.  [default: the sum of the ranks]", minimum=1)


def matrix_method(
    name: str, *, parameters: Iterable[Parameter] = (), **fields: Any
) -> Callable[[CombineMatrix], Method]:
    """Declare a function that returns ΔW as the merge method `name`. It gets the parameter `rank`."""
    declared = (RANK, *parameters)
    return lambda function: Method(name, "parameter", matrix=function, parameters=declared, **fields)


@functools.cache
def methods() -> dict[str, Method]:
    """Every method by name. A plug-in that cannot be used is left out with a warning."""
    return registry(GROUP, __name__, Method, "function with @method")


def find_method(name: str) -> Method:
    """Look a method up; `RequestError` lists the existing methods."""
    if name not in methods():
        raise RequestError(
            _("--method {name!r} is not one of {methods}", name=name, methods=joined(methods()))
        )
    return methods()[name]


def parameters_by_name() -> dict[str, list[tuple[Method, Parameter]]]:
    """The methods that declare each parameter. Several may declare the same name."""
    declared: dict[str, list[tuple[Method, Parameter]]] = {}
    for each in methods().values():
        for parameter in each.parameters:
            declared.setdefault(parameter.name, []).append((each, parameter))
    return declared
