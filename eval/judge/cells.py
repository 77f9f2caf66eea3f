"""Headers and cells that the tables of several questions share."""

from collections.abc import Sequence

from tuneyard.core.language.number_format import limits, p_cell
from tuneyard.core.language.translation import tr
from tuneyard.core.training.metrics import Metric
from tuneyard.eval.judge.conclusions import MEAN, PairedTest
from tuneyard.eval.judge.sections import MACRO_F1
from tuneyard.eval.metrics import metric_meaning
from tuneyard.eval.read.scored_run import RunsByDataset

DIFFERENCES = ("", "difference, points (95 %)", "fixed", "regressed", "p", "minimum detectable effect")
MEASURED = ("", "difference (95 %)", "better", "worse", "p", "minimum detectable effect")


def translated(header: Sequence[str]) -> list[str]:
    """A table's header in the current language."""
    return [name and tr(name) for name in header]


def differences_header(metric: Metric) -> Sequence[str]:
    """The header of a table of tests: in points, or in the unit of the metric."""
    if metric.in_percent:
        return DIFFERENCES
    return MEASURED


def section_name(name: str) -> str:
    """A dataset's name, or that of the mean in the current language."""
    if name == MEAN:
        return tr(MEAN)
    return name


def meaning(metric: str, runs: RunsByDataset) -> Metric:
    """Unit and direction of a metric, as the runs declare it."""
    if metric == MACRO_F1.name:
        return MACRO_F1
    every_run = [run for by_model in runs.values() for run in by_model.values()]
    return metric_meaning(metric, {run.source: run.facts for run in every_run})


def on_dataset(model: str, dataset: str) -> str:
    """`MODEL on DATASET`."""
    return tr("{model} on {dataset}", model=model, dataset=dataset)


def difference_cells(test: PairedTest, metric: Metric) -> list[str]:
    """Cells of one test, in the order of `DIFFERENCES` and `MEASURED`."""
    return [
        f"{test.model} − {test.against}",
        limits(metric.signed_text, test.with_limits),
        f"{test.better:,}",
        f"{test.worse:,}",
        p_cell(test.p),
        metric.size_text(test.smallest),
    ]
