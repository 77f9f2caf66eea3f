"""Headers and cells that the tables of several questions share."""

from collections.abc import Sequence

from tuneyard.core.language.number_format import limits, p_cell
from tuneyard.core.language.reader_language import current
from tuneyard.core.language.translation import catalogue, tr
from tuneyard.core.training.metrics import Metric
from tuneyard.eval.judge.conclusions import PairedTest

DIFFERENCES = ("", "difference, points (95 %)", "fixed", "regressed", "p", "minimum detectable effect")
MEASURED = ("", "difference (95 %)", "better", "worse", "p", "minimum detectable effect")


def translated(header: Sequence[str]) -> list[str]:
    """A table's header in the current language."""
    return [name and tr(name) for name in header]


def on_dataset(model: str, dataset: str) -> str:
    """`MODEL on DATASET`."""
    return tr("{model} on {dataset}", model=model, dataset=dataset)


def metric_on_dataset(metric: Metric, dataset: str) -> str:
    """`brier on rte (squared error, lower is better)`."""
    template = "{name} on {dataset} ({unit}, lower is better)"
    if metric.higher:
        template = "{name} on {dataset} ({unit}, higher is better)"
    return tr(template, name=metric.name, dataset=dataset, unit=unit_name(metric))


def unit_name(metric: Metric) -> str:
    """A unit in the current language. A plug-in's unit, which may contain braces, is not translated."""
    return catalogue(current()).get(metric.unit, metric.unit)


def difference_cells(test: PairedTest, metric: Metric) -> list[str]:
    """Cells of one test, in the order of `DIFFERENCES` and `MEASURED`."""
    return [
        f"{test.model} − {test.against}",
        limits(metric.signed_text, (test.value, test.low, test.high)),
        f"{test.better:,}",
        f"{test.worse:,}",
        p_cell(test.p),
        metric.size_text(test.smallest),
    ]
