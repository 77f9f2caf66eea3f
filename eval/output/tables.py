"""A comparison as Markdown for people and as JSON for programs."""

import dataclasses
import unicodedata
from collections.abc import Mapping, Sequence

from core.files import versions
from eval.measure.judgement import MEAN, Comparison, Figure, Run, Section, Test
from eval.output.verdict import about, percent, points, show_p, verdict

LEFT_OUT = (
    "The intervals speak of these rows and these weights. They leave out what another training seed, "
    "another prompt or other data would change."
)
WIDE = 7  # more columns than this do not fit a screen
COMPARISON = ["", "difference, points (95 %)", "won", "lost", "p", "p, Holm", "least shown", "more rows"]


def markdown(comparison: Comparison, numbered: Mapping[str, str]) -> str:
    """Return the whole judgement: accuracies, then each section's comparisons under its verdict.

    `numbered` is the key of the labels that the plots could not write out.
    """
    parts = [_accuracies(comparison), _macro_f1(comparison)]
    parts += [_section(section, comparison.base) for section in comparison.sections]
    if numbered:
        key = "\n".join(f"- {number} {label}" for label, number in numbered.items())
        parts.append(f"The plots number what no installed font can write (a CJK font would):\n\n{key}")
    return "\n\n".join([*filter(None, parts), LEFT_OUT]) + "\n"


def _accuracies(comparison: Comparison) -> str:
    columns = [["accuracy (95 % interval)", "majority class", *comparison.models]]
    for section in comparison.sections:
        cells = [_accuracy(section.figures.get(model)) for model in comparison.models]
        columns.append([f"{section.name}, n = {section.n:,}", _majority(section), *cells])
    return _turned(columns)


def _macro_f1(comparison: Comparison) -> str:
    columns = [["macro-F1 (95 % interval)", *comparison.models]]
    for section in comparison.sets:
        scores = {model: figure.macro_f1 for model, figure in section.figures.items()}
        if any(scores.values()):
            columns.append([section.name, *(_interval(scores.get(model)) for model in comparison.models)])
    return _turned(columns) if len(columns) > 1 else ""


def _turned(columns: Sequence[Sequence[str]]) -> str:
    """Models as rows and sets as columns; the other way round where there are many sets."""
    rows = list(zip(*columns, strict=True)) if len(columns) <= WIDE else columns
    return _grid(rows[0], rows[1:])


def _majority(section: Section) -> str:
    return percent(section.majority) + (f" ({section.majority_label})" if section.majority_label else "")


def _accuracy(figure: Figure | None) -> str:
    if figure is None:
        return "–"
    unparsed = f", {figure.unparsed} unparsed" if figure.unparsed else ""
    return _interval((figure.accuracy, figure.low, figure.high)) + unparsed


def _interval(share: tuple[float, float, float] | None) -> str:
    if share is None:
        return "–"
    value, low, high = share
    return f"{percent(value)} ({100 * low:.1f}–{100 * high:.1f})"


def _section(section: Section, base: str) -> str:
    best = section.best
    others = [test for test in section.between if best in (test.model, test.against)]
    tests = [*section.against_base, *(test.seen_from(best) for test in others if best)]
    parts = [f"## {section.name}", verdict(section, base)]
    if tests:
        parts += [_grid(COMPARISON, [_comparison(test) for test in tests]), _method(section)]
    return "\n\n".join(parts)


def _comparison(test: Test) -> list[str]:
    interval = f"{points(test.value)} ({points(test.low)} to {points(test.high)})"
    more = "" if test.shown else "?" if test.more_rows is None else about(test.more_rows)
    p, adjusted = (show_p(value).removeprefix("= ") for value in (test.p_alone, test.p))
    won, lost, least = f"{test.better:,}", f"{test.worse:,}", f"{100 * test.smallest:.1f}"
    return [f"{test.model} − {test.against}", interval, won, lost, p, adjusted, least, more]


def _method(section: Section) -> str:
    """How the comparisons of a section were made, in a line."""
    family = f"Holm over {len(section.against_base)} against the base"
    if section.between:
        family += f", over {len(section.between)} among the others"
    if section.name == MEAN:
        return f"Every set counts alike; p by sign flips within each set (100,000 draws); {family}."
    if section.groups is None:
        return f"{section.n:,} independent rows: exact McNemar, Bonett–Price intervals; {family}."
    return (
        f"{section.n:,} rows in {section.groups:,} groups: exact sign flips by group, "
        f"cluster bootstrap (10,000 draws); {family}."
    )


def _grid(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table that is aligned in a terminal too (wide letters fill two columns)."""
    cells = [[text.replace("|", "\\|") for text in line] for line in (header, *rows)]
    widths = [max(map(_width, column)) for column in zip(*cells, strict=True)]
    lines = [cells[0], ["-" * width for width in widths], *cells[1:]]
    padded = ([_pad(*cell) for cell in zip(line, widths, strict=True)] for line in lines)
    return "\n".join(f"| {' | '.join(line)} |" for line in padded)


def _pad(text: str, width: int) -> str:
    return text + " " * (width - _width(text))


def _width(text: str) -> int:
    return sum(2 if unicodedata.east_asian_width(letter) in "WF" else 1 for letter in text)


def to_json(
    comparison: Comparison, runs: Sequence[Run], warnings: Sequence[str], plots: Sequence[str]
) -> dict[str, object]:
    """Return the comparison as plain JSON values, each section with its decision and verdict."""
    return {
        "base": comparison.base,
        "models": list(comparison.models),
        "sets": {section.name: _section_json(section, comparison.base) for section in comparison.sets},
        "mean": comparison.mean and _section_json(comparison.mean, comparison.base),
        "left_out": LEFT_OUT,
        "warnings": list(warnings),
        "runs": [run.source for run in runs],
        "plots": list(plots),
        "versions": versions("numpy"),
    }


def _section_json(section: Section, base: str) -> dict[str, object]:
    return {
        "n": section.n,
        "groups": section.groups,
        "majority": section.majority,
        "majority_label": section.majority_label or None,
        "models": {model: dataclasses.asdict(figure) for model, figure in section.figures.items()},
        "comparisons": [dataclasses.asdict(test) for test in (*section.against_base, *section.between)],
        "ship": section.best,
        "not_told_from": [test.against for test in section.rivals],
        "verdict": verdict(section, base),
    }
