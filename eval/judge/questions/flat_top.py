"""How flat is the top of a sweep: which points are not shown to be worse than the best one?

The points are compared on the rows that choose, where the best one is partly lucky.
"""

from collections.abc import Sequence

from tuneyard.core.language.number_format import Table, limits, p_cell
from tuneyard.core.language.translation import tr
from tuneyard.core.training.metrics import Metric
from tuneyard.eval.judge.cells import differences_header, translated
from tuneyard.eval.judge.conclusions import as_json
from tuneyard.eval.judge.sections import paired_family, paired_rows
from tuneyard.eval.read.scored_run import RunsByDataset


def flat_top(
    runs: RunsByDataset, best: str, others: Sequence[str], metric: Metric
) -> tuple[dict[str, Table], dict[str, object]]:
    """Compare every other point with the best one on the rows that chose it, as one family of tests.

    The table has the points that are not shown to be worse, the nearest first; without any the nearest one.
    """
    data = [paired_rows(dataset, by_model, metric) for dataset, by_model in runs.items()]
    tests = paired_family([(best, model) for model in others], data, metric)
    tests.sort(key=lambda test: metric.rank(test.value))
    level = [test for test in tests if not test.shown]
    caption = tr("Every other point is shown to be worse than {best}", best=best)
    if level:
        caption = tr(
            "{count} of the {points} other points are not shown to be worse than {best}",
            count=len(level), points=len(tests), best=best,
        )  # fmt: skip
    rows = []
    for test in level or tests[:1]:
        difference = limits(metric.signed_text, test.with_limits)
        rows.append([test.model, difference, p_cell(test.p)])
    header = translated(["on the choosing half", differences_header(metric)[1], "p"])
    figures: dict[str, object] = {
        "best": best,
        "not_shown_worse": [test.model for test in level],
        "comparisons": as_json(tests),
    }
    return {caption: Table(header, rows)}, figures
