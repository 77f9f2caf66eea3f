"""The conclusion from a comparison in one or two sentences."""

from collections.abc import Sequence
from functools import partial

from tuneyard.core.language import listed, tr, tr_counted
from tuneyard.core.number_format import limits, percent, points, show_p
from tuneyard.eval.judge.conclusions import MEAN, Comparison, PairedTest, Section
from tuneyard.eval.judge.questions.against_base import section_name
from tuneyard.eval.read.contamination import contamination

SHIP = "Ship {best}: {ours} against {theirs} of {base}, {gain}, p {p}."
AHEAD = "Better than {base} here: {best}, {ours} against {theirs}, {gain}, p {p}."
NOT_OVER_MAJORITY = " But it is not shown to beat the majority-class baseline ({share})."
CHOSEN = " The best of {count} candidates is partly lucky: drawn towards their mean it is at {gain}."
TIED = " Statistically tied with {model} ({gain}, p {p})."
KEEP = "Keep {base}: all others are worse ({listed}; p {p})."
BEHIND = "Worse than {base} here: all others ({listed}; p {p})."
NO_EVIDENCE = (
    "No evidence of a difference from {base}: {model} is at {gain}, p {p}; "
    "minimum detectable effect at n = {n:,}: {smallest}."
)
WORSE = " {model} is worse ({gain}, p {p})."
LEFT_OUT = " Left out: {rows} without a value."
WITHIN = " {model} is {shown} to be within {margin:g} points of {other}: {gain}."
DESCRIBED = " This is for information; the verdict is the one on {section}."
BEATS = "{models} beats {base} on {where}"
BEAT = "{models} beat {base} on {where}"
ALL_TIED = " and are statistically tied"
BEST_TIED = "; {best} is statistically tied with {models}"
NONE_BEATS = "No model is shown to beat {base} on {where}"
BEST = "; best per dataset: {best}"
DEFAULT = "; default: {model} ({highest})."
DEFAULT_NOT_TOP = (
    "; default: {model} ({value}). {top} has the {highest} ({top_value}), but is not shown to beat {base}."
)
DEFAULT_NOT_BELOW = (
    "; default: {model} ({value}). {top} has the {highest} ({top_value}), but is worse than {baseline}."
)
DEFAULT_BASE = "; default: {base}."
DEFAULT_NONE = "; default: none. Something is wrong with the labels, the parser or the template."
BELOW = "{models} beats {base} on {where}, but is worse than {baseline}"
SOME_BELOW = "{models} beat {base} on {where}, but are worse than {baseline}"
NOT_BELOW = (
    "Ship none: {best} is better than {base} ({ours} against {theirs}, {gain}, p {p}), but worse than "
    "{below}. {wrong}"
)
WRONG = "Something is wrong with the labels, the parser or the template: read the incorrect examples."
BASE_BELOW = " {base} is worse than {below}. {wrong}"
BELOW_ELSEWHERE = " But {model} is worse than {below}. {wrong}"
DEFAULT_BELOW_ELSEWHERE = " But {model} is worse than {baseline}."
MAJORITY = "the majority-class baseline"
MAJORITY_ON = "the majority-class baseline on {datasets}"
HIGHER = " {top} has a better figure ({value}), but is not shown to be better than {base} ({gain}, p {p})."
HIGHER_BELOW = " {top} has a better figure ({value}), but is worse than {below}."
MOST_NAMED = 6


def headline(comparison: Comparison) -> str:
    """One sentence on the deciding section: the models that beat the base, ties, best per dataset, default.

    "" if several sections decide: several datasets without a mean (different tasks).
    """
    deciding = [section for section in comparison.sections if not section.decided_by]
    if len(deciding) != 1:
        return ""
    (section,) = deciding
    base = comparison.base
    if not section.against_base:
        return tr("Nothing to compare: {why}.", why=_only(section, base))
    where = section.name
    per_dataset = ""
    if section.name == MEAN:
        where = _mean_name(section, comparison.sets)
        best = [tr("{model} on {name}", model=_first(one), name=one.name) for one in comparison.sets]
        per_dataset = tr(BEST, best=tr(", ").join(best))
    if section.best is None and section.better:
        template = SOME_BELOW
        if len(section.better) == 1:
            template = BELOW
        baseline = _baseline(section, section.better)
        below = tr(template, models=_names(section.better), base=base, where=where, baseline=baseline)
        return below + per_dataset + tr(DEFAULT_NONE)
    if section.best is None:
        default = tr(DEFAULT_BASE, base=base) + _default_below_elsewhere(section, base)
        return tr(NONE_BEATS, base=base, where=where) + per_dataset + default
    default = _default(section, section.best, base) + _default_below_elsewhere(section, section.best)
    return _winners(section, base, where) + per_dataset + default


def _mean_name(section: Section, datasets: Sequence[Section]) -> str:
    """Name the average of all datasets, with its metric and the datasets."""
    names = tr(", ").join(dataset.name for dataset in datasets)
    template = "the average {metric} of {count} datasets ({names})"
    if section.is_accuracy:
        template = "the average of {count} datasets ({names})"
    return tr(template, count=len(datasets), names=names, metric=section.metric.name)


def _default(section: Section, best: str, base: str) -> str:
    """Name the model to take by default, and the model of the best figure if that is another one."""
    top = section.ranked[0]
    value, top_value = _values(section, best, top)
    highest = _highest(section)
    if section.figures[best].value == section.figures[top].value:
        return tr(DEFAULT, model=best, highest=highest)
    if top in section.below_majority:
        return tr(
            DEFAULT_NOT_BELOW,
            model=best, value=value, top=top, highest=highest, top_value=top_value,
            baseline=_baseline(section, [top]),
        )  # fmt: skip
    return tr(
        DEFAULT_NOT_TOP, model=best, value=value, top=top, highest=highest, top_value=top_value, base=base
    )


def _default_below_elsewhere(section: Section, model: str) -> str:
    """Name the datasets that do not decide, on which the default is worse than the majority class."""
    datasets = [below.name for below in section.elsewhere_below_majority(model)]
    if not datasets:
        return ""
    return tr(DEFAULT_BELOW_ELSEWHERE, model=model, baseline=tr(MAJORITY_ON, datasets=listed(datasets)))


def _highest(section: Section) -> str:
    """Name of a section's best figure: "highest accuracy", "lowest mean"."""
    if section.name == MEAN:
        if section.metric.higher:
            return tr("highest mean")
        return tr("lowest mean")
    if section.is_accuracy:
        return tr("highest accuracy")
    if section.metric.higher:
        return tr("highest {metric}", metric=section.metric.name)
    return tr("lowest {metric}", metric=section.metric.name)


def _first(section: Section) -> str:
    """The model of the best figure, with the figure."""
    model = section.ranked[0]
    return f"{model} ({section.metric.value_text(section.figures[model].value)})"


def _winners(section: Section, base: str, where: str) -> str:
    """Name the models that beat the base, and those of them that are statistically tied."""
    winners = section.better
    template = BEAT
    if len(winners) == 1:
        template = BEATS
    text = tr(template, models=_names(winners), base=base, where=where)
    among_winners = [test for test in section.between if test.model in winners and test.against in winners]
    if among_winners and not any(test.shown for test in among_winners):
        return text + tr(ALL_TIED)
    tied = [test.against for test in section.rivals]
    if tied:
        text += tr(BEST_TIED, best=section.best, models=_names(tied))
    return text


def _names(models: Sequence[str]) -> str:
    """List the models, the first `MOST_NAMED` by name."""
    more = len(models) - MOST_NAMED
    if more <= 0:
        return listed(models)
    return listed([*models[:MOST_NAMED], tr("{more} more", more=more)])


def verdict(section: Section, base: str) -> str:
    """The conclusion from one section: ship a model, keep the base, or no evidence of a difference.

    Further sentences give the minimum detectable effect, rows left out, the models that were trained on some
    of the examples, and the section that decides if this one only describes.
    """
    text = _decision(section, base) + _within(section)
    if section.left_out:
        text += tr(LEFT_OUT, rows=tr_counted(section.left_out, "row"))
    metric = _metric_name(section)
    for model, score in section.figures.items():
        if score.trained_on:
            warning = contamination(
                model, score.trained_on, score.n, [], metric, at_most=score.trained_on_at_most
            )
            text += f" {warning}{tr('.')}"
    if section.decided_by:
        text += tr(DESCRIBED, section=section_name(section.decided_by))
    return text


def _decision(section: Section, base: str) -> str:
    if not section.against_base:
        return tr("Nothing to compare: {why}.", why=_only(section, base))
    best = section.best
    if best is None:
        return _not_better(section, base)
    test = _against_base(section, best)
    value, base_value = _values(section, best, base)
    if not section.is_accuracy:
        value = f"{section.metric.name} {value}"
    template = SHIP
    if section.decided_by:
        template = AHEAD
    gain = _interval(section, test)
    text = tr(template, best=best, base=base, ours=value, theirs=base_value, gain=gain, p=show_p(test.p))
    higher = _higher(section, best, base)
    if test.shrunk is not None and not higher:  # luck lifts the highest figure, not one below it
        text += tr(CHOSEN, count=len(section.against_base), gain=_gain(section, test.shrunk))
    over = section.over_majority.get(best)
    if over and not (over.shown and over.value > 0):
        text += tr(NOT_OVER_MAJORITY, share=percent(section.majority))
    text += _below_elsewhere(section, best) + higher
    for rival in section.rivals:
        text += tr(TIED, model=rival.against, gain=_gain(section, rival.value), p=show_p(rival.p))
    return text


def _against_base(section: Section, model: str) -> PairedTest:
    return next(test for test in section.against_base if test.model == model)


def _higher(section: Section, best: str, base: str) -> str:
    """Name the model of the best figure if that is not the one to ship: it is not shown to be better than
    the base, or it is worse than the majority class."""
    top = section.ranked[0]
    candidates = {test.model for test in section.against_base}
    if top not in candidates or section.figures[top].value == section.figures[best].value:
        return ""
    test = _against_base(section, top)
    _, value = _values(section, best, top)
    if top in section.below_majority:
        return tr(HIGHER_BELOW, top=top, value=value, below=_majority_figures(section, top))
    return tr(HIGHER, top=top, value=value, base=base, gain=_interval(section, test), p=show_p(test.p))


def _values(section: Section, model: str, other: str) -> tuple[str, str]:
    """The figures of two models, with as many digits as show that they differ."""
    return section.metric.distinct_texts(section.figures[model].value, section.figures[other].value)


def _gain(section: Section, value: float) -> str:
    return section.metric.signed_text(value) + section.metric.difference_unit


def _interval(section: Section, test: PairedTest) -> str:
    figures = (test.value, test.low, test.high)
    return limits(section.metric.signed_text, figures, section.metric.difference_unit)


def _not_better(section: Section, base: str) -> str:
    """No model to ship: all are worse, there is no evidence, or the best is below the majority class."""
    if section.better:
        return _all_below_majority(section, section.better[0], base)
    below = _base_below_majority(section, base) + _below_elsewhere(section, base)
    worse = [test for test in section.against_base if test.shown]
    undecided = [test for test in section.against_base if not test.shown]
    if not undecided:
        losses = [f"{test.model} {_gain(section, test.value)}" for test in worse]
        template = KEEP
        if section.decided_by:
            template = BEHIND
        p = show_p(max(test.p for test in worse))
        return tr(template, base=base, listed=tr(", ").join(losses), p=p) + below
    best = min(undecided, key=lambda test: section.metric.rank(test.value))
    metric = section.metric
    text = tr(
        NO_EVIDENCE,
        base=base, model=best.model, gain=_interval(section, best), p=show_p(best.p), n=best.n,
        smallest=metric.size_text(best.smallest) + metric.difference_unit,
    )  # fmt: skip
    for test in worse:
        text += tr(WORSE, model=test.model, gain=_gain(section, test.value), p=show_p(test.p))
    return text + below


def _all_below_majority(section: Section, best: str, base: str) -> str:
    """The best model is better than the base, but worse than the majority class: ship none."""
    test = _against_base(section, best)
    value, base_value = _values(section, best, base)
    return tr(
        NOT_BELOW,
        best=best, base=base, ours=value, theirs=base_value, gain=_interval(section, test), p=show_p(test.p),
        below=_majority_figures(section, best), wrong=tr(WRONG),
    )  # fmt: skip


def _base_below_majority(section: Section, base: str) -> str:
    """Warn that the base is worse than the majority class, "" if that is not shown."""
    if base not in section.below_majority:
        return ""
    return tr(BASE_BELOW, base=base, below=_majority_figures(section, base), wrong=tr(WRONG))


def _below_elsewhere(section: Section, model: str) -> str:
    """Warn that a model is worse than the majority class on a dataset that does not decide."""
    below = section.elsewhere_below_majority(model)
    if not below:
        return ""
    figures = _baselines_with_figures(below, model, section)
    return tr(BELOW_ELSEWHERE, model=model, below=figures, wrong=tr(WRONG))


def _majority_figures(section: Section, model: str) -> str:
    """Name the majority-class baselines that a model is shown to be worse than, with their figures."""
    return _baselines_with_figures(section.sections_below_majority(model), model, section)


def _baselines_with_figures(sections: Sequence[Section], model: str, section: Section) -> str:
    """List the majority-class baselines of `sections`. Those of others than `section` are named."""
    figures = []
    for below in sections:
        baseline = tr(MAJORITY)
        if below is not section:
            baseline = tr(MAJORITY_ON, datasets=below.name)
        share, p = percent(below.majority), show_p(below.over_majority[model].p)
        figures.append(tr("{baseline} ({share}, p {p})", baseline=baseline, share=share, p=p))
    return listed(figures)


def _baseline(section: Section, models: Sequence[str]) -> str:
    """Name the majority-class baselines that each of the models is shown to be worse than one of."""
    names: list[str] = []
    for model in models:
        for below in section.sections_below_majority(model):
            if below is section:
                return tr(MAJORITY)
            names.append(below.name)
    datasets = list(dict.fromkeys(names))
    if len(models) == 1:
        return tr(MAJORITY_ON, datasets=listed(datasets))
    return tr(MAJORITY_ON, datasets=tr(" or ").join(datasets))


def _within(section: Section) -> str:
    """For each model: is it shown to be within the margin of the best? "" without a margin."""
    if section.margin is None:
        return ""
    sentences = []
    gain = partial(points, border=-section.margin)
    for test in section.against_top:
        conclusion = tr("not shown")
        if test.low > -section.margin:
            conclusion = tr("shown")
        figures = limits(gain, (test.value, test.low, test.high), tr(" points"))
        sentences.append(
            tr(
                WITHIN,
                model=test.model, other=test.against, margin=100 * section.margin, gain=figures,
                shown=conclusion,
            )
        )  # fmt: skip
    return "".join(sentences)


def _only(section: Section, base: str) -> str:
    """Reason why there is nothing to compare."""
    if base not in section.figures:
        return tr("{base} was not scored on {name}", base=base, name=section_name(section.name))
    if section.name == MEAN:
        return tr("only {base} was scored on all sets", base=base)
    return tr("only {base} was scored", base=base)


def _metric_name(section: Section) -> str:
    """Name of the metric, "" for accuracy."""
    if section.is_accuracy:
        return ""
    return section.metric.name
