"""A judgement as one HTML file that needs nothing else: no network, no other file, no library.

Whatever comes from a run is escaped, or set as text by the page's script; a policy in the page's head
forbids every connection.
"""

import base64
import html
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from string import Template

from core import version
from core.files import versions
from eval.metrics.labels import MOST
from eval.reports.compared import ComparedRuns
from eval.reports.incorrect import IncorrectExamples
from eval.reports.places import command_line, without_places
from eval.reports.tables import (
    LEFT_OUT,
    Table,
    accuracies,
    calibrations,
    differences,
    example_metrics,
    f1_differences,
    macro_f1s,
    method,
)
from eval.reports.verdict import verdict
from eval.runs.judgement import Comparison, ScoredRun, Section

PAGE = Path(__file__).parent / "page"
POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'unsafe-inline'"
LONG_FACTS = ("classes", "confusion", "check_generate")  # shown as tables and plots, or not worth a line


@dataclass(frozen=True, slots=True)
class Plots:
    """PNG files by name, and the key of the labels that no font could write on them."""

    files: Mapping[str, bytes]
    numbered: Mapping[str, str]


def page(
    title: str, compared: ComparedRuns, plots: Plots, errors: Sequence[IncorrectExamples], command: str
) -> str:
    """Return the page with the rows of `errors` to look through; `command` is what made it.

    It may be mailed: paths in it are relative, or the last name alone.
    """
    found = compared.comparison
    template, style, script = (
        (PAGE / name).read_text(encoding="utf-8") for name in ("page.html", "style.css", "script.js")
    )
    return Template(template).substitute(
        title=text(without_places(title)),
        policy=POLICY,
        style=style,
        verdict="".join(_verdicts(found, compared.warnings)),
        figures="".join([*_tables(compared), *_figures(plots)]),
        comparisons="".join(map(_compared, found.sections)),
        errors="".join(f"<p>{_shown(one)}</p>" for one in errors),
        provenance="".join(_provenance(compared.runs, command)),
        data=_data(found, errors),
        script=script,
    )


def text(value: object) -> str:
    """Return a value as HTML text or attribute; half characters (lone surrogates) become `?`."""
    return html.escape(str(value).encode(errors="replace").decode())


def _verdicts(comparison: Comparison, warnings: Sequence[str]) -> list[str]:
    """The verdict on the whole where there is one, then on each set, then what to bear in mind."""
    sets = [(section.name, verdict(section, comparison.base)) for section in comparison.sections]
    whole = [sets.pop()] if comparison.mean or len(sets) == 1 else []
    return [
        *(f'<p class="verdict">{text(said)}</p>' for _, said in whole),
        *(f"<p><strong>{text(name)}</strong>: {text(said)}</p>" for name, said in sets),
        *(f'<p class="note">Warning: {text(without_places(warning))}</p>' for warning in warnings),
        f'<p class="note">{LEFT_OUT}</p>',
    ]


def _tables(compared: ComparedRuns) -> list[str]:
    comparison = compared.comparison
    found = {
        **compared.tables,
        "Accuracy": accuracies(comparison),
        "Macro-F1": macro_f1s(comparison),
        "Calibration": calibrations(comparison),
        "Metrics of examples": example_metrics(comparison),
    }
    return [_table(name, table) for name, table in found.items() if table]


def _table(caption: str, table: Table, kind: str = "") -> str:
    head = "".join(f'<th scope="col">{text(cell)}</th>' for cell in table.header)
    rows = "".join(_row(cells) for cells in table.rows)
    return (
        f'<div class="wide" role="region" tabindex="0" aria-label="{text(caption)}"><table class="{kind}">'
        f"<caption>{text(caption)}</caption><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table></div>"
    )


def _row(cells: Sequence[str]) -> str:
    first, *others = map(text, cells)
    return f'<tr><th scope="row">{first}</th>{"".join(f"<td>{cell}</td>" for cell in others)}</tr>'


def _figures(plots: Plots) -> Iterator[str]:
    yield from (_figure(name, png) for name, png in plots.files.items())
    if plots.numbered:
        key = "".join(f"<li>{number} {text(label)}</li>" for label, number in plots.numbered.items())
        yield f"<p>The plots number what no installed font can write:</p><ul>{key}</ul>"


def _figure(name: str, png: bytes) -> str:
    data = base64.b64encode(png).decode()
    return (
        f'<figure><div class="wide"><img alt="Plot {text(name)}; its numbers are in the tables" '
        f'src="data:image/png;base64,{data}"></div><figcaption>{text(name)}</figcaption></figure>'
    )


def _compared(section: Section) -> str:
    tables = {"Accuracy": differences(section), "Macro-F1": f1_differences(section)}
    found = [_table(f"{name} on {section.name}", table) for name, table in tables.items() if table]
    how = f'<p class="method">{text(method(section))}</p>' if found else "<p>Nothing was compared.</p>"
    return f"<h3>{text(section.name)}</h3>{''.join(found)}{how}"


def _shown(errors: IncorrectExamples) -> str:
    all_here = len(errors.rows) == errors.total
    here = "all are here" if all_here else f"{len(errors.rows):,} of them, evenly spread, are here"
    name = f"<strong>{text(errors.dataset)}</strong>"
    return f"{name}: {errors.total:,} examples that at least one model has incorrect; {here}."


def _provenance(runs: Sequence[ScoredRun], command: str) -> list[str]:
    facts = {"command": command, "tuneyard": version(), **versions("numpy", "matplotlib")}
    return [
        _facts("This page", facts),
        *(_facts(f"{run.model} on {run.dataset}", {"source": run.source, **run.facts}) for run in runs),
    ]


def _facts(caption: str, facts: Mapping[str, object]) -> str:
    rows = [
        [key, command_line(str(value)) if key == "command" else without_places(_plain(value))]
        for key, value in facts.items()
        if key not in LONG_FACTS
    ]
    table = _table(caption, Table(["", ""], rows), "facts")
    return f"<details><summary>{text(caption)}</summary>{table}</details>"


def _plain(value: object) -> str:
    """A fact as people read it: of objects each field as `name value`."""
    if isinstance(value, Mapping):
        return "; ".join(f"{key} {_plain(part)}" for key, part in value.items())
    return value if isinstance(value, str) else json.dumps(value)


def _data(comparison: Comparison, errors: Sequence[IncorrectExamples]) -> str:
    """The rows for the page's script, as JSON in which no letter can end the element that it stands in."""
    content = {
        "models": list(comparison.models),
        "sets": [{"name": one.dataset, "total": one.total} for one in errors],
        "rows": [{"set": place, **row} for place, one in enumerate(errors) for row in one.rows],
        "most": MOST,
    }
    plain = json.dumps(content, separators=(",", ":")).replace("&", "\\u0026")
    return plain.replace("<", "\\u003c").replace(">", "\\u003e")
