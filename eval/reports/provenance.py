"""How runs were scored and what made a page, as a table: a fact that several runs share is one row."""

import json
from collections.abc import Mapping, Sequence

from core import version
from core.files import versions
from core.language import tr
from eval.reports.places import command_line, without_places
from eval.reports.tables import Table
from eval.runs.judgement import ScoredRun

FIGURES = {
    "accuracy", "stderr", "ci95", "majority", "majority_label", "unparsed", "unparsed_rows", "macro_f1",
    "classes", "confusion", "metrics", "label_mass", "refused", "model", "set", "check_generate",
}  # fmt: skip  # which the page's tables show, or which are not worth a line


def provenance(runs: Sequence[ScoredRun], command: str) -> Table:
    """Return fact, value and the runs (`MODEL on DATASET`) that have it; `command` made the page."""
    shared: dict[tuple[str, str], list[str]] = {}
    for run in runs:
        name = tr("{model} on {dataset}", model=run.model, dataset=run.dataset)
        for key, value in {"source": run.source, **run.facts}.items():
            if key not in FIGURES:
                shared.setdefault((key, _shown(key, value)), []).append(name)
    rows = [
        [key, value, tr("all") if len(names) == len(runs) else tr(", ").join(names)]
        for (key, value), names in sorted(shared.items(), key=lambda fact: fact[0][0])
    ]
    made = {"command": command, "tuneyard": version(), **versions("numpy", "matplotlib")}
    page = [[key, _shown(key, value), tr("this page")] for key, value in made.items()]
    return Table([tr("fact"), tr("value"), tr("runs")], [*page, *rows])


def _shown(key: str, value: object) -> str:
    return command_line(str(value)) if key == "command" else without_places(_plain(value))


def _plain(value: object) -> str:
    """A fact as people read it: of objects each field as `name value`."""
    if isinstance(value, Mapping):
        return "; ".join(f"{key} {_plain(part)}" for key, part in value.items())
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
