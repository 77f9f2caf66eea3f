"""How answers are read and measured. A metric of examples is one file here, found by existing, or an entry
point `tuneyard.metrics`: one function with `@metric` that gives the value of one prediction.

Its mean appears in results.json, and from there in compare's and report's tables, `eval.sweep --metric` and
`recipes best --results … --metric`, without a change to any of them (docs/extending.md).
"""

import contextlib
import functools
import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from types import MappingProxyType
from typing import Any, Literal

from tuneyard.core.errors import RequestError
from tuneyard.core.metrics import METRICS, Metric
from tuneyard.core.plugins import Plugin, PluginError, registry, warn
from tuneyard.eval.statistics.rates import Rows, groups_of, mean_of, rate_of

Function = Callable[[Mapping[str, Any]], float]
GROUP: Literal["tuneyard.metrics"] = "tuneyard.metrics"


@dataclass(frozen=True, slots=True)
class ExampleMetric:
    """A metric by name: unit and direction, the fields of a prediction that it needs, its function, and the
    plug-in that it came from, if any."""

    name: str
    meaning: Metric
    needs: tuple[str, ...]
    function: Function
    plugin: Plugin | None = None

    def held(self, row: Mapping[str, object]) -> bool:
        """Return whether a row has every field that is needed."""
        return all(row.get(name) is not None for name in self.needs)

    def values(self, rows: Rows) -> list[float]:
        """Return the value of each row; `PluginError` for a plug-in that raises or gives no number."""
        with self.plugin.guarded() if self.plugin else contextlib.nullcontext():
            return [self._value(row) for row in rows]

    def _value(self, row: Mapping[str, object]) -> float:
        value = float(self.function(MappingProxyType(row)))  # which others are given, too: not to be changed
        if not math.isfinite(value) or (self.meaning.unit == "share" and not 0 <= value <= 1):
            raise ValueError(f"{self.name}: found {value}, expected a {self.meaning.unit}")
        return value

    def of(self, rows: Rows) -> dict[str, object] | None:
        """Return the mean over the rows that hold what it needs with `stderr`, `n` and `ci95`, None where no
        row does. Limits are Wilson's for a share, else normal (None of a single cluster); both by cluster
        where rows have one."""
        own = [row for row in rows if "refused" not in row and self.held(row)]
        if not own:
            return None
        values, groups = self.values(own), groups_of(own)
        found = (rate_of if self.meaning.unit == "share" else mean_of)(values, groups)
        told = {**asdict(found), "ci95": list(found.ci95)}
        if self.meaning.unit != "share" and len(set(groups or range(len(own)))) < 2:
            told |= {"stderr": None, "ci95": None}
        return {**told, "unit": self.meaning.unit, "higher_is_better": self.meaning.higher}


def metric(
    name: str, *, unit: str, higher: bool, needs: Sequence[str]
) -> Callable[[Function], ExampleMetric]:
    """Declare a function of one prediction (a line of predictions.jsonl) as the metric `name`. A unit "share"
    is 0 to 1; `higher`: more is better; rows without the fields in `needs` are left out."""
    if isinstance(needs, str):
        raise TypeError(f"needs: found the text {needs!r}, expected a list of fields")
    if not re.fullmatch(r"[\w.@%+-]+", name):
        raise ValueError(f"found the name {name!r}, expected letters, digits, _ . @ % + -")
    return lambda function: ExampleMetric(name, Metric(unit, higher), tuple(needs), function)


@functools.cache
def metrics() -> dict[str, ExampleMetric]:
    """Return every metric of examples by name; a plug-in that cannot be used is left out with a warning."""
    return registry(GROUP, __name__, ExampleMetric, "metric", METRICS)


def find_metric(name: str) -> ExampleMetric:
    """Return a metric by its name; `RequestError` names those that are there."""
    if name not in metrics():
        raise RequestError(f"--metric {name!r} is not one of {', '.join(['accuracy', *metrics()])}")
    return metrics()[name]


def measure(rows: Rows) -> dict[str, dict[str, object]]:
    """Return every metric that the rows hold the fields of; one that fails is left out with a warning."""
    found = {}
    for each in metrics().values():
        try:
            figure = each.of(rows)
        except PluginError as error:
            warn(f"{error}; the metric is left out")
            continue
        if figure:
            found[each.name] = figure
    return found
