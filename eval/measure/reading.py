"""The figures of a set whose answers were read and generated: those of metrics.json, and their limits."""

import math
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass

from eval.measure.statistics import stderr, wilson
from eval.measure.text import Estimate, bleu, distinct, ratio, rouge

LARGEST = 700.0  # exp of more is no number that JSON holds
Row = Mapping[str, object]


@dataclass(frozen=True, slots=True)
class Figures:
    """Figures by name, those among them that have limits, and sacrebleu's signature where BLEU is one."""

    values: dict[str, float | None]
    estimates: dict[str, Estimate]
    signature: str | None = None


def read_figures(rows: Sequence[Row]) -> Figures:
    """Return the loss per token over all rows together, exp of it, and the share of rows that were cut.

    `rows` have `loss` (summed), `tokens`, `truncated` and perhaps `group`; `ValueError` without a token.
    """
    loss = ratio(_numbers(rows, "loss"), _numbers(rows, "tokens"), _groups(rows))
    low, high = map(_exp, loss.ci95)
    perplexity = Estimate(_exp(loss.value), _exp(loss.value) * loss.stderr, (low, high))
    cut = sum(bool(row["truncated"]) for row in rows) / len(rows)
    values = {"eval_loss": loss.value, "perplexity": perplexity.value, "truncation_rate": cut}
    return Figures({**values}, {"eval_loss": loss, "perplexity": perplexity})


def generated_figures(rows: Sequence[Row], overlap: bool) -> Figures:
    """Return lengths, variety and (`overlap`) ROUGE and BLEU of the rows that have a `prediction`.

    `rows` have `reference`, `prediction_tokens` and `reference_tokens` beside it.
    """
    said = [str(row["prediction"]) for row in rows]
    groups, ones = _groups(rows), [1] * len(rows)
    empty = [not text.strip() for text in said]
    lengths, expected_lengths = (_numbers(rows, f"{name}_tokens") for name in ("prediction", "reference"))
    estimates = {
        "empty_rate": Estimate(sum(empty) / len(rows), stderr(empty), wilson(sum(empty), len(rows))),
        "avg_pred_len_tokens": ratio(lengths, ones, groups),
        "avg_ref_len_tokens": ratio(expected_lengths, ones, groups),
    }
    if any(expected_lengths):
        estimates["len_ratio_pred_over_ref"] = ratio(lengths, expected_lengths, groups)
    values: dict[str, float | None] = {"len_ratio_pred_over_ref": None}
    values |= {f"distinct-{n}": distinct(said, n) for n in (1, 2)}
    signature = None
    if overlap:
        expected = [str(row["reference"]) for row in rows]
        estimates |= {name: ratio(each, ones, groups) for name, each in rouge(expected, said).items()}
        estimates["bleu"], signature = bleu(expected, said, groups)
    return Figures(_in_order({**values, **_values(estimates)}), estimates, signature)


ORDER = (
    "empty_rate", "avg_pred_len_tokens", "avg_ref_len_tokens", "len_ratio_pred_over_ref",
    "distinct-1", "distinct-2", "rouge1", "rouge2", "rougeL", "bleu",
)  # fmt: skip


def _in_order(values: Mapping[str, float | None]) -> dict[str, float | None]:
    return {name: values[name] for name in ORDER if name in values}


def _values(estimates: Mapping[str, Estimate]) -> dict[str, float | None]:
    return {name: estimate.value for name, estimate in estimates.items()}


def _exp(value: float) -> float:
    return math.exp(min(value, LARGEST))


def _numbers(rows: Sequence[Row], name: str) -> list[float]:
    return [float(str(row[name])) for row in rows]


def _groups(rows: Sequence[Row]) -> list[Hashable]:
    """Rows without a group are independent of each other."""
    grouped = all("group" in row for row in rows)
    return [str(row["group"]) if grouped else n for n, row in enumerate(rows)]
