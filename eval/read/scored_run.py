"""One model's answers to one dataset, row by row: the record that every reader of results makes."""

import math
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import compress, pairwise
from pathlib import Path
from typing import Any

from tuneyard.core.errors import ContentError, show_value

KINDS = ("type", "subtype")
LOSS = "eval_loss"
COLUMNS = (
    "rows", "gold", "predicted", "correct", "groups", "confidence", "log_probabilities", "tokens"
)  # fmt: skip
FIGURES = ("accuracy", "n", "majority", "majority_label", "metrics")  # of the whole dataset, not of its half


@dataclass(frozen=True, slots=True)
class ScoredExample:
    """One scored row. `row` pairs it with other models' rows, `place` is its file and line.

    `log_probabilities` (nats) are by label, `confidence` is the share (0-1) of the chosen label. `values`
    are figures by metric, None without a figure. `tokens` is the weight of its loss.
    """

    row: str
    gold: str
    predicted: str
    correct: bool
    place: str
    group: str | None = None
    kinds: Mapping[str, str] = field(default_factory=dict)
    confidence: float | None = None
    log_probabilities: Mapping[str, float] = field(default_factory=dict)
    values: Mapping[str, float | None] = field(default_factory=dict)
    tokens: float = 1.0


@dataclass(frozen=True, slots=True)
class ScoredRun:
    """One model's answers to one dataset, row by row, in the same order for all models of the dataset.

    `kinds` are fields that group the rows, e.g. `type`. `confidence` is the share (0-1) of the chosen label
    among the labels' probabilities. `facts` come from results.json. `values` are figures of each row by
    metric, `tokens` the weights of a loss.
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
    log_probabilities: Sequence[Mapping[str, float]] = ()
    values: Mapping[str, Sequence[float | None]] = field(default_factory=dict)
    tokens: Sequence[float] = ()

    @property
    def is_log(self) -> bool:
        """True if another tool wrote the answers: results.json of our runs records the training data."""
        return "model" not in self.facts

    @property
    def trained_on(self) -> Mapping[str, Any]:
        """Training examples among the rows, from results.json."""
        facts = self.facts.get("trained_on")
        if isinstance(facts, Mapping):
            return facts
        return {}

    def weight(self, metric: str, row: int) -> float:
        """How much a row counts in the mean of a metric: its tokens in that of a loss."""
        if metric == LOSS:
            return self.tokens[row]
        return 1.0

    def only(self, keep: Sequence[bool]) -> "ScoredRun":
        """The run with some of its rows."""
        kept: dict[str, Any] = {}
        for name in COLUMNS:
            column = getattr(self, name)
            if column:
                kept[name] = list(compress(column, keep))
        kept["kinds"] = {name: list(compress(column, keep)) for name, column in self.kinds.items()}
        kept["values"] = {name: list(compress(column, keep)) for name, column in self.values.items()}
        return replace(self, **kept)


RunsByModel = Mapping[str, ScoredRun]
"""Runs of one dataset by model."""
RunsByDataset = Mapping[str, RunsByModel]
"""Runs by dataset and model: what a comparison reads once and judges."""


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


def without(run: ScoredRun, rows: Collection[str]) -> ScoredRun:
    """The run without some of its rows, and without the figures of all rows."""
    facts = {name: value for name, value in run.facts.items() if name not in FIGURES}
    return replace(run.only([row not in rows for row in run.rows]), facts=facts)


def text_field(record: Mapping[str, object], name: str, where: str) -> str:
    """A field that must be a text; `ContentError` with its place otherwise."""
    value = record.get(name)
    if not isinstance(value, str):
        raise ContentError(f"{where}: {name}: found {show_value(value)}, expected a text")
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


def kinds_of(record: Mapping[str, object], gold: str) -> dict[str, str]:
    """The fields that part the rows. Rows with a subtype have their gold answer as type."""
    kinds = {}
    for name in KINDS:
        value = optional_text(record, name)
        if value is not None:
            kinds[name] = value
    if "subtype" in kinds:
        return {"type": gold, **kinds}
    return kinds


def confidence_of(logs: Sequence[float]) -> float | None:
    """Share (0-1) of the likeliest label, given every label's log-probability.

    None if even that one has no probability.
    """
    top = max(logs)
    if not math.isfinite(top):
        return None
    return 1 / math.fsum(math.exp(log - top) for log in logs)


def assemble(
    model: str, dataset: str, source: Path, records: Iterable[ScoredExample], facts: Mapping[str, object]
) -> ScoredRun:
    """The run of the records in the order of their row ids; `ContentError` for doubles or gaps."""
    ordered = sorted(records, key=lambda record: (len(record.row), record.row))
    if not ordered:
        raise ContentError(f"{source}: no rows in it; score {model} on {dataset} again")
    texts = [model, dataset]
    for record in ordered:
        texts += (record.gold, record.predicted)
    try:  # halves of characters (lone surrogates): JSON can hold them, and no file of text can
        "".join(texts).encode()
    except UnicodeEncodeError as error:
        half = error.object[error.start]
        raise ContentError(f"{source}: an answer or a name holds half a character ({half!r})") from error
    for one, other in pairwise(ordered):
        if one.row == other.row:
            raise ContentError(f"{other.place}: row {other.row} is already in {one.place}")
    kind_names: set[str] = set()
    for record in ordered:
        kind_names.update(record.kinds)
    kinds = {name: [record.kinds.get(name, "") for record in ordered] for name in sorted(kind_names)}
    groups = [record.group for record in ordered if record.group is not None]
    if groups and len(groups) < len(ordered):
        ungrouped = next(record for record in ordered if record.group is None)
        raise ContentError(f"{ungrouped.place}: no group, but {len(groups)} other rows have one")
    confidence = [record.confidence for record in ordered if record.confidence is not None]
    has_confidence = len(confidence) == len(ordered)
    return ScoredRun(
        model,
        dataset,
        str(source),
        rows=[record.row for record in ordered],
        gold=[record.gold for record in ordered],
        predicted=[record.predicted for record in ordered],
        correct=[record.correct for record in ordered],
        groups=groups or None,
        kinds=kinds,
        confidence=confidence if has_confidence else None,
        facts=facts,
        log_probabilities=[record.log_probabilities for record in ordered],
        values={name: [record.values[name] for record in ordered] for name in ordered[0].values},
        tokens=[record.tokens for record in ordered],
    )
