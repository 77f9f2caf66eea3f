"""What follows from a comparison, in a sentence or two."""

from eval.reports.numbers import percent, points, points_interval, show_p
from eval.runs.judgement import MEAN, Section, Test
from eval.runs.training import contamination


def verdict(section: Section, base: str) -> str:
    """Return what follows: ship a model, keep the base, or no evidence and what could have been shown.

    Models that were trained on some of the examples are named behind it.
    """
    trained = [(model, figure) for model, figure in section.figures.items() if figure.trained_on]
    told = (f" {contamination(model, one.trained_on, one.n, [])}." for model, one in trained)
    return _decision(section, base) + "".join(told)


def _decision(section: Section, base: str) -> str:
    if not section.against_base:
        return f"Nothing to compare: {_only(section, base)}."
    best = section.best
    if best is None:
        return _not_better(section, base)
    test = next(t for t in section.against_base if t.model == best)
    ours, theirs = (percent(section.figures[model].accuracy) for model in (best, base))
    text = f"Ship {best}: {ours} against {theirs} of {base}, {_points(test)}, p {show_p(test.p)}."
    if section.figures[best].low <= section.majority:
        text += f" But it is not shown to beat the majority-class baseline ({percent(section.majority)})."
    return text + "".join(_rival(rival) for rival in section.rivals)


def _points(test: Test) -> str:
    return points_interval(test.value, test.low, test.high, " points")


def _rival(test: Test) -> str:
    seen = f"{points(test.value)} points, p {show_p(test.p)}"
    return f" Statistically tied with {test.against} ({seen})."


def _not_better(section: Section, base: str) -> str:
    worse = [test for test in section.against_base if test.shown]
    unknown = [test for test in section.against_base if not test.shown]
    if not unknown:
        listed = ", ".join(f"{t.model} {points(t.value)} points" for t in worse)
        return f"Keep {base}: all others are worse ({listed}; p {show_p(max(t.p for t in worse))})."
    best = max(unknown, key=lambda test: test.value)
    text = (
        f"No evidence of a difference from {base}: {best.model} is at {_points(best)}, p {show_p(best.p)}"
        f"; minimum detectable effect at n = {best.n:,}: {100 * best.smallest:.1f} points."
    )
    return text + "".join(f" {t.model} is worse ({points(t.value)} points, p {show_p(t.p)})." for t in worse)


def _only(section: Section, base: str) -> str:
    if base not in section.figures:
        return f"{base} was not scored on {section.name}"
    if len(section.figures) > 1:
        return "figures without their rows cannot be paired and tested"
    return f"only {base} was scored" + (" on all sets" if section.name == MEAN else "")
