"""The conclusion from a comparison in one or two sentences."""

from collections.abc import Sequence
from functools import partial

from tuneyard.core.errors import show_value
from tuneyard.core.language.message import _, counted, joined, listed, marked, tr
from tuneyard.core.language.number_format import limits, percent, points, show_p
from tuneyard.eval.figures.labels import short
from tuneyard.eval.judge.conclusions import Comparison, PairedTest, Section
from tuneyard.eval.report.differences import section_name
from tuneyard.eval.report.findings import sentence
from tuneyard.eval.runs.findings import TrainedOnExamples
from tuneyard.eval.runs.results import BASE
from tuneyard.eval.runs.scored_run import merge_weights

WRONG = _(" Something is wrong with the labels, the parser or the template: read the incorrect examples.")
MOST_NAMED = 3


def decisions(comparison: Comparison, *, brief: bool = False) -> list[str]:
    """The first lines of a report: the decision with its reason and the alternative.

    One line, or one for each dataset if they cannot be averaged (different tasks). The line of one dataset
    of several has its name. `brief`: without tests and
    their figures, as a page and a plot begin.
    """
    deciding = comparison.deciding
    if len(deciding) == 1 and not deciding[0].elsewhere:
        return [decision(deciding[0], brief=brief)]
    lines = []
    for section in deciding:
        line = decision(section, brief=brief)
        lines.append(tr("On {name}: {verdict}", name=section.name, verdict=line))
    return lines


def decision(section: Section, *, brief: bool = False) -> str:
    """The decision that one section supports: ship a model, keep the base, or ship none.

    With its alternatives, and models that are worse than always giving one answer. `brief`: without tests and
    their figures. "" if another section decides.
    """
    if section.decided_by:
        return ""
    if not section.against_base:
        return tr(
            "Nothing to compare: only {models} answered these examples. Name the base and another that did.",
            models=first_few(list(map(called, section.figures))),
        )
    if section.same_answer is not None:
        return tr(
            "No verdict on accuracy: every expected answer is {answer}. Compare a figure of the rows by its "
            "name: --metric NAME.",
            answer=show_value(short(section.same_answer)),
        )
    best, base = section.conclusion.best, section.base
    if best is None:
        return _not_better(section, brief=brief)
    figures, metric = section.figures, section.metric
    value, base_value = metric.distinct_texts(figures[best].value, figures[base].value)
    if not metric.in_percent:
        value = f"{metric.name} {value}"
    text = tr(
        "Ship {best}: {ours}, against {theirs} for {base}.",
        best=called(best), ours=value, theirs=base_value, base=called(base),
    )  # fmt: skip
    text += _alternatives(section, best, brief=brief)
    over = section.baseline.tests.get(best)
    if over and not (over.significant and over.value > 0):
        share = percent(section.baseline.accuracy)
        text += tr(" But it is not shown to beat the majority-class baseline ({share}).", share=share)
    return text + _below_elsewhere(section, best)


def notes(section: Section) -> str:
    """Sentences that follow the decision from a section: the gain, the margin, rows left out, training rows.

    "" if there are none, or another section decides.
    """
    if section.decided_by:
        return ""
    text = ""
    best = section.conclusion.best
    if best is not None:
        test = section.conclusion.better[best]
        gain = section.metric.difference_text(*test.with_limits)
        text += tr(
            " The difference between {best} and {base} is {gain}, p {p}.",
            best=called(best), base=called(section.base), gain=gain, p=show_p(test.p),
        )  # fmt: skip
        if (
            test.shrunk is not None and best == section.conclusion.ranked[0]
        ):  # luck lifts the highest figure only
            text += tr(
                " Choosing the best of {count} overstates its gain; corrected for that, it is {gain}.",
                count=len(section.against_base), gain=section.metric.difference_text(test.shrunk),
            )  # fmt: skip
    if section.margin is not None:
        text += _within(section, section.margin)
    if section.left_out:
        text += tr(" Left out: {rows} without a value.", rows=counted(section.left_out, "row", "rows"))
    for model, score in section.figures.items():
        if score.trained_on:
            finding = TrainedOnExamples(
                model, "", score.trained_on, score.n, score.trained_on_at_most, (), section.metric
            )
            text += tr(" {warning}.", warning=sentence(finding))
    return text


def called(model: str) -> str:
    """A model for a sentence: the base, or a merge.

    >>> called("rte=0.5,mnli=0.5")
    'the merge (rte=0.5,mnli=0.5)'
    """
    if model == BASE:
        return tr("the base")
    if len(merge_weights(model)) > 1:
        return tr("the merge ({parts})", parts=model)
    return model


def _subject(model: str) -> str:
    """A model at the beginning of a sentence. Names keep their first letter, descriptions get a capital."""
    text = called(model)
    if text == model:
        return text
    return text[0].upper() + text[1:]


def _alternatives(section: Section, best: str, *, brief: bool) -> str:
    """The models that the best one is not shown to be better than. Otherwise the second best.

    A single adapter is simpler than a merge.
    """
    parts = len(merge_weights(best))
    simpler, others = [], []
    for test in section.conclusion.rivals:
        if max(len(merge_weights(test.against)), 1) < parts:
            simpler.append(test)
        else:
            others.append(test)
    text = ""
    if simpler:
        rivals = _rivals(section, simpler, best, brief=brief)
        if len(simpler) > 1:
            text = tr(
                " It is not shown to be better than {rivals}, which are simpler choices.", rivals=rivals
            )
        else:
            text = tr(
                " It is not shown to be better than {rivals}, which is the simpler choice.", rivals=rivals
            )
    if others and not (brief and simpler):
        rivals = _rivals(section, others, best, brief=brief)
        text += tr(" It is not shown to be better than {rivals}.", rivals=rivals)
    beaten = [
        test
        for test in section.tests_of(best)
        if test.against != section.base and (test.value > 0) == section.metric.higher
    ]
    if not text and beaten and not brief:
        second = beaten[0]
        text = tr(
            " It is better than {model}, the second best ({gain}, p {p}).",
            model=called(second.against), gain=section.metric.difference_text(second.value),
            p=show_p(second.p),
        )  # fmt: skip
    return text


def _rivals(section: Section, tests: Sequence[PairedTest], best: str, *, brief: bool) -> str:
    """List rivals, with gain and p if not `brief`."""
    rivals = []
    for test in tests:
        name = called(test.against)
        if test.against in merge_weights(best):
            name = tr("{model} alone", model=name)
        if not brief:
            gain = section.metric.difference_text(test.value)
            name = tr("{model} ({gain}, p {p})", model=name, gain=gain, p=show_p(test.p))
        rivals.append(name)
    return first_few(rivals)


def first_few(names: Sequence[str]) -> str:
    """List the first three names for a sentence, and the number of the others.

    >>> first_few(["base", "rte", "mnli", "qqp", "snli"])
    'base, rte, mnli and 2 more'
    """
    more = len(names) - MOST_NAMED
    if more <= 0:
        return listed(names)
    return listed([*names[:MOST_NAMED], tr("{more} more", more=more)])


def _not_better(section: Section, *, brief: bool) -> str:
    """No model to ship: all are worse, there is no evidence, or the best is below the majority class."""
    base = section.base
    if section.conclusion.better:
        best, test = next(iter(section.conclusion.better.items()))
        below_majority = section.below_majority(best)
        if brief:
            return tr(
                "Ship none: the best model, {best}, is worse on {datasets} than always giving the most "
                "common answer.",
                best=called(best), datasets=listed([section_name(one.name) for one in below_majority]),
            ) + tr(WRONG)  # fmt: skip
        figures = section.figures
        value, base_value = section.metric.distinct_texts(figures[best].value, figures[base].value)
        below = _majority_figures(below_majority, best, section)
        text = tr(
            "Ship none: {best} is better than {base} ({ours}, against {theirs}, {gain}, p {p}), but worse "
            "than {below}.",
            best=called(best), base=called(base), ours=value, theirs=base_value,
            gain=section.metric.difference_text(*test.with_limits), p=show_p(test.p), below=below,
        )  # fmt: skip
        return text + tr(WRONG)
    undecided = [test for test in section.against_base if not test.significant]
    worse = [test for test in section.against_base if test.significant]
    if undecided:
        text = tr("Keep {base}: there is no evidence that another model is better.", base=called(base))
    elif brief:
        text = tr("Keep {base}: all others are worse.", base=called(base))
    else:
        losses = [f"{called(test.model)} {section.metric.difference_text(test.value)}" for test in worse]
        text = tr(
            "Keep {base}: all others are worse ({listed}; p {p}).",
            base=called(base), listed=joined(losses), p=show_p(max(test.p for test in worse)),
        )  # fmt: skip
    if brief:
        return text
    if undecided:
        text += _closest(section, undecided)
        for test in worse:
            gain = section.metric.difference_text(test.value)
            text += tr(
                " {model} is worse ({gain}, p {p}).", model=_subject(test.model), gain=gain, p=show_p(test.p)
            )
    below_majority = section.below_majority(base)
    if below_majority:
        below = _majority_figures(below_majority, base, section)
        text += tr(" {base} is worse than {below}.", base=_subject(base), below=below) + tr(WRONG)
    return text + _below_elsewhere(section, base)


def _closest(section: Section, undecided: Sequence[PairedTest]) -> str:
    """The best of the models that are not shown to differ from the base, and what could be shown."""
    metric = section.metric
    best = min(undecided, key=lambda test: metric.rank(test.value))
    return tr(
        " The closest is {model}: {gain}, p {p}; minimum detectable effect at n = {n:,}: {smallest}.",
        model=called(best.model), gain=metric.difference_text(*best.with_limits), p=show_p(best.p),
        n=best.n, smallest=metric.difference_text(best.smallest, sign=""),
    )  # fmt: skip


def _below_elsewhere(section: Section, model: str) -> str:
    """Warn that a model is worse than the majority class on a dataset that does not decide."""
    below = [dataset for dataset in section.elsewhere if dataset.below_majority(model)]
    if not below:
        return ""
    figures = _majority_figures(below, model, section)
    return tr(" But {model} is worse than {below}.", model=called(model), below=figures) + tr(WRONG)


def _majority_figures(sections: Sequence[Section], model: str, section: Section) -> str:
    """List the majority-class baselines of `sections` that a model is shown to be worse than.

    Those of other sections than `section` are named.
    """
    figures = []
    for below in sections:
        baseline = tr("the majority-class baseline")
        if below is not section:
            baseline = tr("the majority-class baseline on {datasets}", datasets=below.name)
        p = show_p(below.baseline.tests[model].p)
        figures.append(
            tr("{baseline} ({share}, p {p})", baseline=baseline, share=percent(below.baseline.accuracy), p=p)
        )
    return listed(figures)


def _within(section: Section, margin: float) -> str:
    """For each model: is it shown to be within the margin of the best?"""
    sentences = []
    gain = partial(points, border=-margin)
    for test in section.conclusion.against_top:
        template = marked(" {model} is not shown to be within {margin:g} points of {other}: {gain}.")
        if test.model in section.conclusion.within_margin:
            template = marked(" {model} is shown to be within {margin:g} points of {other}: {gain}.")
        figures = limits(gain, test.with_limits, tr(" points"))
        sentences.append(
            tr(
                template,
                model=_subject(test.model),
                margin=100 * margin,
                other=called(test.against),
                gain=figures,
            )
        )
    return "".join(sentences)
