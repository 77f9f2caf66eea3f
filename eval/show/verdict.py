"""The conclusion from a comparison in one or two sentences."""

import re
from collections.abc import Sequence
from functools import partial

from tuneyard.core.language.number_format import limits, percent, points, show_p
from tuneyard.core.language.translation import listed, tr, tr_counted
from tuneyard.eval.judge.conclusions import MEAN, Comparison, PairedTest, Section
from tuneyard.eval.judge.questions.against_base import section_name
from tuneyard.eval.read.contamination import contamination

SHIP = "Ship {best}: {ours}, against {theirs} for {base}."
SHIP_ON = "Ship {best}: {ours} on {name}, against {theirs} for {base}."
AHEAD = "Better than {base} here: {best}, {ours}, against {theirs}."
NOT_BETTER = " It is not shown to be better than {rivals}."
SIMPLER = " It is not shown to be better than {rivals}, which is the simpler choice."
ALL_SIMPLER = " It is not shown to be better than {rivals}, which are simpler choices."
SECOND = " It is better than {model}, the second best ({gain}, p {p})."
DIFFERENCE = " The difference between {best} and {base} is {gain}, p {p}."
CHOSEN = " Choosing the best of {count} overstates its gain; corrected for that, it is {gain}."
NOT_OVER_MAJORITY = " But it is not shown to beat the majority-class baseline ({share})."
KEEP = "Keep {base}: all others are worse ({listed}; p {p})."
BEHIND = "Worse than {base} here: all others ({listed}; p {p})."
UNDECIDED = (
    "Keep {base}: there is no evidence that another model is better. The closest is {model}: {gain}, p {p}; "
    "minimum detectable effect at n = {n:,}: {smallest}."
)
NO_EVIDENCE = (
    "No evidence of a difference from {base} here: {model} is at {gain}, p {p}; "
    "minimum detectable effect at n = {n:,}: {smallest}."
)
KEEP_BRIEFLY = "Keep {base}: all others are worse."
UNDECIDED_BRIEFLY = "Keep {base}: there is no evidence that another model is better."
SHIP_NONE = "Ship none: the best model, {best}, is worse than always giving the commonest answer. {wrong}"
WORSE = " {model} is worse ({gain}, p {p})."
LEFT_OUT = " Left out: {rows} without a value."
WITHIN = " {model} is {shown} to be within {margin:g} points of {other}: {gain}."
DESCRIBED = " This is for information; the verdict is the one on {section}."
NOT_BELOW = (
    "Ship none: {best} is better than {base} ({ours}, against {theirs}, {gain}, p {p}), but worse than "
    "{below}. {wrong}"
)
WRONG = "Something is wrong with the labels, the parser or the template: read the incorrect examples."
BASE_BELOW = " {base} is worse than {below}. {wrong}"
BELOW_ELSEWHERE = " But {model} is worse than {below}. {wrong}"
MAJORITY = "the majority-class baseline"
MAJORITY_ON = "the majority-class baseline on {datasets}"
HIGHER = " {top} has a better figure ({value}), but is not shown to be better than {base} ({gain}, p {p})."
HIGHER_BELOW = " {top} has a better figure ({value}), but is worse than {below}."
BASE = "base"
MOST_RIVALS = 3
MERGE_PART = re.compile(r"(?P<adapter>[^=,]+)=(?P<weight>-?\d+(?:\.\d+)?)")
"""An adapter and its weight in the name of a merge, e.g. `rte=0.5,mnli=0.5`."""


def decisions(comparison: Comparison) -> list[str]:
    """The first lines of a report: the decision with its reason and the alternative.

    One line, or one for each dataset if they cannot be averaged (different tasks).
    """
    deciding = comparison.deciding
    lines = [decision(section, comparison.base) for section in deciding]
    if len(deciding) == 1:
        return lines
    lines_with_names = []
    for section, line in zip(deciding, lines, strict=True):
        lines_with_names.append(tr("On {name}: {verdict}", name=section.name, verdict=line))
    return lines_with_names


def verdict(section: Section, base: str) -> str:
    """The decision from one section with all further sentences, and the deciding section if it is another."""
    text = decision(section, base) + notes(section, base)
    if section.decided_by:
        text += tr(DESCRIBED, section=section_name(section.decided_by))
    return text


def headline(section: Section, comparison: Comparison) -> str:
    """The decision of a section in one or two short sentences, without p values: what a page begins with."""
    text = decision(section, comparison.base, brief=True)
    if len(comparison.deciding) == 1:
        return text
    return tr("On {name}: {verdict}", name=section.name, verdict=text)


def decision(section: Section, base: str, *, brief: bool = False) -> str:
    """The decision that one section supports: ship a model, keep the base, or ship none.

    A section that does not decide says which model is better or worse. `brief`: without tests and their
    figures.
    """
    if not section.against_base:
        return tr("Nothing to compare: {why}.", why=_only(section, base))
    best = section.best
    if best is None:
        return _not_better(section, base, brief=brief)
    value, base_value = _values(section, best, base)
    if not section.is_accuracy:
        value = f"{section.metric.name} {value}"
    template = SHIP
    if section.elsewhere:
        template = SHIP_ON
    if section.decided_by:
        template = AHEAD
    text = tr(
        template,
        best=called(best), base=called(base), ours=value, theirs=base_value, name=section.name,
    )  # fmt: skip
    text += _alternatives(section, best, brief=brief)
    over = section.over_majority.get(best)
    if over and not (over.shown and over.value > 0):
        text += tr(NOT_OVER_MAJORITY, share=percent(section.majority))
    text += _below_elsewhere(section, best)
    if brief:
        return text
    return text + _higher(section, best, base)


def notes(section: Section, base: str) -> str:
    """Sentences that follow the decision from a section: the gain, the margin, rows left out, training rows.

    "" if there are none.
    """
    text = ""
    best = section.best
    if best is not None:
        test = _against_base(section, best)
        gain = _interval(section, test)
        text += tr(DIFFERENCE, best=called(best), base=called(base), gain=gain, p=show_p(test.p))
        if test.shrunk is not None and not _higher(section, best, base):  # luck lifts the highest figure only
            text += tr(CHOSEN, count=len(section.against_base), gain=_gain(section, test.shrunk))
    text += _within(section)
    if section.left_out:
        text += tr(LEFT_OUT, rows=tr_counted(section.left_out, "row"))
    metric = _metric_name(section)
    for model, score in section.figures.items():
        if score.trained_on:
            warning = contamination(
                model, score.trained_on, score.n, [], metric, at_most=score.trained_on_at_most
            )
            text += f" {warning}{tr('.')}"
    return text


def called(model: str) -> str:
    """A model for a sentence: the base, or a merge by its adapters and weights.

    >>> called("rte=0.5,mnli=0.5")
    'the merge (rte × 0.5 + mnli × 0.5)'
    """
    if model == BASE:
        return tr("the base")
    weights = _merge_weights(model)
    parts = []
    for adapter, weight in weights.items():
        if len(weights) == 1 and float(weight) == 1:
            return adapter
        parts.append(f"{adapter} × {weight}")
    if len(parts) > 1:
        return tr("the merge ({parts})", parts=" + ".join(parts))
    return "".join(parts) or model


def _merge_weights(model: str) -> dict[str, str]:
    """Weights by adapter in the name of a merge, without those of weight 0. {} for any other name."""
    weights = {}
    for part in model.split(","):
        match = MERGE_PART.fullmatch(part)
        if match is None:
            return {}
        if float(match["weight"]) != 0:
            weights[match["adapter"]] = match["weight"]
    return weights


def _subject(model: str) -> str:
    """A model at the beginning of a sentence. Names keep their first letter, descriptions get a capital."""
    text = called(model)
    if text == model:
        return text
    return text[0].upper() + text[1:]


def _alternatives(section: Section, best: str, *, brief: bool) -> str:
    """The models that the best one is not shown to be better than. Otherwise the second best.

    A single adapter is simpler than a merge. Models of a better figure are left to `_higher`.
    """
    rank = section.metric.rank
    best_rank = rank(section.figures[best].value)
    better_figure = [model for model in section.ranked if rank(section.figures[model].value) < best_rank]
    rivals = [test for test in section.rivals if test.against not in better_figure]
    if not rivals and not better_figure and not brief:
        return _second(section, best)
    parts = len(_merge_weights(best))
    simpler, others = [], []
    for test in rivals:
        if max(len(_merge_weights(test.against)), 1) < parts:
            simpler.append(test)
        else:
            others.append(test)
    text = ""
    if simpler:
        template = SIMPLER
        if len(simpler) > 1:
            template = ALL_SIMPLER
        text += tr(template, rivals=_rivals(section, simpler, best, brief=brief))
    if others:
        text += tr(NOT_BETTER, rivals=_rivals(section, others, best, brief=brief))
    return text


def _second(section: Section, best: str) -> str:
    """The candidate of the second best figure, which the best one is shown to be better than."""
    tests = [test.seen_from(best) for test in section.between if best in (test.model, test.against)]
    by_model = {test.against: test for test in tests}
    for model in section.ranked:
        if model in by_model:
            test = by_model[model]
            gain = _gain(section, test.value)
            return tr(SECOND, model=called(model), gain=gain, p=show_p(test.p))
    return ""


def _rivals(section: Section, tests: Sequence[PairedTest], best: str, *, brief: bool) -> str:
    """List rivals, the best first and at most `MOST_RIVALS`, with gain and p if not `brief`."""
    ranked = sorted(tests, key=lambda test: section.ranked.index(test.against))
    listed_rivals = []
    for test in ranked[:MOST_RIVALS]:
        name = called(test.against)
        if test.against in _merge_weights(best):
            name = tr("{model} alone", model=name)
        if not brief:
            name = tr(
                "{model} ({gain}, p {p})", model=name, gain=_gain(section, test.value), p=show_p(test.p)
            )
        listed_rivals.append(name)
    more = len(ranked) - MOST_RIVALS
    if more > 0:
        listed_rivals.append(tr("{more} more", more=more))
    return listed(listed_rivals)


def _against_base(section: Section, model: str) -> PairedTest:
    return next(test for test in section.against_base if test.model == model)


def _higher(section: Section, best: str, base: str) -> str:
    """Name the model of the best figure if another model is shipped.

    It is not shown to be better than the base, or it is worse than the majority class. "" otherwise.
    """
    top = section.ranked[0]
    candidates = {test.model for test in section.against_base}
    if top not in candidates or section.figures[top].value == section.figures[best].value:
        return ""
    test = _against_base(section, top)
    _, value = _values(section, best, top)
    if top in section.below_majority:
        return tr(HIGHER_BELOW, top=_subject(top), value=value, below=_majority_figures(section, top))
    return tr(
        HIGHER,
        top=_subject(top), value=value, base=called(base), gain=_interval(section, test), p=show_p(test.p),
    )  # fmt: skip


def _values(section: Section, model: str, other: str) -> tuple[str, str]:
    """The figures of two models, with as many digits as show that they differ."""
    return section.metric.distinct_texts(section.figures[model].value, section.figures[other].value)


def _gain(section: Section, value: float) -> str:
    return section.metric.signed_text(value) + section.metric.difference_unit


def _interval(section: Section, test: PairedTest) -> str:
    figures = (test.value, test.low, test.high)
    return limits(section.metric.signed_text, figures, section.metric.difference_unit)


def _not_better(section: Section, base: str, *, brief: bool) -> str:
    """No model to ship: all are worse, there is no evidence, or the best is below the majority class."""
    if brief:
        template = KEEP_BRIEFLY
        if section.better:
            template = SHIP_NONE
        elif not all(test.shown for test in section.against_base):
            template = UNDECIDED_BRIEFLY
        return tr(template, base=called(base), best=called((section.better or [base])[0]), wrong=tr(WRONG))
    if section.better:
        return _all_below_majority(section, section.better[0], base)
    below = _base_below_majority(section, base) + _below_elsewhere(section, base)
    worse = [test for test in section.against_base if test.shown]
    undecided = [test for test in section.against_base if not test.shown]
    if not undecided:
        losses = [f"{called(test.model)} {_gain(section, test.value)}" for test in worse]
        template = KEEP
        if section.decided_by:
            template = BEHIND
        p = show_p(max(test.p for test in worse))
        return tr(template, base=called(base), listed=tr(", ").join(losses), p=p) + below
    best = min(undecided, key=lambda test: section.metric.rank(test.value))
    metric = section.metric
    template = UNDECIDED
    if section.decided_by:
        template = NO_EVIDENCE
    text = tr(
        template,
        base=called(base), model=called(best.model), gain=_interval(section, best), p=show_p(best.p),
        n=best.n, smallest=metric.size_text(best.smallest) + metric.difference_unit,
    )  # fmt: skip
    for test in worse:
        text += tr(WORSE, model=_subject(test.model), gain=_gain(section, test.value), p=show_p(test.p))
    return text + below


def _all_below_majority(section: Section, best: str, base: str) -> str:
    """The best model is better than the base, but worse than the majority class: ship none."""
    test = _against_base(section, best)
    value, base_value = _values(section, best, base)
    return tr(
        NOT_BELOW,
        best=called(best), base=called(base), ours=value, theirs=base_value,
        gain=_interval(section, test), p=show_p(test.p), below=_majority_figures(section, best),
        wrong=tr(WRONG),
    )  # fmt: skip


def _base_below_majority(section: Section, base: str) -> str:
    """Warn that the base is worse than the majority class, "" if that is not shown."""
    if base not in section.below_majority:
        return ""
    return tr(BASE_BELOW, base=_subject(base), below=_majority_figures(section, base), wrong=tr(WRONG))


def _below_elsewhere(section: Section, model: str) -> str:
    """Warn that a model is worse than the majority class on a dataset that does not decide."""
    below = section.elsewhere_below_majority(model)
    if not below:
        return ""
    figures = _baselines_with_figures(below, model, section)
    return tr(BELOW_ELSEWHERE, model=called(model), below=figures, wrong=tr(WRONG))


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
                model=_subject(test.model), other=called(test.against), margin=100 * section.margin,
                gain=figures, shown=conclusion,
            )
        )  # fmt: skip
    return "".join(sentences)


def _only(section: Section, base: str) -> str:
    """Reason why there is nothing to compare."""
    if base not in section.figures:
        return tr("{base} was not scored on {name}", base=called(base), name=section_name(section.name))
    if section.name == MEAN:
        return tr("only {base} was scored on all sets", base=called(base))
    return tr("only {base} was scored", base=called(base))


def _metric_name(section: Section) -> str:
    """Name of the metric, "" for accuracy."""
    if section.is_accuracy:
        return ""
    return section.metric.name
