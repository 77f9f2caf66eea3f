"""How does the best of several models do on examples that did not choose it?

`eval compare --choose-on half` and `eval sweep` choose by this question.
"""

import math
from collections.abc import Mapping, Sequence
from statistics import fmean

from tuneyard.core.errors import RequestError
from tuneyard.core.language.number_format import Table, interval, percent
from tuneyard.core.language.translation import tr, tr_counted
from tuneyard.core.training.metrics import ACCURACY, Metric
from tuneyard.eval.judge.cells import meaning, section_name, translated
from tuneyard.eval.judge.conclusions import MEAN, as_json
from tuneyard.eval.judge.question import AnsweredQuestion, Choice, Figures
from tuneyard.eval.judge.questions.flat_top import flat_top
from tuneyard.eval.judge.sections import (
    majority_class,
    mean_figures,
    paired_rows,
)
from tuneyard.eval.read.scored_run import RunsByDataset, RunsByModel, models_of, without
from tuneyard.eval.statistics.estimate import Mean
from tuneyard.eval.statistics.rates import average
from tuneyard.eval.statistics.selection import split_halves

CHOICE_SEED = 42
BEST_MARK = " ←"
CHOOSING, HELD_OUT = "choosing", "held_out"  # the halves


def choose_on_half(
    runs: RunsByDataset,
    base: str,
    metric: str = ACCURACY.name,
    held_out: RunsByDataset | None = None,
    *,
    has_accuracy: bool = True,
) -> AnsweredQuestion:
    """Choose a model on one half of the rows. The comparison reads the other half alone.

    The choice is by accuracy, or by another `metric`, whose values the runs have. The choosing half has half
    of the clusters. In a sweep the runs are on this half alone, `held_out` are those of some models on the
    other, and the base can be chosen: it is one of the points.
    `has_accuracy` is False if the runs have the metric alone.

    There is a choice for each dataset, then one for the mean of several; the last one decides. The runs left
    are those of the base and the chosen model on the held-out half. `RequestError` unless every model was
    scored on every dataset, and there is a base with two candidates or more.
    """
    names = models_of(runs)
    chosen_from = names
    is_sweep = held_out is not None
    if not is_sweep:
        chosen_from = [name for name in names if name != base]
        if len(chosen_from) < 2 or base not in names:
            raise RequestError(
                f"--choose-on half: found {', '.join(names)}, expected {base} and two others or more"
            )
    measured = meaning(metric, runs)
    if held_out is None:
        for dataset, by_model in runs.items():
            missing = [name for name in names if name not in by_model]
            if missing:
                raise RequestError(f"--choose-on half: {dataset} was not scored with {', '.join(missing)}")
        runs, held_out = halves(runs)
    choices = []
    for dataset, choosing in runs.items():
        by_half = {CHOOSING: choosing, HELD_OUT: held_out[dataset]}
        choices.append(_choice(dataset, by_half, chosen_from, measured, has_accuracy=has_accuracy))
    if len(choices) > 1:
        choices.append(_mean_choice(choices))
    chosen = choices[-1].model
    if base not in names:
        base = chosen
    kept = (base, chosen)
    compared = {}
    for dataset, by_model in held_out.items():
        compared[dataset] = {model: run for model, run in by_model.items() if model in kept}
    tables = _tables(choices)
    figures: dict[str, object] = {"choice": [_choice_json(choice) for choice in choices]}
    others = [model for model in choices[-1].figures[CHOOSING] if model != chosen]
    if is_sweep and others:
        level_tables, figures["flat_top"] = flat_top(runs, chosen, others, measured)
        tables = level_tables | tables
    return AnsweredQuestion(compared, base, tables, figures, choices)


def _choice(
    dataset: str,
    by_half: Mapping[str, RunsByModel],
    names: Sequence[str],
    metric: Metric,
    *,
    has_accuracy: bool,
) -> Choice:
    n, majority = {}, {}
    figures: dict[str, Figures] = {}
    accuracies: dict[str, Figures] = {}
    for half, runs in by_half.items():
        candidate_runs = {name: runs[name] for name in names if name in runs}
        data = paired_rows(dataset, candidate_runs, metric)
        n[half], majority[half] = len(data.weights), math.nan
        figures[half], accuracies[half] = mean_figures(data, metric), {}
        if has_accuracy:
            data = paired_rows(dataset, candidate_runs, ACCURACY)
            accuracies[half] = mean_figures(data, ACCURACY)
            majority[half], _ = majority_class(next(iter(candidate_runs.values())))
    return Choice(dataset, _best(figures[CHOOSING], metric), metric, n, majority, figures, accuracies)


def _mean_choice(choices: Sequence[Choice]) -> Choice:
    """The choice on the mean of datasets, each counting alike."""
    first = choices[0]
    n, majority = {}, {}
    figures, accuracies = {}, {}
    for half in first.n:
        n[half] = sum(choice.n[half] for choice in choices)
        majority[half] = fmean(choice.majority[half] for choice in choices)
        figures[half] = _averages([choice.figures[half] for choice in choices])
        accuracies[half] = _averages([choice.accuracies[half] for choice in choices])
    return Choice(
        MEAN, _best(figures[CHOOSING], first.metric), first.metric, n, majority, figures, accuracies
    )


def _averages(figures: Sequence[Figures]) -> dict[str, Mean]:
    return {model: average([of_dataset[model] for of_dataset in figures]) for model in figures[0]}


def _best(figures: Figures, metric: Metric) -> str:
    """The candidate of the best figure, the first of equal ones."""
    return min(figures, key=lambda model: metric.rank(figures[model].value))


def best_point(runs: RunsByDataset, metric: str = ACCURACY.name) -> str:
    """The best model on the choosing half, of equal ones the first. `runs` are on this half alone."""
    measured = meaning(metric, runs)
    figures = []
    for dataset, by_model in runs.items():
        figures.append(mean_figures(paired_rows(dataset, by_model, measured), measured))
    return _best(_averages(figures), measured)


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


def _tables(choices: Sequence[Choice]) -> dict[str, Table]:
    """Every candidate on the choosing half, the best first, then each choice on both halves.

    A mark is at the best of each column; the last column decides.
    """
    decision = choices[-1]
    figures = decision.figures[CHOOSING]
    rows = []
    for model in sorted(figures, key=lambda model: decision.metric.rank(figures[model].value)):
        cells = [model]
        for choice in choices:
            cells.append(_cell(choice, CHOOSING, model))
            if model == choice.model:
                cells[-1] += BEST_MARK
        rows.append(cells)
    header = [
        tr("{name}, n = {n:,}", name=section_name(choice.dataset), n=choice.n[CHOOSING]) for choice in choices
    ]
    caption = tr(
        "Chosen on {examples}, compared on the others",
        examples=tr_counted(decision.n[CHOOSING], "example"),
    )
    names = ["best on", "candidate", "choosing half", "held-out half"]
    has_majority = not math.isnan(decision.majority[HELD_OUT])
    if has_majority:
        names.append("majority-class baseline")
    chosen_rows = []
    for choice in choices:
        if choice.model not in choice.figures[HELD_OUT]:  # of a sweep: the mean has chosen another one
            continue
        cells = [section_name(choice.dataset), choice.model]
        cells += [_cell(choice, half, choice.model) for half in choice.n]
        if has_majority:
            cells.append(percent(choice.majority[HELD_OUT]))
        chosen_rows.append([*cells, f"{choice.n[HELD_OUT]:,}"])
    return {
        caption: Table([tr("candidate"), *header], rows),
        tr("The choices on the held-out half"): Table([*translated(names), "n"], chosen_rows),
    }


def _cell(choice: Choice, half: str, model: str) -> str:
    """A candidate's figure in the metric of the choice, with its accuracy if that is another figure."""
    figure = choice.figures[half][model]
    text = choice.metric.interval_text(figure.with_limits)
    accuracy = choice.accuracies[half].get(model)
    if choice.metric is ACCURACY or accuracy is None:
        return text
    return tr("{value}, accuracy {accuracy}", value=text, accuracy=interval(accuracy.with_limits))


def _choice_json(choice: Choice) -> dict[str, object]:
    """A choice as table.json has it. `figure` is in the metric of the choice, if that is not accuracy."""
    fields: dict[str, object] = {
        "dataset": choice.dataset,
        "metric": choice.metric.name,
        "model": choice.model,
    }
    for half, figures in choice.figures.items():
        scores: dict[str, dict[str, object]] = {model: {} for model in figures}
        for model, accuracy in choice.accuracies[half].items():
            scores[model]["accuracy"] = as_json(accuracy)
        if choice.metric is not ACCURACY:
            for model, figure in figures.items():
                scores[model]["figure"] = as_json(figure)
        fields[half] = {"n": choice.n[half], "majority": as_json(choice.majority[half]), "models": scores}
    return fields
