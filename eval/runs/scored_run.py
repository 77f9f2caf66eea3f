"""One model's answers to one dataset, row by row: a table of columns that every reader of results makes.

The values of its rows are those of built-in metrics, of plug-ins, and of any field with numbers.
"""

import json
import math
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import compress, pairwise
from pathlib import Path
from statistics import fmean
from typing import Any, NamedTuple, cast

from tuneyard.core.datasets.labels import labels_of
from tuneyard.core.errors import ContentError, unexpected
from tuneyard.core.files import check_characters
from tuneyard.core.language.message import _
from tuneyard.core.records.results_record import ResultFacts
from tuneyard.core.records.run_record import Settings
from tuneyard.core.training.metrics import METRICS, Metric, declared_metric, metric_of
from tuneyard.eval.figures import Values, is_measurable, metrics, number_in
from tuneyard.eval.statistics.rates import Rows, group_of, is_answered

IDS = ("row", "id", "doc_id")
KINDS = ("type", "subtype")
OF_ANSWERS = ("accuracy", "macro_f1")
"""The metrics that are computed from expected and predicted answers."""
COLUMNS = ("rows", "gold", "predicted", "correct", "groups", "confidence", "records")
QUESTIONS = ("instruction", "prompt", "question", "user")
OUTPUTS = ("model_output", "output")
"""Names of the fields that have the prompt and the answer as the model gave it, for readers of the report."""
MERGE_PART = re.compile(r"(?P<adapter>[^=,]+)=(?P<weight>-?\d+(?:\.\d+)?)")
"""An adapter and its weight in the name of a merge, e.g. `rte=0.5,mnli=0.5`."""
FIGURES = ("accuracy", "n", "majority", "majority_label", "metrics")  # of the whole dataset, not of its half
Record = Mapping[str, Any]
"""A row as its file or the reader of its format has it, with `place` (file and line)."""


class RunFacts(ResultFacts, total=False):
    """What is known of a scored run: the keys of its results.json, or the `log` of another tool."""

    model: str
    mode: str
    log: str


class Row(NamedTuple):
    """A scored row: its id, its answers, the confidence of the chosen label if it has one, its record."""

    id: str
    gold: str
    prediction: str
    correct: bool
    confidence: float | None
    record: Record


@dataclass(frozen=True, slots=True)
class ScoredRun:
    """One model's answers to one dataset, row by row, in the same order for all models of the dataset.

    `confidence` is the share (0-1) of the chosen label among the labels' probabilities. `records` have all
    fields of the rows. `facts` come from results.json, `metrics` are those of them that the rows have the
    fields for. `trainings` are the runs of a setting that was trained with several seeds; a row's value is
    then their mean, and all else is that of the first.
    """

    model: str
    dataset: str
    source: str
    rows: Sequence[str]
    gold: Sequence[str]
    predicted: Sequence[str]
    correct: Sequence[bool]
    groups: Sequence[str] | None = None
    confidence: Sequence[float] | None = None
    records: Sequence[Record] = ()
    facts: RunFacts = field(default_factory=lambda: RunFacts())
    metrics: Mapping[str, Metric] = field(default_factory=dict)
    trainings: Sequence["ScoredRun"] = ()

    @property
    def labels(self) -> list[str]:
        """The labels that it chooses from, [] if its answers are free text.

        Few expected answers of any length are labels if its command says so.
        """
        return labels_of(self.gold, declared="classes" in self.facts)

    def column(self, metric: str) -> Sequence[float | None]:
        """The value of each row in a metric. Accuracy and macro-F1 count correct rows.

        None for a row without an answer, or without the fields of the metric. `ContentError` if a
        value is not a number.
        """
        if self.trainings:
            columns = [run.column(metric) for run in self.trainings]
            return [_mean(values) for values in zip(*columns, strict=True)]
        if metric in OF_ANSWERS:
            return self.correct
        fields, function = measured_by(metric, self.records, self.facts.get("settings", {}))
        places = [place for place, record in enumerate(self.records) if is_measurable(record, fields)]
        values: list[float | None] = [None] * len(self.records)
        if places:
            measured = function([self.records[place] for place in places])
            for place, value in zip(places, measured, strict=True):
                values[place] = value
        return values

    def kinds(self, name: str) -> list[str]:
        """The field `name` of each row, e.g. `type`, "" without one. [] if no row has it.

        Rows with a subtype have their gold answer as type.
        """
        texts = [optional_text(record, name) for record in self.records]
        if name == "type" and any(record.get("subtype") is not None for record in self.records):
            texts = [gold if text is None else text for gold, text in zip(self.gold, texts, strict=True)]
        if all(text is None for text in texts):
            return []
        return [text or "" for text in texts]

    def only(self, keep: Sequence[bool]) -> "ScoredRun":
        """The run with some of its rows, and without the figures of all rows."""
        kept: dict[str, Any] = {}
        for name in COLUMNS:
            column = getattr(self, name)
            if column:
                kept[name] = list(compress(column, keep))
        facts = {name: value for name, value in self.facts.items() if name not in FIGURES}
        kept["facts"] = cast(RunFacts, facts)
        kept["trainings"] = [run.only(keep) for run in self.trainings]
        return replace(self, **kept)


def _mean(values: Sequence[float | None]) -> float | None:
    """The mean, None if a value is missing."""
    numbers = [float(value) for value in values if value is not None]
    if len(numbers) < len(values):
        return None
    return fmean(numbers)


RunsByModel = Mapping[str, ScoredRun]
"""Runs of one dataset by model."""
RunsByDataset = Mapping[str, RunsByModel]
"""Runs by dataset and model: what a comparison reads once and judges."""


def merge_weights(model: str) -> dict[str, str]:
    """Weights by adapter in the name of a merge, without those of weight 0. {} for any other name."""
    weights = {}
    for part in model.split(","):
        match = MERGE_PART.fullmatch(part)
        if match is None:
            return {}
        if float(match["weight"]) != 0:
            weights[match["adapter"]] = match["weight"]
    return weights


def model_name(folder: str) -> str:
    """The one name of a model in tables, plots, sentences and commands.

    >>> model_name("rte=1,mnli=0"), model_name("rte=0.5,mnli=0.50"), model_name("base")
    ('rte', 'rte=0.5,mnli=0.50', 'base')
    """
    weights = merge_weights(folder)
    parts = [f"{adapter}={weight}" for adapter, weight in weights.items()]
    if len(parts) == 1 and float(*weights.values()) == 1:
        return next(iter(weights))
    return ",".join(parts) or folder


def models_of(runs: RunsByDataset) -> list[str]:
    """The names of all models, in the order in which the datasets list them first."""
    models: dict[str, None] = {}
    for runs_of_dataset in runs.values():
        models.update(dict.fromkeys(runs_of_dataset))
    return list(models)


def text_field(record: Mapping[str, object], name: str, where: object) -> str:
    """A field that must be a text; `ContentError` with its place otherwise."""
    value = record.get(name)
    if not isinstance(value, str):
        raise unexpected(where, name, value, _("a text"))
    return value


def optional_text(record: Mapping[str, object], name: str) -> str | None:
    """A field as text (a number as its digits), None if it is missing or null.

    A list or an object is JSON text with sorted keys, so that equal ones are equal texts.
    1.0 is the text of 1: a table writes whole numbers as floats once a row of their column is empty.
    """
    value = record.get(name)
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    if value is None:
        return None
    if isinstance(value, list | dict):
        return json.dumps(value, ensure_ascii=False, sort_keys=True, default=str)
    return str(value)


def first_text(record: Mapping[str, object], names: Sequence[str]) -> str:
    """The first of the named fields that has a text, "" if none has."""
    for name in names:
        text = optional_text(record, name)
        if text:
            return text
    return ""


def confidence_of(logs: Sequence[float]) -> float | None:
    """Share (0-1) of the likeliest label, given every label's log-probability.

    None if even that one has no probability.
    """
    top = max(logs)
    if not math.isfinite(top):
        return None
    return 1 / math.fsum(math.exp(log - top) for log in logs)


def assemble(model: str, dataset: str, source: Path, rows: Iterable[Row], facts: RunFacts) -> ScoredRun:
    """The run of the rows in the order of their ids. `ContentError` for doubles or gaps."""
    ordered = sorted(rows, key=lambda row: (len(row.id), row.id))
    if not ordered:
        raise ContentError(
            _(
                "{path}: no rows in it; score {model} on {dataset} again",
                path=source,
                model=model,
                dataset=dataset,
            )
        )
    ids, gold, predicted, correct, confidence, records = map(list, zip(*ordered, strict=True))
    check_characters("".join([model, dataset, *gold, *predicted]), source)
    for one, other in pairwise(ordered):
        if one.id == other.id:
            raise ContentError(
                _(
                    "{place}: row {row} is already in {other}: keep one",
                    place=other.record["place"],
                    row=other.id,
                    other=one.record["place"],
                )
            )
    groups = [group for group in map(group_of, records) if group is not None]
    if groups and len(groups) < len(records):
        ungrouped = next(record for record in records if group_of(record) is None)
        raise ContentError(
            _(
                "{place}: no group, but {number} other rows have one",
                place=ungrouped["place"],
                number=len(groups),
            )
        )
    declared = facts.get("metrics", {})
    beside: dict[str, Metric] = {}
    for name in measurable(records):
        if name in metrics() and not metrics()[name].beside_accuracy:
            continue
        if name in declared:
            beside[name] = declared_metric(name, declared[name])
        elif name in METRICS and name in facts:
            beside[name] = metric_of(name)
    return ScoredRun(
        model,
        dataset,
        str(source),
        ids,
        gold,
        predicted,
        correct,
        groups=groups or None,
        confidence=None if None in confidence else confidence,
        records=records,
        facts=facts,
        metrics=beside,
    )


def measurable(records: Iterable[Mapping[str, object]]) -> list[str]:
    """The metrics beside accuracy that a run has the fields for, by its first scored row.

    A row without an answer has no fields of metrics.
    """
    record = next(filter(is_answered, records), {})
    names: dict[str, None] = {}
    for figure in metrics().values():
        if figure.beside_accuracy and is_measurable(record, figure.needs):
            names[figure.name] = None
    for name, value in record.items():
        if name not in (*IDS, "idx", "cluster") and isinstance(value, int | float):
            names[name] = None
    return list(names)


def has_metric(records: Rows, metric: str) -> bool:
    """True if a row has the fields of the metric."""
    fields, _function = measured_by(metric, records, {})
    return any(is_measurable(record, fields) for record in records)


def measured_by(
    metric: str, records: Rows, settings: Settings
) -> tuple[Sequence[str], Callable[[Rows], Values]]:
    """The fields that a metric is measured from, and the function that does it.

    A figure that the rows state, as other tools' rows do, is taken as it is. `settings` are those of the run.
    """
    figure = metrics().get(metric)
    is_stated = any(is_measurable(record, (metric,)) for record in records)
    if figure is None or is_stated:
        return (metric,), lambda rows: [number_in(row, metric) for row in rows]
    return figure.needs, partial(figure.values, settings=settings)


def question_of(record: Record) -> str:
    """The prompt of a row, and its separate input if there is one."""
    texts = (first_text(record, QUESTIONS), optional_text(record, "input"))
    return "\n".join(text for text in texts if text)
