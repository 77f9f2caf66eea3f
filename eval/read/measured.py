"""The values of a run's examples in one metric: one of ours, of a plug-in, or a field of anybody's."""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from tuneyard.core.documents import json_lines
from tuneyard.core.errors import ContentError, RequestError, show_value
from tuneyard.core.files import read_object
from tuneyard.core.metrics import Metric, direction, metric_of, read_metric
from tuneyard.eval.metrics import metrics
from tuneyard.eval.metrics.preference import ANSWER, AUC, auc_of
from tuneyard.eval.metrics.text import CHARACTERS, bleu_parts, rouge
from tuneyard.eval.read.results import RESULTS
from tuneyard.eval.read.run import ScoredExample, ScoredRun, kinds_of, optional_text
from tuneyard.eval.statistics.rates import group_of

LOSS = "eval_loss"
IDS = ("row", "id", "doc_id")
LARGEST = 1e100  # squares of more are beyond what a float holds
Records = Sequence[Mapping[str, Any]]
Values = Sequence[float | None]
Function = Callable[[Records], Values]


def meaning(metric: str, runs: Sequence[ScoredRun]) -> Metric:
    """Return a metric's unit and direction: as we or a plug-in declare them, else as the runs' results.json
    do (`RequestError` where they differ), else by its name; what nobody knows is higher is better."""
    if known := metrics().get(metric):
        return known.meaning
    stated = {run.source: run.facts.get("metrics") for run in runs}
    declared = {
        source: read_metric({"metrics": own}, metric)[1]
        for source, own in stated.items()
        if isinstance(own, Mapping) and isinstance(own.get(metric), Mapping)
    }
    told = dict(zip(declared.values(), declared, strict=True))
    if len(told) > 1:
        listed = "; ".join(f"{source}: {direction(metric, one)}" for one, source in told.items())
        raise RequestError(f"--metric {metric}: results.json declare different metrics ({listed})")
    return next(iter(told), metric_of(metric))


def measurable(path: Path) -> list[str]:
    """Return the metrics that the first row of a run has the fields for."""
    row = next((row for _, row in json_lines(path)), {}) if path.is_file() else {}
    whole = [name for name, (needs, _) in WHOLE.items() if {*needs} <= row.keys()]
    declared = [name for name, each in metrics().items() if each.held(row)]
    numbers = [name for name in row if name not in (*IDS, "idx") and _number(row[name]) is not None]
    return [*whole, *declared, *numbers]


def measured_examples(path: Path, metric: str) -> list[ScoredExample]:
    """Return the rows of a run with their value in a metric; None for one that was refused or has none.
    `RequestError` where no row has one; `ContentError` where a row has no number, or no id to be paired
    by."""
    rows = list(json_lines(path))
    values = _values(metric, [record for _, record in rows], _tokenizer_of(path))
    if all(value is None for value in values):
        known = ", ".join(measurable(path)) or "none"
        raise RequestError(f"{path}: no row has {metric}; its metrics: {known}")
    return [
        _example(f"{path}:{number}", record, value, metric == LOSS)
        for (number, record), value in zip(rows, values, strict=True)
    ]


def _example(where: str, record: Mapping[str, Any], value: float | None, loss: bool) -> ScoredExample:
    row = next((record[name] for name in IDS if isinstance(record.get(name), int | str)), None)
    if row is None:
        raise ContentError(f"{where}: no {', '.join(IDS)}: nothing to pair this row by")
    gold = next((t for n in ("expected_output", "reference", "gold") if (t := optional_text(record, n))), "")
    said = next((t for n in ("model_output", "prediction") if (t := optional_text(record, n))), "")
    weight = float(record["tokens"]) if loss and value is not None else 1.0
    kinds = kinds_of(record, gold)
    return ScoredExample(str(row), gold, said, False, where, group_of(record), kinds, None, value, weight)


def _tokenizer_of(path: Path) -> str:
    """Return the tokenizer of a run's ROUGE and BLEU, so that its rows have the figures of its results."""
    results = path.parent / RESULTS
    settings = read_object(results).get("settings") if results.is_file() else None
    return str(settings.get("tokenizer", CHARACTERS)) if isinstance(settings, dict) else CHARACTERS


def _values(metric: str, rows: Records, tokenizer: str) -> Values:
    """Return the value of each row; None for one that was refused or lacks what the metric needs."""
    declared = {name: (each.needs, each.values) for name, each in metrics().items()}
    needs, function = (declared | WHOLE).get(metric, ((metric,), partial(_field, metric)))
    if metric in OVERLAPS:
        function = partial(_overlap, metric, tokenizer=tokenizer)
    held = [
        i for i, row in enumerate(rows) if "refused" not in row and all(row.get(n) is not None for n in needs)
    ]
    found = dict(zip(held, function([rows[i] for i in held]) if held else (), strict=True))
    return [found.get(i) for i in range(len(rows))]


def _field(name: str, rows: Records) -> Values:
    return [_number(row[name], name) for row in rows]


def _loss(rows: Records) -> Values:
    numbers = zip(_field("loss", rows), _field("tokens", rows), strict=True)
    return [loss / tokens if loss is not None and tokens else None for loss, tokens in numbers]


def _overlap(metric: str, rows: Records, tokenizer: str = CHARACTERS) -> Values:
    expected, said = ([str(row[name]) for row in rows] for name in TEXTS)
    if metric == "bleu":
        return bleu_parts(expected, said, tokenizer)
    return rouge(expected, said, tokenizer)[metric]


TEXTS = ("reference", "prediction")
OVERLAPS = ("bleu", "rouge1", "rouge2", "rougeL")
# Metrics of all examples together, or of fields by other names: what they need, and the values of rows.
WHOLE: dict[str, tuple[Sequence[str], Function]] = {
    LOSS: (("loss", "tokens"), _loss),
    AUC: ((f"{ANSWER}_logp", f"{ANSWER}_tokens", "expected_output"), auc_of),
    **{name: (TEXTS, partial(_overlap, name)) for name in OVERLAPS},
}


def _number(value: object, name: str = "") -> float | None:
    """Return a number (a truth value is 0 or 1); None for nothing, or, unnamed, for what is no number."""
    if value is None or (not name and not isinstance(value, int | float)):
        return None
    if not isinstance(value, int | float) or not abs(value) < LARGEST:
        raise ContentError(f"{name}: found {show_value(value)}, expected a number below 1e100")
    return float(value)
