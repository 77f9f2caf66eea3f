"""A comparison as Markdown, which reads well in a terminal too, and as JSON for programs."""

import math
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import fields, is_dataclass
from types import MappingProxyType
from typing import Any

from tuneyard.core.execution.state import Input
from tuneyard.core.files import versions
from tuneyard.core.installation.checkout import version
from tuneyard.core.language.message import _, counted, joined, ngettext, tr
from tuneyard.core.language.number_format import (
    NONE,
    Table,
    grid,
    limits,
    number,
    percent,
)
from tuneyard.core.language.reader import ENGLISH, in_language
from tuneyard.core.records.table_record import JudgedRecord, TableRecord
from tuneyard.core.text.quoting import markdown_text
from tuneyard.core.training.metrics import ACCURACY, Metric, declared_metric, direction
from tuneyard.eval.figures.labels import short
from tuneyard.eval.judge.ask import ComparedRuns
from tuneyard.eval.judge.conclusions import MEAN, Comparison, ModelScore, Section
from tuneyard.eval.report.answers import BEST_MARK, answer_fields, answer_tables
from tuneyard.eval.report.differences import differences, section_name
from tuneyard.eval.report.findings import sentence
from tuneyard.eval.report.setup import compared_tables
from tuneyard.eval.report.verdict import decision, decisions, notes
from tuneyard.eval.runs.results import NO_INPUTS, NO_OUTPUTS

LEFT_OUT = _(
    "The intervals are for these examples and these weights. They leave out what another training seed, "
    "another prompt or other data would change."
)
LEFT_OUT_OF_SEEDS = _(
    "The intervals of replicates are over these examples and training seeds. They leave out what another "
    "prompt or other data would change."
)
ANSWER_FIELDS = ("unparsed", "calibration", "metrics", "always", "macro_f1")
SEED_FIELDS = ("trainings", "seed_deviation")
WIDE = 7  # more columns than this do not fit a screen
MOST_MODELS = 20  # on a screen


def summary(compared: ComparedRuns) -> str:
    """What the command prints: the decision, and every model's figure, the recommended ones with a mark."""
    comparison = compared.comparison
    marked = [section.conclusion.recommended for section in comparison.deciding]
    parts = [*decisions(comparison), grid(scores(comparison, MOST_MODELS, marked))]
    more = len(comparison.models) - MOST_MODELS
    if more > 0:
        parts.append(tr("{more} more", more=more))
    return joined(parts, "\n\n")


def scores(comparison: Comparison, most: int | None = None, marked: Collection[str] = ()) -> Table:
    """Figures of the models, the best in the deciding section first, on every dataset and on average; of
    accuracy, the majority class's too. `most` models at most.

    Models are rows and datasets columns; the other way round if there are many datasets.
    """
    ranked = comparison.deciding[0].conclusion.ranked
    unranked = [model for model in comparison.models if model not in ranked]
    models = [*ranked, *unranked][:most]
    names = [model + BEST_MARK if model in marked else model for model in models]
    metric = comparison.metric
    heading = tr("accuracy (95 % interval)")
    if metric.counts_correct:
        names.append(tr("majority-class baseline"))
    else:
        heading = tr("{figure}, 95 % interval", figure=direction(metric.name, metric))
    columns = [[heading, *names]]
    for section in comparison.sections:
        cells = [_score(section.figures.get(model), metric) for model in models]
        if metric.counts_correct:
            majority = tr("none")
            if not math.isnan(section.baseline.accuracy):
                majority = percent(section.baseline.accuracy)
            if section.baseline.label:
                majority += f" ({short(section.baseline.label)})"
            cells.append(majority)
        columns.append([tr("{name}, n = {n:,}", name=section_name(section.name), n=section.n), *cells])
    lines: Iterable[Sequence[str]] = columns
    if len(columns) <= max(WIDE, len(columns[0])):
        lines = zip(*columns, strict=True)
    header, *rows = lines
    return Table(header, rows)


def other_figures(comparison: Comparison) -> dict[str, Table]:
    """Macro-F1, calibration and the metrics of examples, by caption: a row for each model on each dataset."""
    figures = {}
    for section in comparison.datasets:
        for model in section.conclusion.ranked:
            figures[model, section.name] = _figures_of(section.figures[model])
    names = dict.fromkeys(name for cells in figures.values() for name in cells)
    if not names:
        return {}
    header = [tr("model"), tr("dataset"), *names]
    rows = [[*place, *(cells.get(name, NONE) for name in names)] for place, cells in figures.items()]
    caption = tr("Other figures with 95 % intervals: macro-F1, calibration (ECE), metrics of examples")
    return {caption: Table(header, rows)}


def _figures_of(score: ModelScore) -> dict[str, str]:
    """A model's figures besides accuracy on a dataset, by name."""
    cells = {}
    if score.macro_f1:
        cells[tr("macro-F1")] = ACCURACY.interval_text(score.macro_f1)
    if score.calibration:
        error, chance = 100 * score.calibration.error, 100 * score.calibration.chance
        cells[tr("ECE, points (95th percentile if calibrated)")] = f"{error:.1f} ({chance:.1f})"
    for name, figure in score.metrics.items():
        value, ci95 = figure["value"], figure.get("ci95")
        text = number(value)
        if ci95:
            text = limits(number, (value, *ci95))
        kind = direction(name, declared_metric(name, figure))
        cells[kind] = tr("{value}, n = {n}", value=text, n=figure.get("n"))
    return cells


def _score(score: ModelScore | None, metric: Metric) -> str:
    if score is None:
        return NONE
    text = metric.interval_text(score.with_limits)
    if score.always:
        text += tr(', always "{label}"', label=short(score.always))
    if score.unparsed:
        text += tr(", {count} unparsed", count=score.unparsed)
    if score.trainings:
        deviation = metric.difference_text(score.seed_deviation, sign="")
        count = len(score.trainings)
        text += tr(", {count} seeds, standard deviation {deviation}", count=count, deviation=deviation)
    if score.trained_on and score.trained_on_at_most:
        text += tr(", trained on up to {count:,}", count=score.trained_on)
    elif score.trained_on:
        text += tr(", trained on {count:,}", count=score.trained_on)
    return text


def left_out(comparison: Comparison) -> str:
    """What the intervals leave out, in English."""
    if any(section.has_seeds for section in comparison.sections):
        return LEFT_OUT_OF_SEEDS
    return LEFT_OUT


def text_of(
    compared: ComparedRuns, title: str = "", tables: Mapping[str, Table] = MappingProxyType({})
) -> str:
    """Text of table.md: the decision, models and datasets, then the comparison with its questions' tables.

    `tables` are further ones, by caption.
    """
    setup = [f"## {markdown_text(title or tr('What was compared'))}"]
    setup += [grid(table) for table in compared_tables(compared).values()]
    captioned = []
    for caption, table in {**answer_tables(compared.answers), **tables}.items():
        captioned.append(f"## {markdown_text(caption)}\n\n{grid(table)}")
    return markdown(compared.comparison, setup, captioned)


def markdown(comparison: Comparison, setup: Sequence[str] = (), captioned: Sequence[str] = ()) -> str:
    """The decision comes first, then the sections: those that decide, `captioned` tables, the others.

    `setup` follows the decision: tables of the models and datasets.
    """
    described = comparison.sections[len(comparison.deciding) :]
    parts = [*map(markdown_text, decisions(comparison)), *setup, grid(scores(comparison))]
    parts += map(_section, comparison.deciding)
    parts += captioned
    parts += map(_section, described)
    for caption, table in other_figures(comparison).items():
        parts += [f"## {markdown_text(caption)}", grid(table)]
    return "\n\n".join([*parts, tr(left_out(comparison))]) + "\n"


def method(section: Section) -> str:
    """How p and intervals of a section were computed, in sentences."""
    test = tr(" p and intervals come from one test.")
    if section.name == MEAN:
        rows = tr("Every dataset counts alike.")
    elif section.groups is not None:
        examples = counted(section.n, "example", "examples")
        clusters = ngettext(
            "{number:,} cluster", "{number:,} clusters", section.groups, number=section.groups
        )
        rows = tr("{examples} in {clusters}.", examples=examples, clusters=clusters)
        test = tr(" p and intervals come from one test, which takes clusters whole.")
    else:
        rows = tr("{examples}.", examples=counted(section.n, "independent example", "independent examples"))
        one_pair = len(section.against_base) == 1 and not section.between
        if one_pair and section.metric.counts_correct and not section.has_seeds:
            test = tr(" p is that of the mid-p McNemar test.")
    if section.has_seeds:
        test += tr(" Seeds are replicates: the intervals include how much they differ (Student's t).")
    against, between = len(section.against_base), len(section.between)
    if max(against, between) > 1:
        test += tr(
            " They are corrected for {against} comparisons with the base and {between} among the others "
            "(max statistic).",
            against=against,
            between=between,
        )
    return rows + test


def _section(section: Section) -> str:
    """A section's tests. The decision from a deciding section is the first line of the report."""
    parts = [f"## {markdown_text(section_name(section.name))}", markdown_text(notes(section))]
    tables = [grid(table) for table in differences(section).values()]
    if tables:
        parts += [*tables, method(section)]
    return "\n\n".join(filter(None, parts))


def document(
    compared: ComparedRuns,
    plots: Sequence[str] = (),
    inputs: Mapping[str, Input] = NO_INPUTS,
    outputs: Mapping[str, str] = NO_OUTPUTS,
) -> TableRecord:
    """table.json, in English: programs read the same JSON in every language.

    `inputs` are what the comparison depends on, `outputs` the hashes of its other files.
    """
    return {
        "format": 2,
        **judged(compared),
        "left_out": left_out(compared.comparison),
        "warnings": [sentence(finding) for finding in compared.findings],
        "runs": [run.source for run in compared.run_list],
        "plots": list(plots),
        "versions": versions("numpy"),
        "inputs": dict(inputs),
        "outputs": dict(outputs),
        "tuneyard": dict(version()),
    }


def as_json(value: Any) -> Any:
    """A record of a comparison as plain JSON values: fields by name, a number that is not finite as null, a
    metric as its name."""
    if isinstance(value, Metric):
        return value.name
    if is_dataclass(value):
        return {each.name: as_json(getattr(value, each.name)) for each in fields(value)}
    if isinstance(value, Mapping):
        return {str(name): as_json(part) for name, part in value.items()}
    if isinstance(value, list | tuple):
        return [as_json(part) for part in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value


def judged(compared: ComparedRuns) -> JudgedRecord:
    """The comparison and the answers to all questions as JSON values. Deciding sections have a verdict."""
    comparison = compared.comparison
    metric = comparison.metric
    declared: dict[str, object] = {}
    if not metric.counts_correct:
        declared = {"metric": metric.name, "unit": metric.unit, "higher_is_better": metric.higher}
    with in_language(ENGLISH):
        mean = None
        if comparison.mean is not None:
            mean = _section_json(comparison.mean)
        datasets = {section.name: _section_json(section) for section in comparison.datasets}
    judged: JudgedRecord = as_json(
        {
            **declared,
            "base": comparison.base,
            "models": comparison.models,
            "datasets": datasets,
            "mean": mean,
            **answer_fields(compared.answers),
        }
    )
    return judged


def _section_json(section: Section) -> dict[str, object]:
    """A section as table.json has it."""
    return {
        "n": section.n,
        "groups": section.groups,
        "majority": section.baseline.accuracy,
        "majority_label": section.baseline.label or None,
        "margin": section.margin,
        "left_out": section.left_out,
        "within_margin": section.conclusion.within_margin,
        "decided_by": section.decided_by or None,
        "ship": section.conclusion.best,
        "tied_with": [test.against for test in section.conclusion.rivals],
        "comparisons": [*section.against_base, *section.between],
        "models": {model: _score_json(score, section.metric) for model, score in section.figures.items()},
        "verdict": decision(section) + notes(section),
    }


def _score_json(score: ModelScore, metric: Metric) -> dict[str, object]:
    """A score without the fields that it cannot have: those of answers, or of several seeds."""
    record: dict[str, object] = as_json(score)
    unused: tuple[str, ...] = ()
    if metric.counts_correct:
        record["accuracy"] = record.pop("value")
    else:
        unused = ANSWER_FIELDS
    if not score.trainings:
        unused += SEED_FIELDS
    return {name: value for name, value in record.items() if name not in unused}
