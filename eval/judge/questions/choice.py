"""How does the best of several models do on examples that did not choose it?

`eval compare --choose-on half` and `eval sweep` choose by this question. Of a sweep it also shows how flat
the top is: which points are not shown to be worse than the best one, on the rows that choose, where the best
one is partly lucky.
"""

from collections.abc import Sequence
from statistics import fmean
from typing import Any

from tuneyard.core.errors import RequestError
from tuneyard.core.language.message import _, counted, joined, tr
from tuneyard.core.language.number_format import Table
from tuneyard.core.training.metrics import ACCURACY, Metric
from tuneyard.eval.judge.conclusions import (
    BEST_MARK,
    MEAN,
    difference_table,
    section_name,
)
from tuneyard.eval.judge.question import CHOICES, AnsweredQuestion, Choice, Half
from tuneyard.eval.judge.sections import mean_figures, meaning, paired_family, paired_rows
from tuneyard.eval.runs.scored_run import RunsByDataset, RunsByModel, models_of
from tuneyard.eval.statistics.rates import average
from tuneyard.eval.statistics.selection import split_halves

CHOICE_SEED = 42
CHOICE = (_("best on"), _("candidate"), _("choosing half"), _("held-out half"))


def choose_on_half(
    runs: RunsByDataset, base: str, metric: str = ACCURACY.name, held_out: RunsByDataset | None = None
) -> AnsweredQuestion:
    """Choose a model on one half of the rows. The comparison reads the other half alone.

    The choice is by accuracy, or by another `metric`, whose values the runs have. The choosing half has half
    of the clusters. In a sweep the runs are on this half alone, `held_out` are those of some models on the
    other, and the base can be chosen: it is one of the points.

    There is a choice for each dataset, then one for the mean of several; the last one decides. The runs left
    are those of the base and the chosen model on the held-out half; if the base is chosen, those of all
    models there. `RequestError` unless every model was scored on every dataset, and there is a base with two
    candidates or more.
    """
    names = models_of(runs)
    chosen_from = names
    chosen_by = meaning(metric, runs)
    is_sweep = held_out is not None
    if held_out is None:
        chosen_from = [name for name in names if name != base]
        if len(chosen_from) < 2 or base not in names:
            raise RequestError(
                _(
                    "--choose-on half: found {names}, expected {base} and two others or more",
                    names=joined(names),
                    base=base,
                )
            )
        for dataset, by_model in runs.items():
            missing = [name for name in names if name not in by_model]
            if missing:
                raise RequestError(
                    _(
                        "--choose-on half: {dataset} was not scored with {names}",
                        dataset=dataset,
                        names=joined(missing),
                    )
                )
        runs, held_out = halves(runs)
    choices = []
    for dataset, by_model in runs.items():
        choosing = _half(dataset, by_model, chosen_from, chosen_by)
        other = _half(dataset, held_out[dataset], chosen_from, chosen_by)
        choices.append(Choice(dataset, chosen_by, _best(choosing, chosen_by), choosing, other))
    if len(choices) > 1:
        choosing = _mean_half([choice.choosing for choice in choices])
        other = _mean_half([choice.held_out for choice in choices])
        choices.append(Choice(MEAN, chosen_by, _best(choosing, chosen_by), choosing, other))
    chosen = choices[-1].model
    kept = [base, chosen]
    if base not in names:
        base = chosen
    elif chosen == base:
        kept = names
    compared = {}
    for dataset, by_model in held_out.items():
        compared[dataset] = {model: run for model, run in by_model.items() if model in kept}
    tables = _tables(choices)
    figures: dict[str, Any] = {CHOICES: choices}
    others = [model for model in choices[-1].choosing.models if model != chosen]
    if is_sweep and others:
        level_tables, figures["flat_top"] = flat_top(runs, chosen, others, chosen_by)
        tables = level_tables | tables
    return AnsweredQuestion(compared, base, tables, figures)


def _half(dataset: str, runs: RunsByModel, names: Sequence[str], metric: Metric) -> Half:
    """A half of a dataset with the figures of its candidates."""
    candidate_runs = {name: runs[name] for name in names if name in runs}
    data = paired_rows(dataset, candidate_runs, metric)
    return Half(len(data.weights), data.majority, mean_figures(data, metric))


def _mean_half(halves: Sequence[Half]) -> Half:
    """The half of all datasets, each counting alike."""
    models = {model: average([half.models[model] for half in halves]) for model in halves[0].models}
    return Half(sum(half.n for half in halves), fmean(half.majority for half in halves), models)


def _best(half: Half, metric: Metric) -> str:
    """The candidate of the best figure, the first of equal ones."""
    return min(half.models, key=lambda model: metric.rank(half.models[model].value))


def best_point(runs: RunsByDataset, metric: str) -> str:
    """The best model on the choosing half, of equal ones the first. `runs` are on this half alone."""
    chosen_by = meaning(metric, runs)
    return _best(_choosing_half(runs, chosen_by), chosen_by)


def point_ranks(runs: RunsByDataset, metric: str) -> dict[str, float]:
    """The figure of every model on the choosing half, the smallest best (NaN if it has none)."""
    chosen_by = meaning(metric, runs)
    ranks = {}
    for model, figure in _choosing_half(runs, chosen_by).models.items():
        ranks[model] = chosen_by.rank(figure.value)[1]
    return ranks


def _choosing_half(runs: RunsByDataset, metric: Metric) -> Half:
    return _mean_half(
        [_half(dataset, by_model, list(by_model), metric) for dataset, by_model in runs.items()]
    )


def halves(runs: RunsByDataset) -> tuple[RunsByDataset, RunsByDataset]:
    """The runs on the rows to choose on, and on the others. Rows of a cluster stay in one half."""
    choosing: dict[str, RunsByModel] = {}
    held_out: dict[str, RunsByModel] = {}
    for dataset, by_model in runs.items():
        first = next(iter(by_model.values()))
        split = split_halves(first.groups or first.rows, CHOICE_SEED, dataset)
        for half, places in zip((choosing, held_out), map(set, split), strict=True):
            keep = [place in places for place in range(len(first.rows))]
            half[dataset] = {model: run.only(keep) for model, run in by_model.items()}
    return choosing, held_out


def _tables(choices: Sequence[Choice]) -> dict[str, Table]:
    """Every candidate on the choosing half, the best first, then each choice on both halves.

    A mark is at the best of each column; the last column decides.
    """
    decision = choices[-1]
    figures, metric = decision.choosing.models, decision.metric
    rows = []
    for model in sorted(figures, key=lambda model: metric.rank(figures[model].value)):
        cells = [model]
        for choice in choices:
            cells.append(metric.interval_text(choice.choosing.models[model].with_limits))
            if model == choice.model:
                cells[-1] += BEST_MARK
        rows.append(cells)
    header = [
        tr("{name}, n = {n:,}", name=section_name(choice.dataset), n=choice.choosing.n) for choice in choices
    ]
    chosen_on = counted(decision.choosing.n, "example", "examples")
    caption = tr("Chosen on {examples}, compared on the others", examples=chosen_on)
    chosen_rows = []
    for choice in choices:
        if choice.model not in choice.held_out.models:  # of a sweep: the mean has chosen another one
            continue
        cells = [section_name(choice.dataset), choice.model]
        for half in (choice.choosing, choice.held_out):
            cells.append(metric.interval_text(half.models[choice.model].with_limits))
        chosen_rows.append([*cells, f"{choice.held_out.n:,}"])
    return {
        caption: Table([tr("candidate"), *header], rows),
        tr("The choices on the held-out half"): Table([*map(tr, CHOICE), "n"], chosen_rows),
    }


def flat_top(
    runs: RunsByDataset, best: str, others: Sequence[str], metric: Metric
) -> tuple[dict[str, Table], dict[str, Any]]:
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
    listed = level or tests[:1]
    table = difference_table(listed, metric)
    rows = [[test.model, cells[1], cells[4]] for test, cells in zip(listed, table.rows, strict=True)]
    header = [tr("on the choosing half"), table.header[1], tr("p")]
    figures = {"best": best, "not_shown_worse": [test.model for test in level], "comparisons": tests}
    return {caption: Table(header, rows)}, figures
