"""Figures of scored rows by name: built-in ones and plug-ins in one registry.

A figure is an entry of a file here, found by existing, or an entry point `tuneyard.metrics`: a function with
`@metric` gives the value of one prediction, one with `@metric_over_rows` the values of all rows together.
Scoring commands, results.json, `eval compare`, `eval sweep` and `recipe best` take figures from here alone
(docs/extending.md).
"""

import functools
import math
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Literal

from tuneyard.core.errors import RequestError, unexpected
from tuneyard.core.execution.state import FileInput, Input
from tuneyard.core.language.message import _
from tuneyard.core.plugins import Plugin, PluginError, guarded, registry
from tuneyard.core.records.run_record import Settings
from tuneyard.core.training.metrics import METRICS, SHARE, UNKNOWN, Metric, metric_of
from tuneyard.eval.statistics.rates import (
    Mean,
    Row,
    Rows,
    groups_of,
    is_answered,
    metric_mean,
)

Values = Sequence[float | None]
"""A value for each row, None if the row cannot be measured. Their mean is the figure."""
OfRow = Callable[[Row], float]
OfRows = Callable[..., Values]
"""Takes rows, and the settings that the figure names in `options` as keywords."""
OfAll = Callable[..., Mean]
"""Takes the same as `OfRows`. The result is the figure with its interval."""
GROUP: Literal["tuneyard.metrics"] = "tuneyard.metrics"
LARGEST = 1e100  # squares of more are beyond what a float holds
NO_SETTINGS: Settings = MappingProxyType({})


@dataclass(frozen=True, slots=True)
class Figure:
    """A figure by name, and how it is measured."""

    name: str
    meaning: Metric
    needs: tuple[str, ...]
    """Fields of a row. A row without one of them does not count."""
    of_rows: OfRows
    of_all: OfAll | None = None
    """The figure with the interval that results.json has, if that is not the one of a mean of its unit."""
    weight: str = ""
    """Field with the weight of a row in the mean, such as the number of its tokens. "": all count alike."""
    options: tuple[str, ...] = ()
    """Settings of a run that decide the values, such as `tokenizer`."""
    by_command: bool = False
    """True if commands measure it and write it themselves. All others are in `metrics` of results.json."""
    beside_accuracy: bool = True
    """False if it follows from the same correct answers: compare does not show it beside accuracy."""
    plugin: Plugin | None = None

    def values(self, rows: Rows, settings: Settings = NO_SETTINGS) -> Values:
        """The value of each row. `PluginError` if a plug-in raises or gives no number."""
        with guarded(self.plugin):
            return self.of_rows(rows, **self._chosen(settings))

    def mean(self, rows: Rows, settings: Settings = NO_SETTINGS) -> Mean:
        """The figure over rows that have its fields, with its interval.

        Rows with a `cluster` are not independent. A single cluster gives no interval, except of a share.
        """
        if self.of_all is not None:
            return self.of_all(rows, **self._chosen(settings))
        values, measured = [], []
        for row, value in zip(rows, self.values(rows, settings), strict=True):
            if value is not None:
                values.append(float(value))
                measured.append(row)
        return metric_mean(self.meaning, values, groups_of(measured), [1] * len(values))

    def as_json(self, rows: Rows) -> dict[str, object] | None:
        """The figure in `metrics` of results.json, over rows that can be measured. None without such rows."""
        measurable = [row for row in rows if is_measurable(row, self.needs)]
        if not measurable:
            return None
        figure = self.mean(measurable).as_json()
        return {**figure, "unit": self.meaning.unit, "higher_is_better": self.meaning.higher}

    def _chosen(self, settings: Settings) -> dict[str, Any]:
        return {name: settings[name] for name in self.options if name in settings}


def is_measurable(row: Row, needs: Sequence[str]) -> bool:
    """True if a prediction has the fields that a figure needs. One without an answer has none."""
    return is_answered(row) and all(row.get(name) is not None for name in needs)


def number_in(row: Row, name: str) -> float:
    """A number (a truth value is 0 or 1); `ContentError` with its place for anything else."""
    value = row[name]
    if not isinstance(value, int | float) or not abs(value) < LARGEST:
        raise unexpected(row["place"], name, value, _("a number below 1e100"))
    return float(value)


def metric(
    name: str,
    *,
    needs: Sequence[str],
    unit: str = "",
    higher: bool | None = None,
    by_command: bool = False,
    beside_accuracy: bool = True,
) -> Callable[[OfRow], Figure]:
    """Declare a function of one prediction (a line of predictions.jsonl) as the figure `name`.

    A unit "share" is 0 to 1; `higher`: more is better. Both are left out if core/training/metrics.py has the
    name. `needs` are fields: rows without them are left out. For the others see `Figure`.
    """
    meaning = _meaning(name, unit, higher)

    def declare(function: OfRow) -> Figure:
        return Figure(
            name,
            meaning,
            _fields(needs),
            functools.partial(_value_of_each, function, meaning),
            by_command=by_command,
            beside_accuracy=beside_accuracy,
        )

    return declare


def metric_over_rows(
    name: str,
    *,
    needs: Sequence[str],
    unit: str = "",
    higher: bool | None = None,
    of_all: OfAll | None = None,
    weight: str = "",
    options: Sequence[str] = (),
    by_command: bool = False,
    beside_accuracy: bool = True,
) -> Callable[[OfRows], Figure]:
    """Declare a function of all rows together as the figure `name`, such as ROUGE, BLEU or an AUC.

    It gives each row's value. Of a figure that is no mean of examples this is the row's contribution: the
    mean of the contributions is the figure, and their spread gives its error. For the arguments see `metric`
    and `Figure`.
    """
    meaning = _meaning(name, unit, higher)

    def declare(function: OfRows) -> Figure:
        return Figure(
            name,
            meaning,
            _fields(needs),
            function,
            of_all,
            weight,
            tuple(options),
            by_command=by_command,
            beside_accuracy=beside_accuracy,
        )

    return declare


def _meaning(name: str, unit: str, higher: bool | None) -> Metric:
    """The meaning of a figure, by its name if it does not state a unit."""
    if not re.fullmatch(r"[\w.@%+-]+", name):
        raise ValueError(_("found the name {name!r}, expected letters, digits, _ . @ % + -", name=name))
    if unit and higher is not None:
        return Metric(unit, higher, name)
    if name in METRICS:
        return METRICS[name]
    meaning = metric_of(name)
    if meaning == UNKNOWN:
        raise TypeError(_("{name}: expected `unit` and `higher`", name=name))
    return meaning


def _fields(needs: Sequence[str]) -> tuple[str, ...]:
    if isinstance(needs, str):
        raise TypeError(_("needs: found the text {needs!r}, expected a list of fields", needs=needs))
    return tuple(needs)


def _value_of_each(function: OfRow, meaning: Metric, rows: Rows) -> list[float]:
    """The value of each row. `ValueError` for one that is not a finite number, or not a share."""
    values = []
    for row in rows:
        value = float(function(MappingProxyType(row)))  # others are given the row, too
        if not math.isfinite(value):
            raise ValueError(
                _("{name}: found {value}, expected a finite number", name=meaning.name, value=value)
            )
        if meaning.unit == SHARE and not 0 <= value <= 1:
            raise ValueError(
                _("{name}: found {value}, expected a share from 0 to 1", name=meaning.name, value=value)
            )
        values.append(value)
    return values


@functools.cache
def metrics() -> dict[str, Figure]:
    """Every figure by name. `PluginError` for a plug-in that is broken."""
    return registry(GROUP, __name__, Figure, _("function with @metric"), METRICS)


def plugin_inputs() -> dict[str, Input]:
    """The code of each plug-in that measures rows, which results depend on, for their record."""
    inputs: dict[str, Input] = {}
    for name, figure in metrics().items():
        if figure.plugin is not None:
            code = figure.plugin.identity()["sha256"]
            inputs[_("metric {name}", name=name)] = FileInput(sha256=code)
    return inputs


def check_metric(name: str) -> None:
    """Raise `RequestError` with the metrics that exist if a metric is not one of them."""
    names = ["accuracy", *(figure.name for figure in metrics().values() if not figure.by_command)]
    if name not in names:
        raise RequestError(_("--metric {name!r} is not one of {names}", name=name, names=", ".join(names)))


def measure(rows: Rows) -> tuple[dict[str, dict[str, object]], list[PluginError]]:
    """The `metrics` of results.json: every figure whose fields the rows have, but those of commands.

    Also the errors of figures that failed.
    """
    figures = {}
    errors = []
    for each in metrics().values():
        if each.by_command:
            continue
        try:
            figure = each.as_json(rows)
        except PluginError as error:
            errors.append(error)
            continue
        if figure:
            figures[each.name] = figure
    return figures, errors
