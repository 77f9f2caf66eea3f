"""How does the best of several models do on examples that did not choose it?

`eval compare --choose-on half` and `eval sweep` choose by this question.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from tuneyard.core.errors import RequestError
from tuneyard.core.language.number_format import Table, interval, percent
from tuneyard.core.language.translation import tr, tr_counted
from tuneyard.core.training.metrics import ACCURACY, Metric
from tuneyard.eval.judge.cells import translated
from tuneyard.eval.judge.conclusions import MEAN
from tuneyard.eval.judge.question import AnsweredQuestion, Question
from tuneyard.eval.judge.questions.against_base import (
    ACCURACY_NAME,
    finite,
    mean_json,
    meaning,
    section_name,
)
from tuneyard.eval.judge.sections import Recipes, candidates, majority_class, mean_figures, paired_rows
from tuneyard.eval.read.scored_run import RunsByDataset, RunsByModel, models_of, without
from tuneyard.eval.statistics.estimate import Mean
from tuneyard.eval.statistics.rates import average
from tuneyard.eval.statistics.selection import split_halves

CHOICE_SEED = 42
BEST_MARK = " ←"
NO_ACCURACY = Mean(math.nan, math.nan, math.nan, 0, math.nan)


@dataclass(frozen=True, slots=True)
class CandidateScore:
    """A candidate on some rows: its figure in the metric of the choice, and its accuracy.

    The accuracy is nan if the runs have the metric alone.
    """

    figure: Mean
    accuracy: Mean

    @property
    def has_accuracy(self) -> bool:
        """True if the runs have answers that are correct or not."""
        return not math.isnan(self.accuracy.value)


@dataclass(frozen=True, slots=True)
class Half:
    """Every candidate's score on one half of the rows, which are `n`.

    `majority` is the accuracy (0-1) of always giving the most common answer, nan without accuracies.
    """

    n: int
    majority: float
    scores: Mapping[str, CandidateScore]


@dataclass(frozen=True, slots=True)
class Choice:
    """The best candidate on the choosing half of a dataset, or on the mean of several (`MEAN`)."""

    dataset: str
    model: str
    metric: Metric
    choosing: Half
    held_out: Half


@dataclass(frozen=True, slots=True)
class HeldOutChoice(Question):
    """Choose a model on one half of the rows. The comparison reads the other half alone.

    The choice is by accuracy, or by the metric `by`, whose values the runs have. The choosing half has half
    of the clusters. In a sweep the runs are on this half alone, `held_out` are those of some models on the
    other, and the base can be chosen: it is one of the points. A recipe of `recipes` is one candidate.
    `has_accuracy` is False if the runs have the metric alone.
    """

    by: str = ACCURACY_NAME
    held_out: RunsByDataset | None = None
    recipes: Recipes = field(default_factory=dict)
    has_accuracy: bool = True
    key = "choice"

    def answer(self, runs: RunsByDataset, base: str) -> AnsweredQuestion:
        """A record for each dataset, then one for the mean of several. The last record decides.

        The runs left are those of the base and the chosen model on the held-out half. `RequestError` unless
        every model was scored on every dataset, and there is a base with two candidates or more.
        """
        models = models_of(runs)
        names = candidates(models, self.recipes)
        chosen_from = names
        if self.held_out is None:
            chosen_from = [name for name in names if name != base]
            if len(chosen_from) < 2 or base not in names:
                raise RequestError(
                    f"--choose-on half: found {', '.join(names)}, expected {base} and two others or more"
                )
        metric = meaning(self.by, runs)
        reported = chosen_from
        held_out_runs = self.held_out
        if held_out_runs is None:
            for dataset, by_model in runs.items():
                missing = [model for model in models if model not in by_model]
                if missing:
                    raise RequestError(
                        f"--choose-on half: {dataset} was not scored with {', '.join(missing)}"
                    )
            runs, held_out_runs = halves(runs)
        else:
            reported = [name for name in chosen_from if name in models_of(held_out_runs)]
        choosing = self._halves(runs, chosen_from, metric)
        held_out = self._halves(held_out_runs, reported, metric)
        choices = []
        for dataset, half in choosing.items():
            choices.append(Choice(dataset, _best(half, metric), metric, half, held_out[dataset]))
        chosen = choices[-1].model
        if base not in names:
            base = chosen
        kept = [model for name in (base, chosen) for model in self.recipes.get(name, [name])]
        compared = {}
        for dataset, by_model in held_out_runs.items():
            compared[dataset] = {model: run for model, run in by_model.items() if model in kept}
        return AnsweredQuestion(self, choices, compared, base)

    def best(self, runs: RunsByDataset) -> str:
        """The best model on the choosing half, of equal ones the first. `runs` are on this half alone."""
        metric = meaning(self.by, runs)
        *_, decision = self._halves(runs, models_of(runs), metric).values()
        return _best(decision, metric)

    def _halves(self, runs: RunsByDataset, names: Sequence[str], metric: Metric) -> dict[str, Half]:
        """A half for each dataset, then their mean if there are several."""
        by_dataset = {
            dataset: self._half(dataset, by_model, names, metric) for dataset, by_model in runs.items()
        }
        if len(by_dataset) > 1:
            by_dataset[MEAN] = _mean_half([*by_dataset.values()])
        return by_dataset

    def _half(self, dataset: str, runs: RunsByModel, names: Sequence[str], metric: Metric) -> Half:
        """The candidates on the rows of these runs."""
        models = [model for name in names for model in self.recipes.get(name, [name])]
        runs_of_names = {model: runs[model] for model in models}
        rows = paired_rows(dataset, runs_of_names, metric, self.recipes)
        figures = mean_figures(rows, metric)
        accuracies: Mapping[str, Mean] = {}
        majority = math.nan
        if self.has_accuracy:
            accuracies = mean_figures(paired_rows(dataset, runs_of_names, ACCURACY, self.recipes), ACCURACY)
            majority, _ = majority_class(runs_of_names[models[0]])
        scores = {name: CandidateScore(figures[name], accuracies.get(name, NO_ACCURACY)) for name in names}
        return Half(len(rows.weights), majority, scores)

    def tables(self, records: Sequence[Any], base: str) -> dict[str, Table]:
        """Every candidate on the choosing half, the best first, then each choice on the held-out half."""
        del base  # every candidate has a row
        decision = records[-1]
        examples = tr_counted(decision.choosing.n, "example")
        caption = tr("Chosen on {examples}, compared on the others", examples=examples)
        return {
            caption: _choosing_table(records),
            tr("The choices on the held-out half"): _choices_table(records),
        }

    def json(self, records: Sequence[Any]) -> dict[str, object]:
        """A record for each dataset, then one for the mean of several."""
        choices = []
        for choice in records:
            fields = {"dataset": choice.dataset, "metric": choice.metric.name, "model": choice.model}
            fields["choosing"] = _half_json(choice.choosing, choice.metric)
            fields["held_out"] = _half_json(choice.held_out, choice.metric)
            choices.append(fields)
        return {self.key: choices}


def halves(runs: RunsByDataset) -> tuple[RunsByDataset, RunsByDataset]:
    """The runs on the rows to choose on, and on the others. Rows of a cluster stay in one half."""
    choosing, held_out = {}, {}
    for dataset, by_model in runs.items():
        first = next(iter(by_model.values()))
        split = split_halves(first.groups or first.rows, CHOICE_SEED, dataset)
        to_choose, others = ({first.rows[place] for place in places} for places in split)
        choosing[dataset] = {model: without(run, others) for model, run in by_model.items()}
        held_out[dataset] = {model: without(run, to_choose) for model, run in by_model.items()}
    return choosing, held_out


def _mean_half(halves: Sequence[Half]) -> Half:
    """The mean over datasets, each counting alike."""
    scores = {}
    for model in halves[0].scores:
        of_datasets = [half.scores[model] for half in halves]
        figure = average([score.figure for score in of_datasets])
        scores[model] = CandidateScore(figure, average([score.accuracy for score in of_datasets]))
    majority = math.fsum(half.majority for half in halves) / len(halves)
    return Half(sum(half.n for half in halves), majority, scores)


def _best(half: Half, metric: Metric) -> str:
    """The candidate of the best figure, the first of equal ones."""
    return min(half.scores, key=lambda model: metric.rank(half.scores[model].figure.value))


def _choosing_table(choices: Sequence[Choice]) -> Table:
    """The scores on the choosing half. A mark is at the best of each column; the last column decides."""
    decision = choices[-1]
    scores = decision.choosing.scores
    candidates = sorted(scores, key=lambda model: decision.metric.rank(scores[model].figure.value))
    header = [tr("candidate")]
    header += [f"{section_name(choice.dataset)}, n = {choice.choosing.n:,}" for choice in choices]
    rows = []
    for model in candidates:
        cells = [model]
        for choice in choices:
            cell = _score_cell(choice.choosing.scores[model], choice.metric)
            if model == choice.model:
                cell += BEST_MARK
            cells.append(cell)
        rows.append(cells)
    return Table(header, rows)


def _choices_table(choices: Sequence[Choice]) -> Table:
    """Each choice on both halves, with the majority class of the held-out half."""
    names = ["best on", "candidate", "choosing half", "held-out half"]
    has_majority = not math.isnan(choices[0].held_out.majority)
    if has_majority:
        names.append("majority-class baseline")
    rows = []
    for choice in choices:
        halves = (choice.choosing, choice.held_out)
        if choice.model not in choice.held_out.scores:  # of a sweep: the mean has chosen another one
            continue
        scores = [_score_cell(half.scores[choice.model], choice.metric) for half in halves]
        held_out = choice.held_out
        name = section_name(choice.dataset)
        cells = [name, choice.model, *scores]
        if has_majority:
            cells.append(percent(held_out.majority))
        rows.append([*cells, f"{held_out.n:,}"])
    return Table([*translated(names), "n"], rows)


def _half_json(half: Half, metric: Metric) -> dict[str, object]:
    """A half as table.json has it. `figure` is in the metric of the choice, if that is not accuracy."""
    scores = {}
    for model, score in half.scores.items():
        fields = {}
        if score.has_accuracy:
            fields["accuracy"] = mean_json(score.accuracy)
        if metric is not ACCURACY:
            fields["figure"] = mean_json(score.figure)
        scores[model] = fields
    return {"n": half.n, "majority": finite(half.majority), "models": scores}


def _score_cell(score: CandidateScore, metric: Metric) -> str:
    figure = metric.interval_text((score.figure.value, *score.figure.ci95))
    if metric is ACCURACY or not score.has_accuracy:
        return figure
    accuracy = interval((score.accuracy.value, *score.accuracy.ci95))
    return tr("{value}, accuracy {accuracy}", value=figure, accuracy=accuracy)
