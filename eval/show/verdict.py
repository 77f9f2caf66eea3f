"""What follows from a comparison, in a sentence or two."""

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
DESCRIBED = " This describes; the verdict is the one on {section}."
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
MAJORITY = "the majority-class baseline"
MAJORITY_ON = "the majority-class baseline on {datasets}"
HIGHER = " {top} has a better figure ({value}), but is not shown to be better than {base} ({gain}, p {p})."
HIGHER_BELOW = " {top} has a better figure ({value}), but is worse than {below}."
MOST_NAMED = 6


def headline(comparison: Comparison) -> str:
    """Return the whole in a sentence: who beats the base on what, ties, the best per dataset, the default;
    empty where no section decides alone: several datasets without a mean (different tasks)."""
    deciding = [section for section in comparison.sections if not section.decided_by]
    if len(deciding) != 1:
        return ""
    (section,) = deciding
    base, where = comparison.base, section.name
    if section.name == MEAN:
        names = tr(", ").join(one.name for one in comparison.sets)
        told = "the average of {count} datasets ({names})"
        if not section.is_accuracy:
            told = "the average {metric} of {count} datasets ({names})"
        where = tr(told, count=len(comparison.sets), names=names, metric=section.metric.name)
    if not section.against_base:
        return tr("Nothing to compare: {why}.", why=_only(section, base))
    best = [tr("{model} on {name}", model=_first(one), name=one.name) for one in comparison.sets]
    per_set = tr(BEST, best=tr(", ").join(best)) if section.name == MEAN else ""
    if section.best is None and section.better:
        told = BELOW if len(section.better) == 1 else SOME_BELOW
        baseline = _baseline(section, section.better)
        below = tr(told, models=_named(section.better), base=base, where=where, baseline=baseline)
        return below + per_set + tr(DEFAULT_NONE)
    if section.best is None:
        return tr(NONE_BEATS, base=base, where=where) + per_set + tr(DEFAULT_BASE, base=base)
    return _winners(section, base, where) + per_set + _default(section, section.best, base)


def _default(section: Section, best: str, base: str) -> str:
    """Return which model to take. It has the highest figure, or the model that has it is named, too."""
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


def _highest(section: Section) -> str:
    """Return what the best figure of a section is called."""
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
    model = section.ranked[0]
    return f"{model} ({section.metric.value_text(section.figures[model].value)})"


def _winners(section: Section, base: str, where: str) -> str:
    """Who beats the base, and which of them no test tells apart."""
    beating = section.better
    models = _named(beating)
    among = [t for t in section.between if t.model in beating and t.against in beating]
    text = tr(BEATS if len(beating) == 1 else BEAT, models=models, base=base, where=where)
    if among and not any(test.shown for test in among):
        return text + tr(ALL_TIED)
    tied = [test.against for test in section.rivals]
    return text + (tr(BEST_TIED, best=section.best, models=_named(tied)) if tied else "")


def _named(models: Sequence[str]) -> str:
    more = len(models) - MOST_NAMED
    return listed([*models[:MOST_NAMED], tr("{more} more", more=more)] if more > 0 else models)


def verdict(section: Section, base: str) -> str:
    """Return what follows: ship a model, keep the base, or no evidence and what could have been shown; behind
    it what was left out, which models were trained on some of the examples, and which section decides if not
    this one."""
    told = (
        " "
        + contamination(
            model, one.trained_on, one.n, [], _metric_name(section), at_most=one.trained_on_at_most
        )
        + tr(".")
        for model, one in section.figures.items()
        if one.trained_on
    )
    left_out = ""
    if section.left_out:
        left_out = tr(LEFT_OUT, rows=tr_counted(section.left_out, "row"))
    described = tr(DESCRIBED, section=section_name(section.decided_by)) if section.decided_by else ""
    return _decision(section, base) + _within(section) + left_out + "".join(told) + described


def _decision(section: Section, base: str) -> str:
    if not section.against_base:
        return tr("Nothing to compare: {why}.", why=_only(section, base))
    best = section.best
    if best is None:
        return _not_better(section, base)
    test = _against_base(section, best)
    ours, theirs = _values(section, best, base)
    if not section.is_accuracy:
        ours = f"{section.metric.name} {ours}"
    told = AHEAD if section.decided_by else SHIP
    gain = _interval(section, test)
    text = tr(told, best=best, base=base, ours=ours, theirs=theirs, gain=gain, p=show_p(test.p))
    if test.shrunk is not None:
        text += tr(CHOSEN, count=len(section.against_base), gain=_gain(section, test.shrunk))
    over = section.over_majority.get(best)
    if over and not (over.shown and over.value > 0):
        text += tr(NOT_OVER_MAJORITY, share=percent(section.majority))
    return (
        text
        + _higher(section, best, base)
        + "".join(
            tr(TIED, model=rival.against, gain=_gain(section, rival.value), p=show_p(rival.p))
            for rival in section.rivals
        )
    )


def _against_base(section: Section, model: str) -> PairedTest:
    return next(test for test in section.against_base if test.model == model)


def _higher(section: Section, best: str, base: str) -> str:
    """Name the model of the best figure if that is not the one to ship: it is not shown to be better than
    the base, or it is worse than the majority class."""
    top = section.ranked[0]
    known = top in {test.model for test in section.against_base}
    if not known or section.figures[top].value == section.figures[best].value:
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
    if section.better:
        return _all_below_majority(section, section.better[0], base)
    below = _base_below_majority(section, base)
    worse = [test for test in section.against_base if test.shown]
    unknown = [test for test in section.against_base if not test.shown]
    if not unknown:
        each = (f"{test.model} {_gain(section, test.value)}" for test in worse)
        told = BEHIND if section.decided_by else KEEP
        return tr(told, base=base, listed=tr(", ").join(each), p=show_p(max(t.p for t in worse))) + below
    best = min(unknown, key=lambda test: section.metric.rank(test.value))
    metric = section.metric
    text = tr(
        NO_EVIDENCE,
        base=base, model=best.model, gain=_interval(section, best), p=show_p(best.p), n=best.n,
        smallest=metric.size_text(best.smallest) + metric.difference_unit,
    )  # fmt: skip
    return (
        text
        + "".join(
            tr(WORSE, model=test.model, gain=_gain(section, test.value), p=show_p(test.p)) for test in worse
        )
        + below
    )


def _all_below_majority(section: Section, best: str, base: str) -> str:
    """Say that the best model is better than the base, and still not to be shipped."""
    test = _against_base(section, best)
    ours, theirs = _values(section, best, base)
    return tr(
        NOT_BELOW,
        best=best, base=base, ours=ours, theirs=theirs, gain=_interval(section, test), p=show_p(test.p),
        below=_majority_figures(section, best), wrong=tr(WRONG),
    )  # fmt: skip


def _base_below_majority(section: Section, base: str) -> str:
    """Say that the base, which is kept, is shown to be worse than always giving the most common answer."""
    if base not in section.below_majority:
        return ""
    return tr(BASE_BELOW, base=base, below=_majority_figures(section, base), wrong=tr(WRONG))


def _majority_figures(section: Section, model: str) -> str:
    """Name the majority-class baselines that a model is shown to be worse than, with their figures."""
    figures = []
    for below in section.sections_below_majority(model):
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
    """Say of each model whether the lower limit of its difference from the best leaves the margin out."""
    if section.margin is None:
        return ""
    sentences = []
    gain = partial(points, border=-section.margin)
    for test in section.against_top:
        shown = tr("not shown")
        if test.low > -section.margin:
            shown = tr("shown")
        figures = limits(gain, (test.value, test.low, test.high), tr(" points"))
        sentences.append(
            tr(
                WITHIN,
                model=test.model, other=test.against, margin=100 * section.margin, gain=figures, shown=shown,
            )
        )  # fmt: skip
    return "".join(sentences)


def _only(section: Section, base: str) -> str:
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
