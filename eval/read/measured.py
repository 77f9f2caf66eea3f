"""Values of a run's examples: built-in metrics, those of plug-ins, and any field with numbers."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial

from tuneyard.core.errors import unexpected
from tuneyard.eval.metrics import is_measurable, metrics
from tuneyard.eval.metrics.preference import ANSWER, AUC, auc_of
from tuneyard.eval.metrics.text import CHARACTERS, bleu_parts, rouge
from tuneyard.eval.statistics.rates import Row, Rows

LOSS = "eval_loss"
IDS = ("row", "id", "doc_id")
LARGEST = 1e100  # squares of more are beyond what a float holds
TEXTS = ("reference", "prediction")
OVERLAPS = ("bleu", "rouge1", "rouge2", "rougeL")
Values = Sequence[float | None]
Function = Callable[[Rows], Values]


def measurable(records: Iterable[Mapping[str, object]]) -> list[str]:
    """The metrics that a run has the fields for, by its first scored row.

    A prompt that was too long has no fields of metrics.
    """
    record = next((record for record in records if "too_long" not in record), {})
    names = []
    for name, (fields, _) in functions().items():
        if is_measurable(record, fields):
            names.append(name)
    names += [
        name for name, value in record.items() if name not in (*IDS, "idx") and isinstance(value, int | float)
    ]
    return names


def has_metric(records: Rows, metric: str) -> bool:
    """True if a row has the fields of the metric."""
    fields, _ = functions().get(metric, ((metric,), None))
    return any(is_measurable(record, fields) for record in records)


def functions(tokenizer: str = CHARACTERS) -> dict[str, tuple[Sequence[str], Function]]:
    """Metrics of all examples together, of fields by other names, and of files and plug-ins, by name.

    Each has its fields, and the function that gives the values of rows. `tokenizer` is that of ROUGE and
    BLEU.
    """
    by_name: dict[str, tuple[Sequence[str], Function]] = {
        LOSS: (("loss", "tokens"), _loss),
        AUC: ((f"{ANSWER}_logp", f"{ANSWER}_tokens", "expected_output"), auc_of),
    }
    for name in OVERLAPS:
        by_name[name] = TEXTS, partial(_overlap, name, tokenizer=tokenizer)
    for name, metric in metrics().items():
        by_name[name] = metric.needs, metric.values
    return by_name


def values_of(metric: str, records: Rows, tokenizer: str) -> list[float | None]:
    """Value of each row. None for a prompt that was too long, or one without the fields of the metric.

    `tokenizer` is that of ROUGE and BLEU. `ContentError` if a value is not a number.
    """
    of_field: tuple[Sequence[str], Function] = (metric,), partial(_field, metric)
    fields, function = functions(tokenizer).get(metric, of_field)
    places = [place for place, record in enumerate(records) if is_measurable(record, fields)]
    values: list[float | None] = [None] * len(records)
    if places:
        for place, value in zip(places, function([records[place] for place in places]), strict=True):
            values[place] = value
    return values


def _field(name: str, records: Rows) -> Values:
    return [_number(record, name) for record in records]


def _loss(records: Rows) -> Values:
    losses: list[float | None] = []
    for record in records:
        loss, tokens = _number(record, "loss"), _number(record, "tokens")
        losses.append(loss / tokens if tokens else None)
    return losses


def _overlap(metric: str, records: Rows, tokenizer: str) -> Values:
    references = [str(record["reference"]) for record in records]
    predictions = [str(record["prediction"]) for record in records]
    if metric == "bleu":
        return bleu_parts(references, predictions, tokenizer)
    return rouge(references, predictions, tokenizer)[metric]


def _number(record: Row, name: str) -> float:
    """A number (a truth value is 0 or 1); `ContentError` with its place for anything else."""
    value = record[name]
    if not isinstance(value, int | float) or not abs(value) < LARGEST:
        raise unexpected(record["place"], name, value, "a number below 1e100")
    return float(value)
