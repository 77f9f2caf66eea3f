"""The meaning of figures: unit, direction, and how values are written.

The table has the figures that recipes, results.json and other tools state by name alone. What an evaluation
measures is declared in eval/figures/, and takes its meaning from here if the table has its name.
"""

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial

from tuneyard.core.language.message import _, tr, translated
from tuneyard.core.language.number_format import MOST_DIGITS, limits, number, percent, points

SHARE = _("share")
"""The unit of values from 0 to 1: the interval of their mean is Wilson's, of others' Student's."""


@dataclass(frozen=True, slots=True)
class Metric:
    """A figure's unit, and whether its highest value is the best. Shares are 0 to 1, points 0 to 100.

    `in_percent` figures are written as `93.3 %`, and their differences in points. All others are written as
    numbers. Neither this nor the name makes two metrics different.
    """

    unit: str
    higher: bool
    name: str = field(default="", compare=False)
    in_percent: bool = field(default=False, compare=False)

    @property
    def counts_correct(self) -> bool:
        """True for accuracy: a row's answer is correct or not, and one commonest answer is the baseline."""
        return self.name == ACCURACY.name

    def rank(self, value: float) -> tuple[bool, float]:
        """Sort key for values of this figure: the best first, NaN last."""
        is_nan = value != value
        if self.higher:
            return is_nan, -value
        return is_nan, value

    def best(self, values: Iterable[float]) -> float:
        """Best of some values of this figure."""
        return min(values, key=self.rank)

    def distinct_texts(self, first: float, second: float) -> tuple[str, str]:
        """Two values for one sentence, `93.3 %` or `1.54`, with as many digits as show that they differ."""
        show: Callable[..., str] = number
        if self.in_percent:
            show = percent
        for more_digits in range(MOST_DIGITS):
            texts = show(first, more_digits=more_digits), show(second, more_digits=more_digits)
            if texts[0] != texts[1]:
                return texts
        return show(first), show(second)

    def interval_text(self, value_and_limits: Sequence[float]) -> str:
        """(value, low, high) as `93.3 % (90.1–95.2)` or `1.54 (1.48 to 1.61)`."""
        if not self.in_percent:
            return limits(number, value_and_limits)
        value, low, high = value_and_limits
        return f"{percent(value)} ({100 * low:.1f}–{100 * high:.1f})"

    def difference_text(self, *value_and_limits: float, sign: str = "+", in_table: bool = False) -> str:
        """A difference, `+43.3 points` or `+0.21`; with its limits `+43.3 points (+39.1 to +47.5)`.

        A size has no `sign` (""). The header of a table has the unit.
        """
        show: Callable[[float], str] = partial(number, sign=sign)
        unit = ""
        if self.in_percent:
            show = partial(points, sign=sign)
            if not in_table:
                unit = tr(" points")
        if len(value_and_limits) > 1:
            return limits(show, value_and_limits, unit)
        return show(*value_and_limits) + unit


_NAMES = {
    (SHARE, True): "accuracy overall_accuracy macro_f1 f1 exact_match partial_match token_f1 rouge1 rouge2 "
    "rougeL distinct-1 distinct-2 label_mass rewards/accuracies auc",
    (_("points"), True): "bleu rouge-1 rouge-2 rouge-l bleu-4",  # LLaMA-Factory writes the hyphens
    (_("nats"), True): "rewards/margins rewards/chosen logps/chosen",
    (_("nats"), False): "loss kl rewards/rejected logps/rejected",
    (_("choices"), False): "perplexity ppl",
    (SHARE, False): "error empty_rate truncation_rate ece wer cer",
    (_("squared error"), False): "brier mse",
    (_("rows"), False): "unparsed refused",
    (_("seconds"), False): "runtime",
}
METRICS = {
    name: Metric(unit, higher, name, in_percent=name in ("accuracy", "macro_f1"))
    for (unit, higher), names in _NAMES.items()
    for name in names.split()
}
ACCURACY = METRICS["accuracy"]
_UNITS = {str(unit): unit for unit, _higher in _NAMES}
"""The units as messages. A results.json has their English."""
UNKNOWN = Metric(_("unknown figure"), higher=True)
_PREFIX = re.compile(r"^(?:eval|train|test|predict)_")


def metric_of(name: str) -> Metric:
    """Look a figure up, also as `eval_loss` or `eval_DATASET_loss`; `UNKNOWN` if it is not listed."""
    plain = _PREFIX.sub("", name)
    if plain in METRICS:
        return replace(METRICS[plain], name=name)
    for suffix, metric in METRICS.items():
        if plain.endswith(f"_{suffix}"):
            return replace(metric, name=name, in_percent=False)
    return UNKNOWN


def direction(name: str, metric: Metric | None = None) -> str:
    """Describe a figure with its direction, e.g. `eval_loss (nats, lower is better)`."""
    metric = metric or metric_of(name)
    unit = translated(_UNITS.get(metric.unit, metric.unit))
    if metric.higher:
        return tr("{name} ({unit}, higher is better)", name=name, unit=unit)
    return tr("{name} ({unit}, lower is better)", name=name, unit=unit)


def declared_metric(name: str, figure: Mapping[str, object]) -> Metric:
    """The meaning of a figure that states its unit and direction, as in the `metrics` of a results.json."""
    return Metric(str(figure.get("unit")), figure.get("higher_is_better") is True, name)
