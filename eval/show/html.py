"""A comparison as one HTML file that needs nothing else: no network, no other file, no library.

Whatever comes from a run is escaped, or set as text by the page's script; a policy in the page's head
forbids every connection. Paths may leave the machine: they are relative to here, or the last name alone.
"""

import html
import json
import re
import shlex
from collections.abc import Collection, Mapping, Sequence
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

from tuneyard.core import version
from tuneyard.core.drawing import NOT_WRITTEN, plot_language
from tuneyard.core.files import versions
from tuneyard.core.language import catalogue, current, tr, tr_counted
from tuneyard.core.number_format import Table
from tuneyard.eval.judge.compared import ComparedRuns
from tuneyard.eval.judge.conclusions import Comparison
from tuneyard.eval.judge.questions.against_base import differences, figures, scores, section_name
from tuneyard.eval.metrics.labels import MOST
from tuneyard.eval.read.run import ScoredRun
from tuneyard.eval.show.incorrect import IncorrectExamples
from tuneyard.eval.show.plots import caption, folder_name
from tuneyard.eval.show.tables import LEFT_OUT, NUMBERED, method
from tuneyard.eval.show.verdict import headline, verdict

PAGE = Path(__file__).parent / "page"
POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'unsafe-inline'"
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
SAME = "overall_accuracy_comparison.svg"  # what accuracy.svg shows, of one dataset
FIGURES = {
    "accuracy", "stderr", "ci95", "majority", "majority_label", "unparsed", "unparsed_rows", "macro_f1",
    "classes", "confusion", "metrics", "label_mass", "refused", "model", "set", "check_generate",
}  # fmt: skip  # which the page's tables show, or which are not worth a line
ABSOLUTE = re.compile(r"(?<![\w./~<-])~?/(?:[^\s/'\",;=+]+/)*([^\s/'\",;=+]+)/?")


def page(
    title: str,
    compared: ComparedRuns,
    captioned: Mapping[str, Table],
    plots: Mapping[str, str],
    numbered: Mapping[str, str],
    errors: Sequence[IncorrectExamples],
    command: str,
) -> str:
    """Return the page with the rows of `errors` to look through; `command` is what made it. `plots` are SVG
    files by name, `numbered` the key of the labels that no font could write on them."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    found = compared.comparison
    sentence = headline(found)
    notes = [LEFT_OUT]
    notes += [NOT_WRITTEN] if plot_language() != current() else []
    notes += [NUMBERED] if numbered else []
    drawn = [(caption(name, found), name, svg) for name, svg in plots.items() if not name.endswith(SAME)]
    files = Environment(
        loader=FileSystemLoader(PAGE), autoescape=True, undefined=StrictUndefined, keep_trailing_newline=True
    )
    text: str = files.get_template("page.html").render(
        {function.__name__: function for function in (tr, section_name, verdict, differences, method)},
        explained=explained,
        prose=partial(explained, only=IN_PROSE),
        lang={"zh": "zh-CN"}.get(current(), current()),
        title=without_places(title),
        about=_about(found),
        base=found.base,
        models=found.models,
        sections=found.sections,
        policy=POLICY,
        mark=MARK,
        style=(PAGE / "style.css").read_text(encoding="utf-8"),
        sentence=sentence,
        decided=found.sections[:1] if sentence else found.sections,
        accuracies=scores(found),
        plots=[
            {"caption": told, "svg": inline(svg, f"{folder_name(name)}-", html.escape(told))}
            for told, name, svg in drawn
        ],
        warnings=[without_places(warning) for warning in compared.warnings],
        notes=notes,
        numbered=numbered,
        tables={f"{name}.": table for name, table in captioned.items()} | figures(found),
        errors=[{"dataset": one.dataset, "told": _shown(one)} for one in errors],
        cards=[(one.dataset, row) for one in errors for row in one.rows][:STATIC],
        glossary=[(tr(term), tr(meaning)) for term, meaning in GLOSSARY.items()],
        provenance=provenance(compared.run_list, command),
        data=_data(found, errors),
        script=(PAGE / "script.js").read_text(encoding="utf-8"),
    )
    return text.encode(errors="replace").decode()  # half characters (lone surrogates) become `?`


def _about(comparison: Comparison) -> list[tuple[str, str]]:
    made = version()
    commit = f" ({made['commit'][:9]})" if made.get("commit") else ""
    return [
        (tr("Date"), f"{datetime.now(UTC):%Y-%m-%d}"),
        (tr("Tuneyard"), f"{made['version']}{commit}"),
        (tr("Models"), tr(", ").join(comparison.models)),
        (tr("Datasets"), tr(", ").join(f"{one.name} (n = {one.n:,})" for one in comparison.sets)),
    ]


def _shown(errors: IncorrectExamples) -> str:
    here, total = tr("all are here"), errors.total
    if len(errors.rows) < total:
        here = tr("{count:,} of them, evenly spread, are here", count=len(errors.rows))
    examples = tr_counted(total, "example")
    return tr("{examples} that at least one model has incorrect; {here}.", examples=examples, here=here)


def _data(comparison: Comparison, errors: Sequence[IncorrectExamples]) -> str:
    """The rows for the page's script, as JSON in which no letter can end the element that it stands in."""
    content = {
        "models": list(comparison.models),
        "base": list(comparison.models).index(comparison.base),
        "sets": [{"name": one.dataset, "total": one.total} for one in errors],
        "rows": [{"set": place, **row} for place, one in enumerate(errors) for row in one.rows],
        "most": MOST,
        "words": catalogue(current()),
    }
    plain = json.dumps(content, separators=(",", ":")).replace("&", "\\u0026")
    return plain.replace("<", "\\u003c").replace(">", "\\u003e")


def inline(svg: str, prefix: str, escaped: str) -> str:
    """Return matplotlib's SVG file as an element; `escaped` is its text for those who do not see it.

    Ids that something refers to begin with `prefix`, which no other plot of the page has; the others go.
    """
    used = {found[2] for found in REFERENCE.finditer(svg)}

    def changed(tag: re.Match[str]) -> str:
        text = ID.sub(lambda found: f' id="{prefix}{found[1]}"' if found[1] in used else "", tag[0])
        text = REFERENCE.sub(rf"\g<1>{prefix}\g<2>", text)
        text = COLOUR.sub(lambda found: COLOURS.get(found[0], found[0]), text)
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
    "statistically tied": "No significant difference at 5 % here, which does not show them to be equal.",
    "drawn towards their mean": "Corrected for having been chosen as the best of several.",
    "confidence": "The probability of the label that was chosen, out of that of all labels.",
    "calibration": "How well a model's confidence agrees with its accuracy.",
    "ECE": "Expected calibration error: the mean distance between confidence and accuracy.",
    "95th percentile if calibrated": "The ECE that a perfectly calibrated model exceeds 5 times of 100.",
    "unparsed": "Answers in which no label was found; they count as incorrect.",
    "clusters": "Examples that share a text and are not independent; tests keep them together.",
}
IN_PROSE = ("statistically tied", "minimum detectable effect", "drawn towards their mean")


def explained(text: str, only: Collection[str] = GLOSSARY) -> str:
    """Return a text, escaped, in which every one of the terms has its meaning as hover text."""
    meanings = {tr(term): tr(GLOSSARY[term]) for term in only}
    longest_first = sorted(map(html.escape, meanings), key=len, reverse=True)
    pattern = rf"(?<![A-Za-z_])(?:{'|'.join(map(re.escape, longest_first))})(?![A-Za-z_])"

    def abbreviation(found: re.Match[str]) -> str:
        meaning = html.escape(meanings[html.unescape(found[0])])
        return f'<abbr title="{meaning}">{found[0]}</abbr>'

    return re.sub(pattern, abbreviation, html.escape(text))


def provenance(runs: Sequence[ScoredRun], command: str) -> Table:
    """Return fact, value and the runs (`MODEL on DATASET`) that have it; `command` made the page."""
    shared: dict[tuple[str, str], list[str]] = {}
    for run in runs:
        name = tr("{model} on {dataset}", model=run.model, dataset=run.dataset)
        for key, value in {"source": run.source, **run.facts}.items():
            if key not in FIGURES:
                shared.setdefault((key, _fact(key, value)), []).append(name)
    rows = [
        [key, value, tr("all") if len(names) == len(runs) else tr(", ").join(names)]
        for (key, value), names in sorted(shared.items(), key=lambda fact: fact[0][0])
    ]
    made = {"command": command, "tuneyard": version(), **versions("numpy", "matplotlib")}
    page = [[key, _fact(key, value), tr("this page")] for key, value in made.items()]
    return Table([tr("fact"), tr("value"), tr("runs")], [*page, *rows])


def _fact(key: str, value: object) -> str:
    return command_line(str(value)) if key == "command" else without_places(_plain(value))


def _plain(value: object) -> str:
    """A fact as people read it: of objects each field as `name value`."""
    if isinstance(value, Mapping):
        return "; ".join(f"{key} {_plain(part)}" for key, part in value.items())
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def without_places(text: str) -> str:
    """Return a text in which no path tells where on a machine it lies.

    >>> without_places("out=/srv/jane/runs/a was scored by http://localhost:8000/v1")
    'out=a was scored by http://localhost:8000/v1'
    """
    here = Path.cwd()
    for known in (here, *here.parents[:-1], Path.home()):  # which may hold blanks
        text = text.replace(f"{known}/", "") if known != known.parent else text
    return ABSOLUTE.sub(r"\1", text)


def argument(text: str) -> str:
    """Return an argument, which may be a path or NAME=PATH, without its place; a path may hold blanks.

    >>> argument("rte=/srv/jane/my runs/a")
    'rte=a'
    """
    name, equals, path = text.rpartition("=")
    here = path.removeprefix(f"{Path.cwd()}/")
    return (
        f"{name}{equals}{Path(here).name}"
        if Path(here).is_absolute()
        else without_places(f"{name}{equals}{here}")
    )


def command_line(text: str) -> str:
    """Return a command without the places in its arguments."""
    try:
        return shlex.join(map(argument, shlex.split(text)))
    except ValueError:  # an open quote: no command of ours
        return without_places(text)
