"""A comparison as Markdown for people and as JSON for programs."""

import dataclasses
import unicodedata
from collections.abc import Mapping, Sequence

from core.files import versions
from eval.measure.comparison import MEAN, Comparison, Figure, Run, Section, Test

LEFT_OUT = (
    "The intervals speak of these rows and these weights. They leave out what another training seed, "
    "another prompt or other data would change."
)


def percent(share: float) -> str:
    """Return a share as `93.3 %`."""
    return f"{100 * share:.1f} %"


def points(share: float) -> str:
    """Return a difference of shares in percentage points with its sign, `+43.3` or `−1.0`."""
    return f"{100 * share:+.1f}".replace("-", "−")


def show_p(p: float) -> str:
    """Return `= 0.032`, or `< 0.001` where it is smaller."""
    return "< 0.001" if p < 0.001 else f"= {p:.3f}" if p < 0.1 else f"= {p:.2f}"


def about(count: int) -> str:
    """Return a count to two figures with thousands parted, `2,300`."""
    digits = max(0, len(str(count)) - 2)
    return f"{round(count, -digits):,}"


def markdown(comparison: Comparison, numbered: Mapping[str, str]) -> str:
    """Return the whole judgement: accuracies, then each section's comparisons under its verdict.

    `numbered` is the key of the labels that the plots could not write out.
    """
    sections = [*comparison.sets, *([comparison.mean] if comparison.mean else [])]
    parts = [_accuracies(comparison, sections)]
    parts += [_section(section, comparison) for section in sections]
    if numbered:
        key = "\n".join(f"- {number} {label}" for label, number in numbered.items())
        parts.append(f"The plots number what no installed font can write (a CJK font would):\n\n{key}")
    return "\n\n".join([*parts, LEFT_OUT]) + "\n"


def _accuracies(comparison: Comparison, sections: Sequence[Section]) -> str:
    header = ["accuracy (95 % interval)", *(f"{s.name}, n = {s.n:,}" for s in sections)]
    rows = [["majority class", *(_majority(section) for section in sections)]]
    rows += [[model, *(_accuracy(s.figures.get(model)) for s in sections)] for model in comparison.models]
    return _table(header, rows)


def _majority(section: Section) -> str:
    return percent(section.majority) + (f" ({section.majority_label})" if section.majority_label else "")


def _accuracy(figure: Figure | None) -> str:
    if figure is None:
        return "–"
    unparsed = f", {figure.unparsed} unparsed" if figure.unparsed else ""
    return f"{percent(figure.accuracy)} ({100 * figure.low:.1f}–{100 * figure.high:.1f}){unparsed}"


def _section(section: Section, comparison: Comparison) -> str:
    rows = [_comparison_row(test) for test in section.against_base]
    best = section.best
    rows += [
        _comparison_row(t.seen_from(best)) for t in section.between if best and best in (t.model, t.against)
    ]
    parts = [f"## {section.name}", verdict(section, comparison.base)]
    header = ["", "difference, points (95 %)", "won", "lost", "p", "p, Holm", "least shown", "more rows"]
    return "\n\n".join([*parts, *([_table(header, rows)] if rows else [])])


def _comparison_row(test: Test) -> list[str]:
    interval = f"{points(test.value)} ({points(test.low)} to {points(test.high)})"
    more = "" if test.shown else "?" if test.more_rows is None else about(test.more_rows)
    p, adjusted = (show_p(value).removeprefix("= ") for value in (test.p_alone, test.p))
    won, lost = f"{test.better:,}", f"{test.worse:,}"
    return [
        f"{test.model} − {test.against}",
        interval,
        won,
        lost,
        p,
        adjusted,
        f"{100 * test.smallest:.1f}",
        more,
    ]


def verdict(section: Section, base: str) -> str:
    """Return what follows from a section, in a sentence or two."""
    if not section.against_base:
        return f"Nothing to compare: {_only(section, base)}."
    best = section.best
    if best is None:
        return _not_better(section, base)
    test = next(t for t in section.against_base if t.model == best)
    text = f"Ship {best}: {percent(section.figures[best].accuracy)} against {_seen(test, section, base)}."
    if section.figures[best].low <= section.majority:
        text += f" But it is not shown to beat the majority class ({percent(section.majority)})."
    return text + "".join(f" {_rival(rival)}" for rival in section.rivals)


def _seen(test: Test, section: Section, base: str) -> str:
    return (
        f"{percent(section.figures[base].accuracy)} of {base}, {points(test.value)} points "
        f"({points(test.low)} to {points(test.high)}), p {show_p(test.p)}"
    )


def _rival(test: Test) -> str:
    return f"No evidence of a difference from {test.against} ({points(test.value)} points, {_open(test)})."


def _open(test: Test) -> str:
    """What is missing for a difference that was not shown."""
    if test.more_rows is None:
        return f"p {show_p(test.p)}"
    return f"p {show_p(test.p)}; about {about(test.more_rows)} more rows needed"


def _not_better(section: Section, base: str) -> str:
    worse = [test for test in section.against_base if test.shown]
    unknown = [test for test in section.against_base if not test.shown]
    if not unknown:
        listed = ", ".join(f"{t.model} {points(t.value)} points" for t in worse)
        return f"Keep {base}: all others are worse ({listed}; p {show_p(max(t.p for t in worse))})."
    best = max(unknown, key=lambda test: test.value)
    text = (
        f"No evidence of a difference from {base}: {best.model} is at {points(best.value)} points "
        f"({points(best.low)} to {points(best.high)}; {_open(best)}); "
        f"{best.n:,} rows could have shown {100 * best.smallest:.1f} points."
    )
    return text + "".join(f" {t.model} is worse ({points(t.value)} points, p {show_p(t.p)})." for t in worse)


def _only(section: Section, base: str) -> str:
    if base not in section.figures:
        return f"{base} was not scored on {section.name}"
    return f"only {base} was scored" if section.name != MEAN else f"only {base} was scored on all sets"


def _table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Markdown that is aligned in a terminal too (wide characters count as two columns)."""
    widths = [max(map(_width, column)) for column in zip(header, *rows, strict=True)]
    lines = [header, ["-" * width for width in widths], *rows]
    padded = (
        [cell + " " * (width - _width(cell)) for cell, width in zip(line, widths, strict=True)]
        for line in lines
    )
    return "\n".join(f"| {' | '.join(line)} |" for line in padded)


def _width(text: str) -> int:
    return sum(2 if unicodedata.east_asian_width(letter) in "WF" else 1 for letter in text)


def to_json(comparison: Comparison, runs: Sequence[Run], warnings: Sequence[str]) -> dict[str, object]:
    """Return the comparison as plain JSON values, each section with its decision and verdict."""
    return {
        "base": comparison.base,
        "models": list(comparison.models),
        "sets": {section.name: _section_json(section, comparison.base) for section in comparison.sets},
        "mean": comparison.mean and _section_json(comparison.mean, comparison.base),
        "left_out": LEFT_OUT,
        "warnings": list(warnings),
        "runs": [run.source for run in runs],
        "versions": versions("numpy"),
    }


def _section_json(section: Section, base: str) -> dict[str, object]:
    tests = [*section.against_base, *section.between]
    return {
        "n": section.n,
        "groups": section.groups,
        "majority": section.majority,
        "majority_label": section.majority_label or None,
        "models": {model: dataclasses.asdict(figure) for model, figure in section.figures.items()},
        "comparisons": [dataclasses.asdict(test) for test in tests],
        "ship": section.best,
        "not_told_from": [test.against for test in section.rivals],
        "verdict": verdict(section, base),
    }
