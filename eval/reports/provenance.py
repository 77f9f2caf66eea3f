"""How runs were scored and what made a page, as a table: a fact that several runs share is one row.

Paths may leave the machine: they are relative to here, or the last name alone.
"""

import json
import re
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path

from core import version
from core.files import versions
from core.language import tr
from eval.reports.numbers import Table
from eval.runs.judgement import ScoredRun

FIGURES = {
    "accuracy", "stderr", "ci95", "majority", "majority_label", "unparsed", "unparsed_rows", "macro_f1",
    "classes", "confusion", "metrics", "label_mass", "refused", "model", "set", "check_generate",
}  # fmt: skip  # which the page's tables show, or which are not worth a line

ABSOLUTE = re.compile(r"(?<![\w./~<-])~?/(?:[^\s/'\",;=+]+/)*([^\s/'\",;=+]+)/?")


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
