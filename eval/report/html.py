"""A comparison as one HTML file that needs no network, no other file and no library.

The page escapes every text of a run, or its script sets it as text. A policy in the page's head forbids every
connection. A path is relative to the working folder, or its last name alone: the page may leave the machine.
"""

import base64
import json
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import TypedDict, TypeVar

from markupsafe import Markup, escape

from tuneyard.core.drawing.page import embedded, fill_page, words_of
from tuneyard.core.drawing.plots import NOT_WRITTEN, plot_language
from tuneyard.core.language.message import _, counted, tr, translated, with_texts
from tuneyard.core.language.number_format import Table, percent
from tuneyard.core.language.reader import CHINESE, current
from tuneyard.eval.judge.ask import ComparedRuns
from tuneyard.eval.judge.conclusions import MEAN, Section
from tuneyard.eval.report.answers import answer_tables
from tuneyard.eval.report.differences import differences, section_name
from tuneyard.eval.report.findings import sentence
from tuneyard.eval.report.plots import DrawnPlot
from tuneyard.eval.report.setup import command_line, compared_tables, provenance, without_places
from tuneyard.eval.report.tables import left_out, method, other_figures, scores
from tuneyard.eval.report.verdict import decisions, notes
from tuneyard.eval.runs.results import PAGE_MARK
from tuneyard.eval.runs.scored_run import (
    OUTPUTS,
    RunsByDataset,
    ScoredRun,
    first_text,
    models_of,
    question_of,
)

PAGE = Path(__file__).parent / "page"
STATIC = 10  # examples that are there without JavaScript
FEW = 4  # plots of no more models are unfolded
LONG_NAME = re.compile(r"[!-~]{12,}")  # a shorter one fits into a table's first column on a phone
BREAK = re.compile(r"(?<=[,/+_])(?=[^\s_])")
VERDANA = "'DejaVu Sans', Verdana"  # as wide as matplotlib's own font, and on Windows
EXPONENT = re.compile(r"(?<=\de)-(?=\d)")
"""The minus of 1e-4, after which browsers break a line."""
LONGEST = 2000  # characters of a question or an answer that are shown
MOST_OPTIONS = 20  # answers to choose from in a field of the filter
MOST_LETTERS = 12_000_000  # of all rows on a page, which a browser still opens at once
Item = TypeVar("Item")


@dataclass(frozen=True, slots=True)
class Page:
    """The report's title, its most incorrect examples, the command that makes it, and the next command."""

    title: str
    errors: int
    command: str = ""
    next_command: str = ""
    tables: Mapping[str, Table] = field(default_factory=dict)
    """Further tables, by caption."""


class PageAnswer(TypedDict):
    """A model's answer to an incorrect example, as the page's script reads it."""

    model: int
    predicted: str
    output: str
    right: bool
    confidence: float | None


class RowKinds(TypedDict, total=False):
    """The kinds of an example, if the examples have kinds."""

    type: str
    subtype: str


class IncorrectRow(RowKinds):
    """An incorrect example, as the page's script reads it."""

    row: str
    question: str
    expected: str
    answers: list[PageAnswer]


class ChartRow(TypedDict):
    """A model in the page's own plot: its places are percentages of the width."""

    model: str
    text: str
    at: str
    low: str
    high: str


class PageChart(TypedDict):
    """The page's own plot."""

    name: str
    rows: list[ChartRow]
    base: str
    low: str
    high: str


@dataclass(frozen=True, slots=True)
class IncorrectExamples:
    """Incorrect examples of one dataset: `total` counts all of them, `rows` are those that the page shows."""

    dataset: str
    total: int
    rows: Sequence[IncorrectRow]


def render(compared: ComparedRuns, page: Page, plots: Sequence[DrawnPlot]) -> str:
    """Render a page with the plots of a comparison."""
    comparison = compared.comparison
    caveats = [left_out(comparison)]
    if plot_language() != current():
        caveats.append(NOT_WRITTEN)
    pictures = []
    for plot in plots:
        if plot.svg:
            caption = tr(plot.caption, name=plot.dataset)
            svg = plot.svg.replace("'DejaVu Sans'", VERDANA).encode()
            data = f"data:image/svg+xml;base64,{base64.b64encode(svg).decode()}"
            pictures.append({"caption": caption, "data": data})
    best = [section.conclusion.recommended for section in comparison.deciding]
    models = models_of(compared.runs)
    errors = collect_incorrect(compared.runs, page.errors)
    tables = {**answer_tables(compared.answers), **page.tables, **other_figures(comparison)}
    return fill_page(
        PAGE,
        tr=tr,
        space="" if current() == CHINESE else " ",
        section_name=section_name,
        notes=notes,
        method=method,
        terms=terms,
        breakable=breakable,
        varied=varied,
        title=without_places(page.title),
        date=f"{datetime.now(UTC):%Y-%m-%d}",
        base=comparison.base,
        best=best,
        models=models,
        sections=comparison.sections,
        mark=PAGE_MARK,
        headlines=decisions(comparison, brief=True),
        charts=list(map(_chart, comparison.deciding)),
        decisions=decisions(comparison),
        differences=differences,
        next=command_line(page.next_command),
        compared=compared_tables(compared),
        accuracies=scores(comparison),
        pictures=pictures,
        unfolded=len(models) <= FEW,
        warnings=[translated(with_texts(sentence(finding), without_places)) for finding in compared.findings],
        caveats=caveats,
        tables={f"{name}{tr('.')}": table for name, table in tables.items()},
        counts=_counts,
        errors=errors,
        cards=[(one.dataset, row) for one in errors for row in one.rows][:STATIC],
        provenance=provenance(compared.run_list, page.command),
        data=_data(models, comparison.base, best[0], errors),
    )


def _chart(section: Section) -> PageChart:
    """The page's own plot: each model's accuracy with its interval, the best first, and the base as a line.

    Places are percentages of the width, between tens around all intervals.
    """
    scored = {model: section.figures[model] for model in section.conclusion.ranked}
    low = math.floor(10 * min(score.low for score in scored.values())) / 10
    high = max(math.ceil(10 * max(score.high for score in scored.values())) / 10, low + 0.1)
    rows: list[ChartRow] = []
    line = ""
    for model, score in scored.items():
        at, lower, upper = (f"{100 * (share - low) / (high - low):.2f}%" for share in score.with_limits)
        text = section.metric.interval_text(score.with_limits)
        rows.append({"model": model, "text": text, "at": at, "low": lower, "high": upper})
        if model == section.base:
            line = at
    name = tr("Accuracy on {name}, n = {n:,}, with its 95 % interval.", name=section.name, n=section.n)
    if section.name == MEAN:
        name = tr("Mean accuracy on {count} datasets with its 95 % interval.", count=len(section.datasets))
    return {"name": name, "rows": rows, "base": line, "low": percent(low), "high": percent(high)}


def varied(table: Table) -> tuple[Table, str]:
    """The table without the columns that are the same in every row, and what these are, as a text."""
    kept, same = [], []
    for place, cells in enumerate(zip(*table.rows, strict=True)):
        if place and len(cells) > 1 and len(set(cells)) == 1:
            same.append(tr("{name}: {value}", name=table.header[place], value=cells[0]))
        else:
            kept.append(place)
    rows = [[row[place] for place in kept] for row in table.rows]
    return Table([table.header[place] for place in kept], rows), tr("; ").join(same)


def breakable(text: object) -> Markup:
    """A text whose long names may break after their signs; words, numbers and percentages stay whole."""
    unbroken = str(text).replace(" %", "\N{NO-BREAK SPACE}%")
    unbroken = unbroken.replace("n = ", "n\N{NO-BREAK SPACE}=\N{NO-BREAK SPACE}")
    unbroken = EXPONENT.sub("-\N{WORD JOINER}", unbroken)
    return Markup(LONG_NAME.sub(lambda name: BREAK.sub("<wbr>", name[0]), str(escape(unbroken))))


def collect_incorrect(runs: RunsByDataset, most: int) -> list[IncorrectExamples]:
    """Collect each dataset's incorrect examples: at most `most`, and at most `MOST_LETTERS` characters.

    If there are more, the rows are evenly spread. A row has `row`, `question`, `expected`, and `type` and
    `subtype` if the data has them. Its `answers` have `model` (its place among all), `predicted`, `output`,
    `right` and `confidence`. Long texts are cut, and say so.
    """
    models = models_of(runs)
    wrong = {}
    for dataset, by_model in runs.items():
        flags_by_row = zip(*(run.correct for run in by_model.values()), strict=True)
        wrong[dataset] = [place for place, flags in enumerate(flags_by_row) if not all(flags)]
    shares = fair_shares({dataset: len(places) for dataset, places in wrong.items()}, most)
    rows_by_dataset = {}
    letters = 0
    for dataset, by_model in runs.items():
        rows = _rows(list(by_model.values()), models, spread(wrong[dataset], shares[dataset]))
        rows_by_dataset[dataset] = rows
        letters += sum(len(json.dumps(row)) for row in rows)
    kept = min(1.0, MOST_LETTERS / max(1, letters))
    collected = []
    for dataset, rows in rows_by_dataset.items():
        kept_rows = spread(rows, int(kept * len(rows)))
        collected.append(IncorrectExamples(dataset, len(wrong[dataset]), kept_rows))
    return collected


def fair_shares(counts: Mapping[str, int], most: int) -> dict[str, int]:
    """Divide `most` evenly; the part that a small count does not need goes to the others."""
    shares = {}
    for place, (name, count) in enumerate(sorted(counts.items(), key=lambda item: item[1])):
        shares[name] = min(count, most // (len(counts) - place))
        most -= shares[name]
    return shares


def spread(items: Sequence[Item], count: int) -> list[Item]:
    """Pick `count` of the items, evenly spread."""
    return [items[i * len(items) // count] for i in range(count)]


def _rows(runs: Sequence[ScoredRun], models: Sequence[str], places: Sequence[int]) -> list[IncorrectRow]:
    first = runs[0]
    types, subtypes = first.kinds("type"), first.kinds("subtype")
    rows: list[IncorrectRow] = []
    for place in places:
        answers: list[PageAnswer] = []
        for run in runs:
            predicted = cut(run.predicted[place])
            confidence = None
            if run.confidence:
                confidence = round(run.confidence[place], 4)
            answers.append(
                {
                    "model": models.index(run.model),
                    "predicted": predicted,
                    "output": cut(first_text(run.records[place], OUTPUTS)) or predicted,
                    "right": run.correct[place],
                    "confidence": confidence,
                }
            )
        kinds: RowKinds = {}
        if types:
            kinds["type"] = cut(types[place])
        if subtypes:
            kinds["subtype"] = cut(subtypes[place])
        row: IncorrectRow = {
            "row": first.rows[place],
            "question": cut(question_of(first.records[place])),
            "expected": cut(first.gold[place]),
            **kinds,
            "answers": answers,
        }
        rows.append(row)
    return rows


def cut(text: str) -> str:
    """Cut a text after `LONGEST` characters; the count of the rest follows."""
    more = len(text) - LONGEST
    if more <= 0:
        return text
    return text[:LONGEST] + tr("… ({count:,} more characters)", count=more)


def _counts(errors: IncorrectExamples) -> str:
    """Sentence on how many examples are incorrect, and how many of them the page shows."""
    total = errors.total
    here = tr("all shown")
    if len(errors.rows) < total:
        here = tr("{count:,} of them, evenly spread, are shown", count=len(errors.rows))
    examples = counted(total, "example", "examples")
    return tr("{examples} that at least one model got wrong ({here}).", examples=examples, here=here)


def _data(models: Sequence[str], base: str, best: str, errors: Sequence[IncorrectExamples]) -> str:
    """JSON for the page's script, without the characters that could close its <script> element."""
    rows: list[dict[str, object]] = []
    for place, incorrect in enumerate(errors):
        rows += [{"dataset": place, **row} for row in incorrect.rows]
    places = {model: place for place, model in enumerate(models)}  # a recipe with several seeds is no model
    content = {
        "models": list(models),
        "base": places.get(base, -1),
        "best": places.get(best, -1),
        "datasets": [{"name": one.dataset, "total": one.total} for one in errors],
        "rows": rows,
        "most": MOST_OPTIONS,
        "words": words_of(PAGE),
    }
    return embedded(json.dumps(content, separators=(",", ":")))


GLOSSARY = {
    _("the base"): _("The model as it was before any adapter was added."),
    _("the merge"): _("One adapter made of several; the number is the weight of each."),
    _("accuracy"): _("The share of examples that a model answers correctly."),
    _("macro-F1"): _("The unweighted mean over labels of the harmonic mean of precision and recall."),
    _("95 % interval"): _(
        "Confidence interval. If the examples were drawn again many times, 95 of 100 intervals "
        "computed this way would contain the true value."
    ),
    _("majority-class baseline"): _("The accuracy of always giving the most common expected answer."),
    _("mean"): _("The mean of the accuracies on all datasets, each dataset counting alike."),
    _("difference, points"): _(
        "The accuracy of the first model less that of the second, in percentage points."
    ),
    _("fixed"): _("Examples that the second model, or the base, got wrong and the first got right."),
    _("regressed"): _("Examples that the second model, or the base, got right and the first got wrong."),
    _("p"): _("How often chance alone gives a difference as large, in any of the comparisons made together."),
    _("minimum detectable effect"): _(
        "The least difference, in points, that these examples show with 80 % power."
    ),
    _("not shown"): _("No significant difference at 5 % here, which does not show them to be equal."),
    _("95th percentile if calibrated"): _(
        "The ECE that a perfectly calibrated model exceeds 5 times of 100."
    ),
    _("calibration"): _(
        "How well a model's confidence (the probability of the label that was chosen, out of that "
        "of all labels) agrees with its accuracy."
    ),
    _("ECE"): _("Expected calibration error: the mean distance between confidence and accuracy."),
    _("unparsed"): _("Answers in which no label was found; they count as incorrect."),
    _("cluster"): _("Examples that share a text and are not independent; tests keep them together."),
}


def terms(text: str) -> list[tuple[str, str]]:
    """The terms of the glossary in a text, with their meanings, for the place where they are read."""
    meanings = []
    for term, meaning in GLOSSARY.items():
        name = tr(term)
        rest = re.sub(rf"(?<![A-Za-z_]){re.escape(name)}s?(?![A-Za-z_])", "", text, flags=re.I)
        if rest != text:
            meanings.append((name, tr(meaning)))
        text = rest  # a longer Chinese term contains shorter ones
    return meanings
