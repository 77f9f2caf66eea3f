"""A comparison in any metric as tables, a verdict and JSON."""

from collections.abc import Sequence
from dataclasses import asdict

from core.language import tr
from core.metrics import direction
from eval.reports.numbers import NONE, Table, grid, p_cell, show_p
from eval.reports.tables import LEFT_OUT, made_of, metric_on
from eval.reports.verdict import section_name
from eval.runs.judgement import Comparison, PairedTest, ScoredRun, Section


def graded_markdown(compared: Comparison) -> str:
    """Return figures, then each section's differences under what follows, the one that decides first."""
    sections = sorted(compared.sections, key=lambda section: bool(section.decided_by))
    parts = [grid(_figures(compared))]
    for section in sections:
        rows = [_row(one) for one in (*section.against_base, *section.between)]
        table = Table(["", "difference (95 %)", "better", "worse", "p", "minimum detectable effect"], rows)
        parts += [f"## {section.name}", graded_verdict(section, compared), *([grid(table)] if rows else [])]
    return "\n\n".join([*parts, LEFT_OUT]) + "\n"


def metric_differences(found: Sequence[Comparison]) -> Table:
    """Return every model against the base in several metrics, a row for each dataset and the mean."""
    rows = []
    for each in found:
        for section in each.sections:
            where = section_name(section.name)
            named = metric_on(each.metric, where, each.meaning.unit, each.meaning.higher)
            rows += [[named, *_row(test)[:5]] for test in section.against_base]
    return Table([tr("metric"), "", tr("difference (95 %)"), tr("better"), tr("worse"), "p"], rows)


def graded_verdict(section: Section, compared: Comparison) -> str:
    """Return what follows of a section: ship a model, keep the base, or no evidence of a difference."""
    rank, base = compared.meaning.rank, compared.base
    left = f" Left out: {section.left_out} rows without a value." if section.left_out else ""
    if not section.against_base:
        return f"Nothing to compare with {base}.{left}"
    sign = 1 if compared.meaning.higher else -1
    shown = [one for one in section.against_base if one.shown]
    better = [one for one in shown if sign * one.value > 0]
    order = sorted(better or section.against_base, key=lambda one: rank(section.figures[one.model].value))
    first = order[0]
    ours, theirs = (_number(section.figures[model].value) for model in (first.model, base))
    gain = f"{_gain(first)}, p {show_p(first.p)}"
    if better:
        told = "Better here:" if section.decided_by else "Ship"
        rivals = [one for one in section.between if first.model in (one.model, one.against) and not one.shown]
        also = "".join(f" Statistically tied with {one.seen_from(first.model).against}." for one in rivals)
        if first.shrunk is not None:
            drawn = f"drawn towards their mean it is at {_number(first.shrunk, '+')}"
            also = f" The best of {len(section.against_base)} candidates is partly lucky: {drawn}.{also}"
        figures = f"{compared.metric} {ours} against {theirs} of {base}"
        return f"{told} {first.model}: {figures}, {gain}.{also}{left}"
    if len(shown) == len(section.against_base):
        told = f"Worse than {base} here" if section.decided_by else f"Keep {base}"
        return f"{told}: the best of the others is {first.model}, {gain}.{left}"
    least = _number(first.smallest)
    return (
        f"No evidence of a difference from {base}: {first.model} is at {gain}; minimum detectable effect at "
        f"n = {section.n:,}: {least}.{left}"
    )


def graded_json(
    compared: Comparison, runs: Sequence[ScoredRun], warnings: Sequence[str]
) -> dict[str, object]:
    """Return the comparison as plain JSON values, each section with its verdict."""
    return {
        "metric": compared.metric,
        "unit": compared.meaning.unit,
        "higher_is_better": compared.meaning.higher,
        "base": compared.base,
        "models": list(compared.models),
        "sections": [_section_json(one, compared) for one in compared.sections],
        **made_of(runs, warnings),
    }


def _section_json(section: Section, compared: Comparison) -> dict[str, object]:
    tests = {name: [*map(_test_json, getattr(section, name))] for name in ("against_base", "between")}
    figures = {
        model: {"value": one.value, "stderr": one.stderr, "ci95": [one.low, one.high]}
        for model, one in section.figures.items()
    }
    told = {"name": section.name, "n": section.n, "left_out": section.left_out, "figures": figures}
    decided = {"decides": not section.decided_by, "verdict": graded_verdict(section, compared)}
    return {**told, **tests, **decided}


def _test_json(test: PairedTest) -> dict[str, object]:
    told = asdict(test)
    found = {name: told[name] for name in ("value", "low", "high", "p", "smallest")}
    counts = {name: told[name] for name in ("better", "worse", "shrunk")}
    return {"model": test.model, "against": test.against, "found": found, **counts}


def _figures(compared: Comparison) -> Table:
    """Models as rows, sections as columns."""
    named = f"{direction(compared.metric, compared.meaning)}, 95 % interval"
    heads = [f"{section.name}, n = {section.n:,}" for section in compared.sections]
    rows = [
        [model, *(_interval(section, model) for section in compared.sections)] for model in compared.models
    ]
    return Table([named, *heads], rows)


def _interval(section: Section, model: str) -> str:
    one = section.figures.get(model)
    return NONE if one is None else f"{_number(one.value)} ({_number(one.low)} to {_number(one.high)})"


def _row(one: PairedTest) -> list[str]:
    return [
        f"{one.model} − {one.against}", _gain(one), f"{one.better:,}", f"{one.worse:,}",
        p_cell(one.p), _number(one.smallest),
    ]  # fmt: skip


def _gain(one: PairedTest) -> str:
    return f"{_number(one.value, '+')} ({_number(one.low, '+')} to {_number(one.high, '+')})"


def _number(value: float, sign: str = "") -> str:
    """Return three digits that count, with the true minus sign."""
    text = f"{value:{sign}.4g}" if abs(value) >= 1000 else f"{value:{sign}.3g}"
    return text.replace("-", "−")
