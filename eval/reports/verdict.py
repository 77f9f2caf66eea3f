"""What follows from a comparison, in a sentence or two, and how its numbers are written."""

from eval.runs.judgement import MEAN, Section, Test
from eval.runs.training import contamination


def percent(share: float) -> str:
    """Return a share as `93.3 %`."""
    return f"{100 * share:.1f} %"


def points(share: float) -> str:
    """Return a difference of shares in percentage points with its sign, `+43.3` or `−1.0`."""
    text = f"{100 * share:+.1f}"
    return "+0.0" if text == "-0.0" else text.replace("-", "−")


def show_p(p: float) -> str:
    """Return `= 0.032`, or `< 0.001` where it is smaller."""
    return "< 0.001" if p < 0.001 else f"= {p:.3f}" if p < 0.1 else f"= {p:.2f}"


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
    text = f"Ship {best}: {ours} against {theirs} of {base}, {_interval(test)}, p {show_p(test.p)}."
    if section.figures[best].low <= section.majority:
        text += f" But it is not shown to beat the majority-class baseline ({percent(section.majority)})."
    return text + "".join(_rival(rival) for rival in section.rivals)


def _interval(test: Test) -> str:
    return f"{points(test.value)} points ({points(test.low)} to {points(test.high)})"


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
        f"No evidence of a difference from {base}: {best.model} is at {_interval(best)}, p {show_p(best.p)}"
        f"; minimum detectable effect at n = {best.n:,}: {100 * best.smallest:.1f} points."
    )
    return text + "".join(f" {t.model} is worse ({points(t.value)} points, p {show_p(t.p)})." for t in worse)


def _only(section: Section, base: str) -> str:
    if base not in section.figures:
        return f"{base} was not scored on {section.name}"
    if len(section.figures) > 1:
        return "figures without their rows cannot be paired and tested"
    return f"only {base} was scored" + (" on all sets" if section.name == MEAN else "")
