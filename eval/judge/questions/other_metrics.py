"""How do the models compare with the base in the other metrics of their examples?"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from tuneyard.core.language.number_format import Table
from tuneyard.core.language.translation import tr
from tuneyard.eval.judge.cells import MEASURED, difference_cells, metric_on_dataset, translated
from tuneyard.eval.judge.question import AnsweredQuestion, Question
from tuneyard.eval.judge.questions.against_base import meaning, section_name
from tuneyard.eval.judge.sections import Recipes, compare
from tuneyard.eval.read.scored_run import RunsByDataset

CAPTION = "Differences in the other metrics of the examples; the verdict rests on accuracy"


@dataclass(frozen=True, slots=True)
class OtherMetrics(Question):
    """Compare with the base in every metric that all runs state and all their examples have."""

    recipes: Recipes = field(default_factory=dict)
    key = "other_metrics"

    @property
    def reads_stated_metrics(self) -> bool:
        """True: the runs must have the values of the metrics that they state."""
        return True

    def answer(self, runs: RunsByDataset, base: str) -> AnsweredQuestion:
        """A comparison for each metric."""
        every_run = [run for by_model in runs.values() for run in by_model.values()]
        names = [name for name in every_run[0].values if all(name in run.values for run in every_run)]
        comparisons = [
            compare(runs, base, metric=meaning(name, runs), recipes=self.recipes) for name in names
        ]
        return AnsweredQuestion(self, comparisons, runs, base)

    def tables(self, records: Sequence[Any], base: str) -> dict[str, Table]:
        """Every model against the base, a row for each metric, dataset and the mean."""
        del base  # each test names it
        rows = []
        for comparison in records:
            for section in comparison.sections:
                name = metric_on_dataset(section.metric, section_name(section.name))
                rows += [[name, *difference_cells(test, section.metric)[:5]] for test in section.against_base]
        return {tr(CAPTION): Table(translated(["metric", *MEASURED[:5]]), rows)}

    def json(self, records: Sequence[Any]) -> dict[str, object]:
        """Nothing: table.json has the metrics of each model."""
        del records
        return {}
