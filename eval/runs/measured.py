"""The values of a run's examples in one metric: one of ours, of a plug-in, or a field of anybody's."""

import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from core.documents import json_lines
from core.errors import ContentError, RequestError, show_value
from core.metrics import Metric, metric_of
from eval.metrics import metrics
from eval.metrics.preference import ANSWER, AUC, auc_of
from eval.metrics.text import bleu_parts, rouge
from eval.runs.records import ScoredExample, kinds_of, optional_text
from eval.statistics.rates import group_of

LOSS = "eval_loss"
BLEU = "bleu"
ROUGE = ("rouge1", "rouge2", "rougeL")
IDS = ("row", "id", "doc_id")
Record = Mapping[str, Any]
Values = Sequence[float | None]


def meaning(metric: str) -> Metric:
    """Return a metric's unit and direction; a field that nobody here knows is taken for higher is better."""
    known = metrics().get(metric)
    return known.meaning if known else metric_of(metric)


def measurable(path: Path) -> list[str]:
    """Return the metrics that the first row of a run has the fields for."""
    row = next((row for _, row in json_lines(path)), {}) if path.is_file() else {}
    texts = [BLEU, *ROUGE] if {"prediction", "reference"} <= row.keys() else []
    declared = [name for name, each in metrics().items() if all(row.get(n) is not None for n in each.needs)]
    numbers = [name for name in row if name not in (*IDS, "idx") and _number(row[name]) is not None]
    marked = [AUC] if f"{ANSWER}_logp" in row else []
    return [*([LOSS] if {"loss", "tokens"} <= row.keys() else []), *marked, *texts, *declared, *numbers]


def measured_examples(path: Path, metric: str) -> list[ScoredExample]:
    """Return the rows of a run with their value in a metric; None for one that was refused or has none.

    `RequestError` where no row has one; `ContentError` where a row has no number, or no id to be paired by.
    """
    rows = list(json_lines(path))
    records = [record for _, record in rows]
    held = [record for record in records if "refused" not in record]
    values = dict(zip(map(id, held), _find(metric)(held), strict=True))
    if all(value is None for value in values.values()):
        known = ", ".join(measurable(path)) or "none"
        raise RequestError(f"{path}: no row has {metric}; its metrics: {known}")
    return [
        _example(f"{path}:{number}", record, values.get(id(record)), metric == LOSS)
        for number, record in rows
    ]


def _example(where: str, record: Record, value: float | None, loss: bool) -> ScoredExample:
    row = next((record[name] for name in IDS if isinstance(record.get(name), int | str)), None)
    if row is None:
        raise ContentError(f"{where}: no {', '.join(IDS)}: nothing to pair this row by")
    gold = next((t for n in ("expected_output", "reference", "gold") if (t := optional_text(record, n))), "")
    said = next((t for n in ("model_output", "prediction") if (t := optional_text(record, n))), "")
    weight = float(record["tokens"]) if loss and value is not None else 1.0
    kinds = kinds_of(record, gold)
    return ScoredExample(str(row), gold, said, False, where, group_of(record), kinds, None, value, weight)


def _find(metric: str) -> Callable[[Sequence[Record]], Values]:
    """Return what gives the values of rows in a metric."""
    if metric == LOSS:
        return lambda rows: [_per_token(row) for row in rows]
    if metric == AUC:
        return _areas
    if metric in (BLEU, *ROUGE):
        return lambda rows: _overlap(metric, rows)
    if metric in metrics():
        each = metrics()[metric]

        def values(rows: Sequence[Record]) -> Values:
            held = [row for row in rows if all(row.get(name) is not None for name in each.needs)]
            found = dict(zip(map(id, held), each.values(held), strict=True))
            return [found.get(id(row)) for row in rows]

        return values
    return lambda rows: [_number(row.get(metric), metric) for row in rows]


def _areas(rows: Sequence[Record]) -> Values:
    """Return each row's part in the AUC of marked answers."""
    held = [row for row in rows if {f"{ANSWER}_logp", f"{ANSWER}_tokens", "expected_output"} <= row.keys()]
    if len({row["expected_output"] for row in held}) < 2:
        return [None] * len(rows)
    by_row = dict(zip(map(id, held), auc_of(held), strict=True))
    return [by_row.get(id(row)) for row in rows]


def _per_token(row: Record) -> float | None:
    loss, tokens = _number(row.get("loss"), "loss"), _number(row.get("tokens"), "tokens")
    return loss / tokens if loss is not None and tokens else None


def _overlap(metric: str, rows: Sequence[Record]) -> Values:
    """Return ROUGE of each row, or its part in corpus BLEU, where it has a reference and a prediction."""
    held = [row for row in rows if {"prediction", "reference"} <= row.keys()]
    if not held:
        return [None] * len(rows)
    expected, said = ([str(row[name]) for row in held] for name in ("reference", "prediction"))
    found = bleu_parts(expected, said) if metric == BLEU else rouge(expected, said)[metric]
    by_row = dict(zip(map(id, held), found, strict=True))
    return [by_row.get(id(row)) for row in rows]


def _number(value: object, name: str = "") -> float | None:
    """Return a number (a truth value is 0 or 1); None for nothing, or, unnamed, for what is no number."""
    if value is None or (not name and not isinstance(value, int | float)):
        return None
    if not isinstance(value, int | float) or not math.isfinite(value):
        raise ContentError(f"{name}: found {show_value(value)}, expected a number")
    return float(value)
