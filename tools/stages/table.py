"""The table of stages and methods in docs/recipes.md, from outcomes.json."""

from pathlib import Path
from typing import Any

from testing import ROOT
from testing.stages.cells import METHODS, STAGES, cell_name
from testing.stages.walk import REFUSED
from tuneyard.core.files import write_text

OUTCOMES = Path(__file__).with_name("outcomes.json")
PAGE = ROOT / "docs/recipes.md"
BEGIN, END = "<!-- stages: written by `make stages` -->", "<!-- end of stages -->"
TOOK_THE_WAY = "✓"


def table(outcomes: dict[str, Any]) -> str:
    """Markdown: a row for each stage, a column for each method, and below them what is refused and why."""
    cells = outcomes["cells"]
    reasons: list[str] = []
    lines = [f"| stage | {' | '.join(METHODS)} |", f"|---{'|---' * len(METHODS)}|"]
    for stage in STAGES:
        marks = []
        for method in METHODS:
            cell = cells[cell_name(stage, method)]
            if cell["outcome"] != REFUSED:
                marks.append(TOOK_THE_WAY)
                continue
            reason = refusal(cell)
            if reason not in reasons:
                reasons.append(reason)
            marks.append(str(reasons.index(reason) + 1))
        lines.append(f"| {stage} | {' | '.join(marks)} |")
    date = min(cell["date"] for cell in cells.values())
    libraries = ", ".join(f"{name} {version}" for name, version in outcomes["versions"].items())
    ran = f"Run on {date} with {libraries}."
    notes = [f"{number}. {reason}" for number, reason in enumerate(reasons, 1)]
    return "\n".join([ran, *unplanned(cells), "", *lines, "", *notes])


def unplanned(cells: dict[str, Any]) -> list[str]:
    """A sentence for each reason why `recipe plan` does not plan some methods."""
    methods: dict[str, list[str]] = {}
    for name, cell in cells.items():
        method = name.partition("/")[2]
        reason = cell.get("plan", True)
        if reason is not True and method not in methods.setdefault(reason, []):
            methods[reason].append(method)
    return [f"`recipe plan` refuses {', '.join(names)}: {reason}." for reason, names in methods.items()]


def refusal(cell: dict[str, Any]) -> str:
    """The command that refuses a cell, with its code and the reason that it prints, without the fix."""
    code = ""
    if "code" in cell:
        code = f" {cell['code']}"
    reason = cell["reason"].partition("; ")[0].rstrip(".")
    return f"`{cell['command']}`{code}: {reason}."


def page_with(text: str, written: str) -> str:
    """A page with another table between its marks."""
    before, _unused, rest = text.partition(BEGIN)
    _unused, _unused, after = rest.partition(END)
    return f"{before}{BEGIN}\n\n{written}\n\n{END}{after}"


def write_table(outcomes: dict[str, Any]) -> None:
    """Put the table into docs/recipes.md."""
    write_text(PAGE, page_with(PAGE.read_text(encoding="utf-8"), table(outcomes)))
