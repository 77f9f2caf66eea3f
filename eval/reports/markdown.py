"""A comparison as Markdown, which reads well in a terminal too."""

from collections.abc import Mapping

from core.language import tr
from eval.reports.numbers import grid
from eval.reports.tables import LEFT_OUT, accuracies, differences, figures, method
from eval.reports.verdict import headline, section_name, verdict
from eval.runs.judgement import Comparison, Section

NUMBERED = "The plots number what no installed font can write (a CJK font would):"


def markdown(comparison: Comparison, numbered: Mapping[str, str]) -> str:
    """Return the whole judgement: accuracies, then each section's comparisons under its verdict; `numbered`
    is the key of the labels that the plots could not write out."""
    parts = [grid(table) for table in (accuracies(comparison), *figures(comparison).values())]
    sections = sorted(comparison.sections, key=lambda section: bool(section.decided_by))
    parts += [_section(section, comparison) for section in sections]
    if numbered:
        key = "\n".join(f"- {number} {label}" for label, number in numbered.items())
        parts.append(f"{tr(NUMBERED)}\n\n{key}")
    return "\n\n".join([*parts, tr(LEFT_OUT)]) + "\n"


def _section(section: Section, comparison: Comparison) -> str:
    whole = [headline(comparison)] if section is comparison.mean and not section.decided_by else []
    parts = [f"## {section_name(section.name)}", *whole, verdict(section, comparison.base)]
    tables = [grid(table) for table in differences(section).values()]
    return "\n\n".join([*parts, *tables, *([method(section)] if tables else [])])
