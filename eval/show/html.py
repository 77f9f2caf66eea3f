"""A comparison as one HTML file that needs no network, no other file and no library.

The page escapes every text of a run, or its script sets it as text. A policy in the page's head forbids every
connection. A path is relative to the working folder, or its last name alone: the page may leave the machine.
"""

import html
import json
import re
from collections.abc import Collection, Mapping, Sequence
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

from tuneyard.core import version
from tuneyard.core.drawing.page import embedded, fill_page
from tuneyard.core.drawing.plots import NOT_WRITTEN, plot_language
from tuneyard.core.files import versions
from tuneyard.core.language.number_format import Table
from tuneyard.core.language.reader_language import current
from tuneyard.core.language.translation import catalogue, tr, tr_counted
from tuneyard.eval.judge.ask import ComparedRuns
from tuneyard.eval.judge.cells import section_name
from tuneyard.eval.metrics.labels import MOST
from tuneyard.eval.read.scored_run import ScoredRun, models_of
from tuneyard.eval.show.incorrect import IncorrectExamples
from tuneyard.eval.show.places import command_line, without_places
from tuneyard.eval.show.plots import DrawnPlot, caption, folder_name
from tuneyard.eval.show.setup import compared_tables
from tuneyard.eval.show.tables import differences, figures, left_out, method, scores, section_text
from tuneyard.eval.show.verdict import decisions

PAGE = Path(__file__).parent / "page"
MARK = '<meta name="generator" content="Tuneyard eval compare">'
STATIC = 50  # examples that are there without JavaScript
# What the page changes in a plot: its colours, letters and ids.
COLOURS = {"#000000": "currentColor", "#ffffff": "var(--paper)", "#dddddd": "var(--line)"}
NOT_DRAWN = re.compile(r"<metadata>.*?</metadata>|<style .*?</style>", re.S)
TAG = re.compile(r"<[^>]*>")
ID = re.compile(r' id="([^"]*)"')
REFERENCE = re.compile(r'(url\(#|xlink:href="#)([^)"]*)')
COLOUR = re.compile(r"(?<=: )#\w{6}")
FONT = re.compile(r"(font-family: [^;\"]*)")
SAME = "overall_accuracy_comparison.png"  # what accuracy.png shows, of one dataset
FIGURES = {
    "accuracy", "stderr", "ci95", "majority", "majority_label", "unparsed", "unparsed_rows", "macro_f1",
    "classes", "confusion", "metrics", "label_mass", "too_long", "model", "set", "check_generate",
    "about",
}  # fmt: skip  # facts that the page's tables show, or that are not worth a line


def page(
    title: str,
    compared: ComparedRuns,
    captioned: Mapping[str, Table],
    plots: Sequence[DrawnPlot],
    errors: Sequence[IncorrectExamples],
    command: str,
    note: str = "",
) -> str:
    """Render the page, which lists the incorrect examples `errors`.

    `captioned` are tables of other questions by caption, `plots` are drawn. `command` made the page. The
    user's `note` is below the title.
    """
    comparison = compared.comparison
    notes = [left_out(comparison)]
    if plot_language() != current():
        notes.append(NOT_WRITTEN)
    pictures = []
    for plot in plots:
        if not plot.name.endswith(SAME):
            description = caption(plot.name, comparison)
            drawing = inline(plot.svg, f"{folder_name(plot.name)}-", html.escape(description))
            pictures.append({"caption": description, "svg": drawing})
    cards: list[tuple[str, dict[str, Any]]] = []
    for incorrect in errors:
        cards += [(incorrect.dataset, row) for row in incorrect.rows]
    functions = {
        function.__name__: function for function in (tr, section_name, section_text, differences, method)
    }
    return fill_page(
        PAGE,
        inline_styles=True,  # matplotlib's drawings
        **functions,
        explained=explained,
        prose=partial(explained, only=IN_PROSE),
        title=without_places(title),
        about=_about(),
        base=comparison.base,
        models=models_of(compared.runs),
        sections=comparison.sections,
        mark=MARK,
        decisions=decisions(comparison),
        note=note,
        compared=compared_tables(compared),
        accuracies=scores(comparison),
        plots=pictures,
        warnings=[without_places(warning) for warning in compared.warnings],
        notes=notes,
        questions={f"{name}.": table for name, table in captioned.items()},
        tables=figures(comparison),
        errors=[{"dataset": one.dataset, "counts": _counts(one)} for one in errors],
        cards=cards[:STATIC],
        glossary=[(tr(term), tr(meaning)) for term, meaning in GLOSSARY.items()],
        provenance=provenance(compared.run_list, command),
        data=_data(models_of(compared.runs), comparison.base, errors),
    )


def _about() -> list[tuple[str, str]]:
    installed = version()
    commit = ""
    if installed.get("commit"):
        commit = f" ({installed['commit'][:9]})"
    return [
        (tr("Date"), f"{datetime.now(UTC):%Y-%m-%d}"),
        (tr("Tuneyard"), f"{installed['version']}{commit}"),
    ]


def _counts(errors: IncorrectExamples) -> str:
    """Sentence on how many examples are incorrect, and how many of them the page shows."""
    total = errors.total
    here = tr("all are here")
    if len(errors.rows) < total:
        here = tr("{count:,} of them, evenly spread, are here", count=len(errors.rows))
    examples = tr_counted(total, "example")
    return tr("{examples} that at least one model has incorrect; {here}.", examples=examples, here=here)


def _data(models: Sequence[str], base: str, errors: Sequence[IncorrectExamples]) -> str:
    """JSON for the page's script, without the characters that could close its <script> element."""
    rows: list[dict[str, Any]] = []
    for place, incorrect in enumerate(errors):
        rows += [{"set": place, **row} for row in incorrect.rows]
    base_place = -1
    if base in models:  # a recipe with several seeds is no model
        base_place = list(models).index(base)
    content = {
        "models": list(models),
        "base": base_place,
        "sets": [{"name": one.dataset, "total": one.total} for one in errors],
        "rows": rows,
        "most": MOST,
        "words": catalogue(current()),
    }
    return embedded(json.dumps(content, separators=(",", ":")))


def inline(svg: str, prefix: str, escaped: str) -> str:
    """Turn matplotlib's SVG file into an element of the page; `escaped` describes it to screen readers.

    Every id that something refers to gets the `prefix`, which is unique on the page. The other ids go.
    """
    used = {reference[2] for reference in REFERENCE.finditer(svg)}

    def prefixed(attribute: re.Match[str]) -> str:
        if attribute[1] in used:
            return f' id="{prefix}{attribute[1]}"'
        return ""

    def recoloured(colour: re.Match[str]) -> str:
        return COLOURS.get(colour[0], colour[0])

    def changed(tag: re.Match[str]) -> str:
        text = ID.sub(prefixed, tag[0])
        text = REFERENCE.sub(rf"\g<1>{prefix}\g<2>", text)
        text = COLOUR.sub(recoloured, text)
        return FONT.sub(r"\1, Verdana, var(--font)", text)  # Verdana is as wide as DejaVu Sans

    drawn = TAG.sub(changed, NOT_DRAWN.sub("", svg[svg.index("<svg ") :]))
    return drawn.replace("<svg ", f'<svg role="img" aria-label="{escaped}" ', 1)


GLOSSARY = {
    "accuracy": "The share of examples that a model answers correctly.",
    "macro-F1": "The unweighted mean over labels of the harmonic mean of precision and recall.",
    "95 % interval": "Confidence interval. If the examples were drawn again many times, 95 of 100 intervals "
    "computed this way would contain the true value.",
    "majority-class baseline": "The accuracy of always giving the commonest expected answer.",
    "mean": "The mean of the accuracies on all datasets, each dataset counting alike.",
    "difference, points": "The accuracy of the first model less that of the second, in percentage points.",
    "fixed": "Examples that the second model, or the base, has incorrect and the first correct.",
    "regressed": "Examples that the second model, or the base, has correct and the first incorrect.",
    "p": "How often chance alone gives a difference as large, in any of the comparisons made together.",
    "minimum detectable effect": "The least difference, in points, that these examples show with 80 % power.",
    "not shown": "No significant difference at 5 % here, which does not show them to be equal.",
    "confidence": "The probability of the label that was chosen, out of that of all labels.",
    "calibration": "How well a model's confidence agrees with its accuracy.",
    "ECE": "Expected calibration error: the mean distance between confidence and accuracy.",
    "95th percentile if calibrated": "The ECE that a perfectly calibrated model exceeds 5 times of 100.",
    "unparsed": "Answers in which no label was found; they count as incorrect.",
    "clusters": "Examples that share a text and are not independent; tests keep them together.",
}
IN_PROSE = ("not shown", "minimum detectable effect")


def explained(text: str, only: Collection[str] = GLOSSARY) -> str:
    """Escape a text and add the meaning of each glossary term in `only` as hover text."""
    meanings = {tr(term): tr(GLOSSARY[term]) for term in only}
    longest_first = sorted(map(html.escape, meanings), key=len, reverse=True)
    pattern = rf"(?<![A-Za-z_])(?:{'|'.join(map(re.escape, longest_first))})(?![A-Za-z_])"

    def abbreviation(term: re.Match[str]) -> str:
        meaning = html.escape(meanings[html.unescape(term[0])])
        return f'<abbr title="{meaning}">{term[0]}</abbr>'

    return re.sub(pattern, abbreviation, html.escape(text))


def provenance(runs: Sequence[ScoredRun], command: str) -> Table:
    """Facts, their values, and the runs (`MODEL on DATASET`) with that value; `command` made the page."""
    runs_by_fact: dict[tuple[str, str], list[str]] = {}
    for run in runs:
        name = tr("{model} on {dataset}", model=run.model, dataset=run.dataset)
        for key, value in {"source": run.source, **run.facts}.items():
            if key not in FIGURES:
                runs_by_fact.setdefault((key, _fact(key, value)), []).append(name)
    rows = []
    for key, value in {"command": command, "tuneyard": version(), **versions("numpy", "matplotlib")}.items():
        rows.append([key, _fact(key, value), tr("this page")])
    for (key, fact), names in sorted(runs_by_fact.items(), key=lambda item: item[0][0]):
        applies_to = tr(", ").join(names)
        if len(names) == len(runs):
            applies_to = tr("all")
        rows.append([key, fact, applies_to])
    return Table([tr("fact"), tr("value"), tr("runs")], rows)


def _fact(key: str, value: object) -> str:
    if key == "command":
        return command_line(str(value))
    return without_places(_plain(value))


def _plain(value: object) -> str:
    """A fact for readers: an object as `name value` pairs, a text without quotes."""
    if isinstance(value, Mapping):
        return "; ".join(f"{key} {_plain(part)}" for key, part in value.items())
    if isinstance(value, str):
        return value
    return json.dumps(value, ensure_ascii=False)
