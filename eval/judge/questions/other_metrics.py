"""How do the models compare with the base in the other metrics of their examples?"""

from tuneyard.core.language.message import tr
from tuneyard.core.language.number_format import Table
from tuneyard.core.training.metrics import direction
from tuneyard.eval.judge.conclusions import MEASURED, difference_table, section_name
from tuneyard.eval.judge.question import AnsweredQuestion
from tuneyard.eval.judge.sections import compare, meaning
from tuneyard.eval.runs.scored_run import RunsByDataset, ScoredRun


def other_metrics(runs: RunsByDataset, base: str) -> AnsweredQuestion:
    """Compare with the base in every metric that all runs state and all their examples have.

    A row for each metric, dataset and the mean. table.json has the metrics of each model already.
    """
    every_run: list[ScoredRun] = []
    for by_model in runs.values():
        for run in by_model.values():
            every_run += run.trainings or [run]
    names = [name for name in every_run[0].metrics if all(name in run.metrics for run in every_run)]
    rows = []
    for metric_name in names:
        for section in compare(runs, base, metric=meaning(metric_name, runs)).sections:
            figure = tr("{name} on {dataset}", name=metric_name, dataset=section_name(section.name))
            name = direction(figure, section.metric)
            table = difference_table(section.against_base, section.metric)
            rows += [[name, *cells[:5]] for cells in table.rows]
    if not rows:
        return AnsweredQuestion(runs, base)
    caption = tr("Differences in the other metrics of the examples; the verdict rests on accuracy")
    return AnsweredQuestion(runs, base, {caption: Table([tr("metric"), "", *map(tr, MEASURED[:4])], rows)})
