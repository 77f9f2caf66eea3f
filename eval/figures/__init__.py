"""How answers are read and measured. A metric of examples is one file here, found by existing, or an entry
point `tuneyard.metrics`: one function with `@metric` that gives the value of one prediction.

Its mean appears in results.json, and from there in compare's and report's tables, `eval.sweep --metric` and
`recipes best --results … --metric`, without a change to any of them (docs/extending.md).
"""

import functools
import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Literal

from tuneyard.core.errors import RequestError
from tuneyard.core.language.message import _
from tuneyard.core.language.messages import warn
from tuneyard.core.plugins import Plugin, PluginError, guarded, registry
from tuneyard.core.training.metrics import METRICS, SHARE, Metric
from tuneyard.eval.figures.answers import is_answered
from tuneyard.eval.statistics.rates import Rows, groups_of, metric_mean

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

    def values(self, rows: Rows) -> list[float]:
        """Calculate the value of each row. `PluginError` if a plug-in raises or gives no number."""
        values = []
        with guarded(self.plugin):
            for row in rows:
                value = float(self.function(MappingProxyType(row)))  # others are given the row, too
                if not math.isfinite(value):
                    raise ValueError(
                        _("{name}: found {value}, expected a finite number", name=self.name, value=value)
                    )
                if self.meaning.unit == SHARE and not 0 <= value <= 1:
                    raise ValueError(
                        _(
                            "{name}: found {value}, expected a share from 0 to 1",
                            name=self.name,
                            value=value,
                        )
                    )
                values.append(value)
        return values

    def of(self, rows: Rows) -> dict[str, object] | None:
        """Mean over the rows that have its fields, with `stderr`, `n` and `ci95`; None if no row has them.

        A single cluster gives no interval, except of a share. Rows with a `cluster` are not independent.
        """
        rows_with_fields = [row for row in rows if is_measurable(row, self.needs)]
        if not rows_with_fields:
            return None
        groups = groups_of(rows_with_fields)
        values = self.values(rows_with_fields)
        figure = metric_mean(self.meaning, values, groups, [1] * len(values)).as_json()
        return {**figure, "unit": self.meaning.unit, "higher_is_better": self.meaning.higher}


def is_measurable(row: Mapping[str, Any], needs: Sequence[str]) -> bool:
    """True if a prediction has the fields that a metric needs. One without an answer has none."""
    return is_answered(row) and all(row.get(name) is not None for name in needs)


def metric(
    name: str, *, unit: str, higher: bool, needs: Sequence[str]
) -> Callable[[Function], ExampleMetric]:
    """Declare a function of one prediction (a line of predictions.jsonl) as the metric `name`. A unit "share"
    is 0 to 1; `higher`: more is better; rows without the fields in `needs` are left out."""
    if isinstance(needs, str):
        raise TypeError(_("needs: found the text {needs!r}, expected a list of fields", needs=needs))
    if not re.fullmatch(r"[\w.@%+-]+", name):
        raise ValueError(_("found the name {name!r}, expected letters, digits, _ . @ % + -", name=name))
    return lambda function: ExampleMetric(name, Metric(unit, higher, name), tuple(needs), function)


@functools.cache
def metrics() -> dict[str, ExampleMetric]:
    """Every metric of examples by name. `PluginError` for a plug-in that is broken."""
    return registry(GROUP, __name__, ExampleMetric, _("function with @metric"), METRICS)


def check_metric(name: str) -> None:
    """Raise `RequestError` with the metrics that exist if a metric is not one of them."""
    if name not in metrics():
        names = ", ".join(["accuracy", *metrics()])
        raise RequestError(_("--metric {name!r} is not one of {names}", name=name, names=names))


def measure(rows: Rows) -> dict[str, dict[str, object]]:
    """Calculate every metric whose fields the rows have. A failing metric is left out with a warning."""
    figures = {}
    for each in metrics().values():
        try:
            figure = each.of(rows)
        except PluginError as error:
            warn(_("{error}; the metric is left out", error=error))
            continue
        if figure:
            figures[each.name] = figure
    return figures
