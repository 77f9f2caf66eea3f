"""The answers to further questions of a comparison: tables by caption, and fields of table.json."""

from collections.abc import Mapping, Sequence
from functools import singledispatch

from tuneyard.core.language.message import _, counted, tr
from tuneyard.core.language.number_format import Table, percent
from tuneyard.core.training.metrics import ACCURACY, direction
from tuneyard.eval.judge.conclusions import (
    Answer,
    Choice,
    ChoiceOnHalf,
    ComparedSlices,
    FlatTop,
    OtherMetrics,
)
from tuneyard.eval.report.differences import IN_THE_UNIT, difference_table, section_name

BEST_MARK = " ←"
CHOICE = (_("best on"), _("candidate"), _("choosing half"), _("held-out half"))


def answer_tables(answers: Sequence[Answer]) -> dict[str, Table]:
    """The tables of all answers, by caption."""
    tables: dict[str, Table] = {}
    for answer in answers:
        tables |= _tables(answer)
    return tables


def answer_fields(answers: Sequence[Answer]) -> dict[str, object]:
    """What table.json has of the answers. Other metrics are with the figures of each model already."""
    fields: dict[str, object] = {}
    for answer in answers:
        if isinstance(answer, ChoiceOnHalf):
            fields["choice"] = answer.choices
            if answer.flat_top is not None:
                fields["flat_top"] = {
                    "best": answer.flat_top.best,
                    "not_shown_worse": [test.model for test in answer.flat_top.level],
                    "comparisons": answer.flat_top.tests,
                }
        if isinstance(answer, ComparedSlices):
            fields["slices"] = answer.slices
    return fields


@singledispatch
def _tables(answer: object) -> Mapping[str, Table]:
    raise TypeError(_("{kind}: expected an answer with tables", kind=type(answer).__name__))


@_tables.register
def _choice_tables(answer: ChoiceOnHalf) -> Mapping[str, Table]:
    """How flat the top is, every candidate on the choosing half, then each choice on both halves."""
    tables: dict[str, Table] = {}
    if answer.flat_top is not None:
        tables |= _flat_top_table(answer.flat_top)
    caption = tr(
        "Chosen on {examples}, compared on the others",
        examples=counted(answer.choices[-1].choosing.n, "example", "examples"),
    )
    tables[caption] = _candidates_table(answer.choices)
    tables[tr("The choices on the held-out half")] = _held_out_table(answer.choices)
    return tables


def _flat_top_table(top: FlatTop) -> dict[str, Table]:
    """The points that are not shown to be worse, the nearest first. Without any the nearest one."""
    level = top.level
    caption = tr("Every other point is shown to be worse than {best}", best=top.best)
    if level:
        caption = tr(
            "{count} of the {points} other points are not shown to be worse than {best}",
            count=len(level), points=len(top.tests), best=top.best,
        )  # fmt: skip
    tests = level or top.tests[:1]
    table = difference_table(tests, top.metric)
    rows = []
    for test, (_pair, difference, _better, _worse, p, _smallest) in zip(tests, table.rows, strict=True):
        rows.append([test.model, difference, p])
    return {caption: Table([tr("on the choosing half"), table.header[1], tr("p")], rows)}


def _candidates_table(choices: Sequence[Choice]) -> Table:
    """Every candidate on the choosing half, the best first. A mark is at the best of each column."""
    decision = choices[-1]
    figures, metric = decision.choosing.models, decision.metric
    rows = []
    for model in sorted(figures, key=lambda model: metric.rank(figures[model].value)):
        cells = [model]
        for choice in choices:
            cells.append(metric.interval_text(choice.choosing.models[model].with_limits))
            if model == choice.model:
                cells[-1] += BEST_MARK
        rows.append(cells)
    header = [
        tr("{name}, n = {n:,}", name=section_name(choice.dataset), n=choice.choosing.n) for choice in choices
    ]
    return Table([tr("candidate"), *header], rows)


def _held_out_table(choices: Sequence[Choice]) -> Table:
    """Each choice on both halves."""
    rows = []
    for choice in choices:
        if choice.model not in choice.held_out.models:  # of a sweep: the mean has chosen another one
            continue
        figures = [half.models[choice.model].with_limits for half in (choice.choosing, choice.held_out)]
        cells = [section_name(choice.dataset), choice.model, *map(choice.metric.interval_text, figures)]
        rows.append([*cells, f"{choice.held_out.n:,}"])
    return Table([*map(tr, CHOICE), "n"], rows)


@_tables.register
def _slice_tables(answer: ComparedSlices) -> Mapping[str, Table]:
    """A row for each slice and model, against the base."""
    rows = []
    for part in answer.slices:
        name = tr("{value} of {dataset}, n = {n:,}", value=part.value, dataset=part.dataset, n=part.n)
        cells_of_tests = difference_table(part.tests, ACCURACY).rows
        for test, (pair, *cells) in zip(part.tests, cells_of_tests, strict=True):
            shares = f"{percent(part.accuracy[test.model])} − {percent(part.accuracy[test.against])}"
            rows.append([name, pair, shares, *cells[:4]])
    header = [tr("slice"), "", tr("accuracy"), *difference_table((), ACCURACY).header[1:5]]
    return {tr("By {field}", field=answer.field): Table(header, rows)}


@_tables.register
def _other_metric_tables(answer: OtherMetrics) -> Mapping[str, Table]:
    """A row for each metric, dataset and the mean."""
    rows = []
    for metric_name, comparison in answer.comparisons.items():
        for section in comparison.sections:
            figure = tr("{name} on {dataset}", name=metric_name, dataset=section_name(section.name))
            name = direction(figure, section.metric)
            table = difference_table(section.against_base, section.metric)
            rows += [[name, *cells[:5]] for cells in table.rows]
    if not rows:
        return {}
    caption = tr("Differences in the other metrics of the examples; the verdict rests on accuracy")
    return {caption: Table([tr("metric"), "", *map(tr, IN_THE_UNIT[:4])], rows)}
