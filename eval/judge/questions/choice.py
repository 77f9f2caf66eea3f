"""How does the best of several models do on examples that did not choose it?

`eval compare --choose-on half` and `eval sweep` choose by this question. Of a sweep the answer also has how
flat the top is: which points are not significantly worse than the best one, on the rows that choose, where
the best one is partly lucky.
"""

from collections.abc import Sequence
from statistics import fmean

from tuneyard.core.errors import RequestError
from tuneyard.core.language.message import _, joined
from tuneyard.core.training.metrics import ACCURACY, Metric
from tuneyard.eval.judge.conclusions import (
    MEAN,
    Choice,
    ChoiceOnHalf,
    FlatTop,
    Half,
    QuestionResult,
)
from tuneyard.eval.judge.sections import mean_figures, meaning, paired_family, paired_rows
from tuneyard.eval.runs.scored_run import RunsByDataset, RunsByModel, models_of
from tuneyard.eval.statistics.rates import average
from tuneyard.eval.statistics.selection import split_halves

CHOICE_SEED = 42


def choose_on_half(
    runs: RunsByDataset, base: str, metric: str = ACCURACY.name, held_out: RunsByDataset | None = None
) -> QuestionResult:
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
    others = [model for model in choices[-1].choosing.models if model != chosen]
    top = None
    if is_sweep and others:
        top = flat_top(runs, chosen, others, chosen_by)
    return QuestionResult(compared, base, ChoiceOnHalf(choices, top))


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


def flat_top(runs: RunsByDataset, best: str, others: Sequence[str], metric: Metric) -> FlatTop:
    """Compare every other point with the best one on the rows that chose it, as one family of tests."""
    data = [paired_rows(dataset, by_model, metric) for dataset, by_model in runs.items()]
    tests = paired_family([(best, model) for model in others], data, metric)
    return FlatTop(best, metric, sorted(tests, key=lambda test: metric.rank(test.value)))
