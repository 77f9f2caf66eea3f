"""What follows from a comparison, in a sentence or two."""

from eval.reports.numbers import percent, points, points_interval, show_p
from eval.runs.judgement import MEAN, PairedTest, Section
from eval.runs.training import contamination

SHIP = "Ship {best}: {ours} against {theirs} of {base}, {gain}, p {p}."
AHEAD = "Better than {base} here: {best}, {ours} against {theirs}, {gain}, p {p}."
NOT_OVER_MAJORITY = " But it is not shown to beat the majority-class baseline ({share})."
CHOSEN = " The best of {count} candidates is partly lucky: drawn towards their mean it is at {points} points."
TIED = " Statistically tied with {model} ({points} points, p {p})."
KEEP = "Keep {base}: all others are worse ({listed}; p {p})."
BEHIND = "Worse than {base} here: all others ({listed}; p {p})."
NO_EVIDENCE = (
    "No evidence of a difference from {base}: {model} is at {gain}, p {p}; "
    "minimum detectable effect at n = {n:,}: {smallest:.1f} points."
)
WORSE = " {model} is worse ({points} points, p {p})."
WITHIN = " {model} is {shown} to be within {margin:g} points of {other}: {gain}."
DESCRIBED = " This describes; the verdict is the one on {section}."


def verdict(section: Section, base: str) -> str:
    """Return what follows: ship a model, keep the base, or no evidence and what could have been shown.

    A section that another decides for only describes. Models that were trained on some of the examples
    are named behind it.
    """
    trained = [(model, figure) for model, figure in section.figures.items() if figure.trained_on]
    told = (f" {contamination(model, one.trained_on, one.n, [])}." for model, one in trained)
    described = DESCRIBED.format(section=section.decided_by) if section.decided_by else ""
    return _decision(section, base) + _within(section) + "".join(told) + described


def _decision(section: Section, base: str) -> str:
    if not section.against_base:
        return f"Nothing to compare: {_only(section, base)}."
    best = section.best
    if best is None:
        return _not_better(section, base)
    test = next(t for t in section.against_base if t.model == best)
    ours, theirs = (percent(section.figures[model].accuracy) for model in (best, base))
    told = AHEAD if section.decided_by else SHIP
    text = told.format(best=best, base=base, ours=ours, theirs=theirs, gain=_points(test), p=show_p(test.p))
    if test.shrunk is not None:
        text += CHOSEN.format(count=len(section.against_base), points=points(test.shrunk))
    over = section.over_majority.get(best)
    if over and not (over.shown and over.value > 0):
        text += NOT_OVER_MAJORITY.format(share=percent(section.majority))
    return text + "".join(
        TIED.format(model=rival.against, points=points(rival.value), p=show_p(rival.p))
        for rival in section.rivals
    )


def _points(test: PairedTest) -> str:
    return points_interval(test.value, test.low, test.high, " points")


def _not_better(section: Section, base: str) -> str:
    worse = [test for test in section.against_base if test.shown]
    unknown = [test for test in section.against_base if not test.shown]
    if not unknown:
        listed = ", ".join(f"{t.model} {points(t.value)} points" for t in worse)
        told = BEHIND if section.decided_by else KEEP
        return told.format(base=base, listed=listed, p=show_p(max(t.p for t in worse)))
    best = max(unknown, key=lambda test: test.value)
    text = NO_EVIDENCE.format(
        base=base, model=best.model, gain=_points(best), p=show_p(best.p), n=best.n,
        smallest=100 * best.smallest,
    )  # fmt: skip
    return text + "".join(WORSE.format(model=t.model, points=points(t.value), p=show_p(t.p)) for t in worse)


def _within(section: Section) -> str:
    """Say of each model whether the lower limit of its difference from the best leaves the margin out."""
    if section.margin is None:
        return ""
    return "".join(
        WITHIN.format(
            model=test.model, other=test.against, margin=100 * section.margin, gain=_points(test),
            shown="shown" if test.low > -section.margin else "not shown",
        )
        for test in section.against_top
    )  # fmt: skip


def _only(section: Section, base: str) -> str:
    if base not in section.figures:
        return f"{base} was not scored on {section.name}"
    if len(section.figures) > 1:
        return "figures without their rows cannot be paired and tested"
    return f"only {base} was scored" + (" on all sets" if section.name == MEAN else "")
