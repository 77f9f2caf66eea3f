"""One model's answers to one dataset, row by row: a table of columns that every reader of results makes."""

import math
import re
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import compress, pairwise
from pathlib import Path
from statistics import fmean
from typing import Any

from tuneyard.core.errors import ContentError, unexpected
from tuneyard.core.files import check_characters
from tuneyard.eval.statistics.rates import group_of

KINDS = ("type", "subtype")
LOSS = "eval_loss"
OF_ANSWERS = ("accuracy", "macro_f1")
"""The metrics that are computed from expected and predicted answers."""
COLUMNS = ("rows", "gold", "predicted", "correct", "groups", "confidence", "tokens", "questions", "outputs")
QUESTIONS = ("instruction", "prompt", "question", "user")
OUTPUTS = ("model_output", "output", "prediction")
"""Names of the fields that have the prompt and the answer as the model gave it, for readers of the report."""
MERGE_PART = re.compile(r"(?P<adapter>[^=,]+)=(?P<weight>-?\d+(?:\.\d+)?)")
"""An adapter and its weight in the name of a merge, e.g. `rte=0.5,mnli=0.5`."""
FIGURES = ("accuracy", "n", "majority", "majority_label", "metrics")  # of the whole dataset, not of its half
Row = Mapping[str, Any]
"""A scored row by the names of columns: `id`, `gold`, `prediction`, `correct`, `place` (its file and line).
Optional are `cluster` or `group`, `confidence` (of the chosen label), and fields that group the rows."""
Values = Mapping[str, Sequence[float | None]]


@dataclass(frozen=True, slots=True)
class ScoredRun:
    """One model's answers to one dataset, row by row, in the same order for all models of the dataset.

    `kinds` are fields that group the rows, e.g. `type`. `confidence` is the share (0-1) of the chosen label
    among the labels' probabilities. `facts` come from results.json. `values` are figures of each row by
    metric, None without a figure, `tokens` the weights of a loss. `questions` and `outputs` are the prompts
    and the raw answers. `trainings` are the runs of a setting that was trained with several seeds; a row's
    value is then their mean, and all else is that of the first.
    """

    model: str
    dataset: str
    source: str
    rows: Sequence[str]
    gold: Sequence[str]
    predicted: Sequence[str]
    correct: Sequence[bool]
    groups: Sequence[str] | None = None
    kinds: Mapping[str, Sequence[str]] = field(default_factory=dict)
    confidence: Sequence[float] | None = None
    facts: Mapping[str, object] = field(default_factory=dict)
    values: Values = field(default_factory=dict)
    tokens: Sequence[float] = ()
    questions: Sequence[str] = ()
    outputs: Sequence[str] = ()
    trainings: Sequence["ScoredRun"] = ()

    def column(self, metric: str) -> Sequence[float | None]:
        """The value of each row in a metric, None without one. Accuracy and macro-F1 count correct rows."""
        if self.trainings:
            columns = [run.column(metric) for run in self.trainings]
            return [_mean(values) for values in zip(*columns, strict=True)]
        if metric in OF_ANSWERS:
            return self.correct
        return self.values[metric]

    def only(self, keep: Sequence[bool]) -> "ScoredRun":
        """The run with some of its rows, and without the figures of all rows."""
        kept: dict[str, Any] = {}
        for name in COLUMNS:
            column = getattr(self, name)
            if column:
                kept[name] = list(compress(column, keep))
        kept["kinds"] = {name: list(compress(column, keep)) for name, column in self.kinds.items()}
        kept["values"] = {name: list(compress(column, keep)) for name, column in self.values.items()}
        kept["facts"] = {name: value for name, value in self.facts.items() if name not in FIGURES}
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


def by_dataset(runs: Iterable[ScoredRun]) -> dict[str, dict[str, ScoredRun]]:
    """Runs by dataset and model, in their order."""
    grouped: dict[str, dict[str, ScoredRun]] = {}
    for run in runs:
        grouped.setdefault(run.dataset, {})[run.model] = run
    return grouped


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
        raise unexpected(where, name, value, "a text")
    return value


def optional_text(record: Mapping[str, object], name: str) -> str | None:
    """A field as text (a number as its digits), None if it is missing or null.

    1.0 is the text of 1: a table writes whole numbers as floats once a row of their column is empty.
    """
    value = record.get(name)
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    if value is None:
        return None
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


def assemble(
    model: str,
    dataset: str,
    source: Path,
    rows: Sequence[Row],
    facts: Mapping[str, object],
    values: Values,
    by: str = "",
) -> ScoredRun:
    """The run of the rows in the order of their ids, with `values` by metric, grouped by `KINDS` and `by`.

    `ContentError` for doubles or gaps.
    """
    if not rows:
        raise ContentError(f"{source}: no rows in it; score {model} on {dataset} again")
    order = sorted(range(len(rows)), key=lambda place: (len(rows[place]["id"]), rows[place]["id"]))
    ordered = [rows[place] for place in order]
    gold = [row["gold"] for row in ordered]
    predicted = [row["prediction"] for row in ordered]
    check_characters("".join([model, dataset, *gold, *predicted]), source)
    for one, other in pairwise(ordered):
        if one["id"] == other["id"]:
            raise ContentError(f"{other['place']}: row {other['id']} is already in {one['place']}")
    groups = [group for group in map(group_of, ordered) if group is not None]
    if groups and len(groups) < len(ordered):
        ungrouped = next(row for row in ordered if group_of(row) is None)
        raise ContentError(f"{ungrouped['place']}: no group, but {len(groups)} other rows have one")
    confidence: list[Any] = [row.get("confidence") for row in ordered]
    if None in confidence:
        confidence = []
    by_metric = {name: [column[place] for place in order] for name, column in values.items()}
    tokens: list[float] = []
    if LOSS in by_metric:
        for row, loss in zip(ordered, by_metric[LOSS], strict=True):
            tokens.append(0.0 if loss is None else float(row["tokens"]))
    return ScoredRun(
        model,
        dataset,
        str(source),
        rows=[row["id"] for row in ordered],
        gold=gold,
        predicted=predicted,
        correct=[row["correct"] for row in ordered],
        groups=groups or None,
        kinds=_kinds(ordered, by),
        confidence=confidence or None,
        facts=facts,
        values=by_metric,
        tokens=tokens,
        questions=[_question(row) for row in ordered],
        outputs=[first_text(row, OUTPUTS) for row in ordered],
    )


def _kinds(rows: Sequence[Row], by: str) -> dict[str, list[str]]:
    """The values of `KINDS` and of the field `by` in each row, without those that no row has.

    Rows with a subtype have their gold answer as type. If no row has `by`, a message will name all fields.
    """
    kinds = {}
    names = {*KINDS, by} - {""}
    if by and all(row.get(by) is None for row in rows):
        names |= {*rows[0]}
    for name in sorted(names):
        texts = [optional_text(row, name) for row in rows]
        if name == "type" and any(row.get("subtype") is not None for row in rows):
            texts = [row["gold"] if text is None else text for row, text in zip(rows, texts, strict=True)]
        if any(text is not None for text in texts):
            kinds[name] = [text or "" for text in texts]
    return kinds


def _question(row: Row) -> str:
    """The prompt of a row, and its separate input if there is one. Models share one text in memory."""
    texts = (first_text(row, QUESTIONS), optional_text(row, "input"))
    return sys.intern("\n".join(text for text in texts if text))
