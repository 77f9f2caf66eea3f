"""The figures of a set whose answers were read and generated: those of metrics.json, and their limits."""

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass

from eval.metrics.text import bleu, distinct, rouge
from eval.statistics.rates import Measured, Rows, groups_of, mean_of, rate, ratio

LARGEST = 700.0  # exp of more is no number that JSON holds
ORDER = (
    "empty_rate", "avg_pred_len_tokens", "avg_ref_len_tokens", "len_ratio_pred_over_ref",
    "distinct-1", "distinct-2", "rouge1", "rouge2", "rougeL", "bleu",
)  # fmt: skip
PARTS = ("prompt", "reference", "prediction", "example")
PERCENTS = (5, 25, 50, 75, 95, 99)


@dataclass(frozen=True, slots=True)
class Figures:
    """Figures by name, those among them that have limits, and sacrebleu's signature where BLEU is one."""

    values: dict[str, float | None]
    estimates: dict[str, dict[str, object]]
    signature: str | None = None


def read_figures(rows: Rows) -> Figures:
    """Return the loss per token over all rows together, exp of it, and the share of rows that were cut.

    `rows` have `loss` (summed), `tokens`, `truncated`; `ValueError` without a token.
    """
    loss = ratio(_numbers(rows, "loss"), _numbers(rows, "tokens"), groups_of(rows))
    low, high = map(_exp, loss.ci95)
    perplexity = Measured(_exp(loss.value), _exp(loss.value) * loss.stderr, (low, high))
    cut = sum(bool(row["truncated"]) for row in rows) / len(rows)
    values: dict[str, float | None] = {
        "eval_loss": loss.value,
        "perplexity": perplexity.value,
        "truncation_rate": cut,
    }
    return Figures(values, {"eval_loss": asdict(loss), "perplexity": asdict(perplexity)})


def generated_figures(rows: Rows, overlap: bool) -> Figures:
    """Return lengths, variety and (`overlap`) ROUGE and BLEU of rows with `prediction`, `reference`,
    `prediction_tokens` and `reference_tokens`."""
    said, expected = ([str(row[name]) for row in rows] for name in ("prediction", "reference"))
    groups = groups_of(rows)
    lengths, expected_lengths = (_numbers(rows, f"{name}_tokens") for name in ("prediction", "reference"))
    found = {
        "avg_pred_len_tokens": mean_of(lengths, groups),
        "avg_ref_len_tokens": mean_of(expected_lengths, groups),
    }
    if any(expected_lengths):
        found["len_ratio_pred_over_ref"] = ratio(lengths, expected_lengths, groups)
    signature = None
    if overlap:
        found |= {name: mean_of(each, groups) for name, each in rouge(expected, said).items()}
        found["bleu"], signature = bleu(expected, said, groups)
    empty = [not text.strip() for text in said]
    values: dict[str, float | None] = {
        "empty_rate": sum(empty) / len(rows),
        "len_ratio_pred_over_ref": None,
        **{f"distinct-{n}": distinct(said, n) for n in (1, 2)},
        **{name: estimate.value for name, estimate in found.items()},
    }
    estimates = {name: asdict(estimate) for name, estimate in found.items()}
    estimates["empty_rate"] = rate(empty, groups)
    return Figures({name: values[name] for name in ORDER if name in values}, estimates, signature)


def lengths_of(rows: Rows) -> dict[str, list[int]]:
    """Return how many tokens prompts, references, predictions and whole examples have, those there are."""
    found = {
        name: [int(str(row[f"{name}_tokens"])) for row in rows if f"{name}_tokens" in row] for name in PARTS
    }
    return {name: lengths for name, lengths in found.items() if lengths}


def percentiles(lengths: Sequence[int]) -> dict[str, float]:
    """Return n, mean, smallest, largest and percentiles (of p %, the least that p % do not exceed)."""
    ordered, n = sorted(lengths), len(lengths)
    ranks = {f"p{p}": ordered[max(0, math.ceil(p * n / 100) - 1)] for p in PERCENTS}
    return {"n": n, "mean": sum(ordered) / n, "min": ordered[0], **ranks, "max": ordered[-1]}


def _exp(value: float) -> float:
    return math.exp(min(value, LARGEST))


def _numbers(rows: Rows, name: str) -> list[float]:
    return [float(str(row[name])) for row in rows]
