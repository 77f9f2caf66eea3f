"""Tables of differences between models, example by example."""

from collections.abc import Sequence

from tuneyard.core.language.message import _, tr
from tuneyard.core.language.number_format import Table, show_p
from tuneyard.core.training.metrics import ACCURACY, Metric
from tuneyard.eval.judge.conclusions import MEAN, PairedTest, Section

IN_POINTS = (
    _("difference, points (95 %)"),
    _("fixed"),
    _("regressed"),
    "p",
    _("minimum detectable effect"),
)
IN_THE_UNIT = (
    _("difference (95 %)"),
    _("better"),
    _("worse"),
    "p",
    _("minimum detectable effect"),
)


def section_name(name: str) -> str:
    """A dataset's name, or that of the mean in the current language."""
    if name == MEAN:
        return tr("mean")
    return name


def difference_table(tests: Sequence[PairedTest], metric: Metric) -> Table:
    """A row for each test, in points or in the unit of the metric."""
    header = IN_THE_UNIT
    if metric.in_percent:
        header = IN_POINTS
    rows = []
    for test in tests:
        cells = [
            f"{test.model} − {test.against}",
            metric.difference_text(*test.with_limits, in_table=True),
            f"{test.better:,}",
            f"{test.worse:,}",
            show_p(test.p, equals=""),
            metric.difference_text(test.smallest, sign="", in_table=True),
        ]
        rows.append(cells)
    return Table(["", *map(tr, header)], rows)


def differences(section: Section) -> dict[str, Table]:
    """Every comparison with the base, then every pair of the others, those of the best model first.

    By caption; of macro-F1 too if the answers are labels.
    """
    name = section_name(section.name)
    caption = tr("Differences in accuracy on {name}, example by example.", name=name)
    if section.name == MEAN:
        caption = tr("Differences in mean accuracy, example by example.")
    best = section.conclusion.best
    between = sorted(section.between, key=lambda test: best not in (test.model, test.against))
    tests = [*section.against_base, *(test.seen_from(best) for test in between)]
    tables = {caption: difference_table(tests, section.metric)}
    f1_rows = []
    for test in tests:
        f1 = test.macro_f1
        if f1 is not None:
            pair = f"{test.model} − {test.against}"
            difference = ACCURACY.difference_text(*f1.with_limits, in_table=True)
            f1_rows.append([pair, difference, show_p(f1.p, equals="")])
    header = ["", tr("difference of macro-F1, points (95 %)"), tr("p")]
    tables[tr("Differences in macro-F1 on {name}.", name=name)] = Table(header, f1_rows)
    return {caption: table for caption, table in tables.items() if table.rows}
