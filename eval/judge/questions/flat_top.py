"""How flat is the top of a sweep: which points are not shown to be worse than the best one?

The points are compared on the rows that choose, where the best one is partly lucky.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from tuneyard.core.language.number_format import Table, limits, p_cell
from tuneyard.core.language.translation import tr
from tuneyard.core.training.metrics import Metric
from tuneyard.eval.judge.cells import DIFFERENCES, MEASURED, translated
from tuneyard.eval.judge.conclusions import PairedTest
from tuneyard.eval.judge.question import AnsweredQuestion, Question
from tuneyard.eval.judge.questions.against_base import meaning, paired_test_json
from tuneyard.eval.judge.questions.choice import HeldOutChoice
from tuneyard.eval.judge.sections import paired_family, paired_rows
from tuneyard.eval.read.scored_run import RunsByDataset, models_of


@dataclass(frozen=True, slots=True)
class FlatTop:
    """Every other point minus the best one on the choosing half, the nearest first: one family of tests."""

    best: str
    metric: Metric
    tests: Sequence[PairedTest]

    @property
    def level(self) -> list[PairedTest]:
        """The points that are not shown to be worse."""
        return [test for test in self.tests if not test.shown]


@dataclass(frozen=True, slots=True)
class NotShownWorse(Question):
    """Compare every point with the best one of the choice, on the rows that chose it."""

    choice: HeldOutChoice
    key = "flat_top"

    def answer(self, runs: RunsByDataset, base: str) -> AnsweredQuestion:
        """One record, none if there is a single point. The runs stay as they are."""
        metric = meaning(self.choice.by, runs)
        best = self.choice.best(runs)
        others = [model for model in models_of(runs) if model != best]
        records = []
        if others:
            data = [paired_rows(dataset, by_model, metric) for dataset, by_model in runs.items()]
            tests = paired_family([(best, model) for model in others], data, metric)
            tests.sort(key=lambda test: metric.rank(test.value))
            records = [FlatTop(best, metric, tests)]
        return AnsweredQuestion(self, records, runs, base)

    def tables(self, records: Sequence[Any], base: str) -> dict[str, Table]:
        """The points that are not shown to be worse; if there are none, the nearest one."""
        del base
        (top,) = records
        caption = tr("Every other point is shown to be worse than {best}", best=top.best)
        if top.level:
            caption = tr(
                "{count} of the {points} other points are not shown to be worse than {best}",
                count=len(top.level),
                points=len(top.tests),
                best=top.best,
            )
        header = MEASURED
        if top.metric.in_percent:
            header = DIFFERENCES
        rows = []
        for test in top.level or top.tests[:1]:
            difference = limits(top.metric.signed_text, (test.value, test.low, test.high))
            rows.append([test.model, difference, p_cell(test.p)])
        return {caption: Table(translated(["on the choosing half", header[1], "p"]), rows)}

    def json(self, records: Sequence[Any]) -> dict[str, object]:
        """The best point, the points that are not shown to be worse, and every test."""
        fields: dict[str, object] = {}
        for top in records:
            fields[self.key] = {
                "best": top.best,
                "not_shown_worse": [test.model for test in top.level],
                "comparisons": [paired_test_json(test) for test in top.tests],
            }
        return fields
