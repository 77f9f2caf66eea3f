"""Meaning of the figures of trainings and evaluations: unit, and whether higher is better."""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from tuneyard.core.language import catalogue, current, tr


@dataclass(frozen=True, slots=True)
class Metric:
    """A figure's unit (a share is 0 to 1, points are 0 to 100), and whether its highest value is the best."""

    unit: str
    higher: bool

    def rank(self, value: float) -> tuple[bool, float]:
        """Sort key for values of this figure: the best first, NaN last."""
        is_nan = value != value
        if self.higher:
            return is_nan, -value
        return is_nan, value

    def best(self, values: Iterable[float]) -> float:
        """Best of some values of this figure."""
        return min(values, key=self.rank)


UNKNOWN = Metric("unknown figure", higher=True)
_NAMES = {
    ("share", True): "accuracy overall_accuracy macro_f1 f1 exact_match partial_match token_f1 rouge1 rouge2 "
    "rougeL distinct-1 distinct-2 label_mass rewards/accuracies auc",
    ("points", True): "bleu rouge-1 rouge-2 rouge-l bleu-4",  # LLaMA-Factory writes the hyphens
    ("nats", True): "rewards/margins rewards/chosen logps/chosen",
    ("nats", False): "loss kl rewards/rejected logps/rejected",
    ("choices", False): "perplexity ppl",
    ("share", False): "error empty_rate truncation_rate ece wer cer",
    ("squared error", False): "brier mse",
    ("rows", False): "unparsed refused",
    ("seconds", False): "runtime",
}
METRICS = {name: Metric(*meaning) for meaning, names in _NAMES.items() for name in names.split()}
_PREFIX = re.compile(r"^(?:eval|train|test|predict)_")


def metric_of(name: str) -> Metric:
    """Look a figure up, also as `eval_loss` or `eval_DATASET_loss`; `UNKNOWN` if it is not listed."""
    plain = _PREFIX.sub("", name)
    if plain in METRICS:
        return METRICS[plain]
    for suffix, metric in METRICS.items():
        if plain.endswith(f"_{suffix}"):
            return metric
    return UNKNOWN


def direction(name: str, metric: Metric | None = None) -> str:
    """Describe a figure with its direction, e.g. `eval_loss (nats, lower is better)`."""
    metric = metric or metric_of(name)
    unit = catalogue(current()).get(metric.unit, metric.unit)  # a plug-in's unit may have braces
    if metric.higher:
        return tr("{name} ({unit}, higher is better)", name=name, unit=unit)
    return tr("{name} ({unit}, lower is better)", name=name, unit=unit)


def read_metric(results: Mapping[str, object], name: str) -> tuple[object, Metric]:
    """Read a figure of a results.json or of its `metrics`: its value (None if missing) and meaning."""
    declared = results.get("metrics")
    figure = declared.get(name) if isinstance(declared, Mapping) else None
    if name in results or not isinstance(figure, Mapping):
        return results.get(name), metric_of(name)
    return figure.get("value"), Metric(str(figure.get("unit")), figure.get("higher_is_better") is True)
