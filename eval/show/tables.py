"""A comparison as Markdown, which reads well in a terminal too, and as JSON for programs."""

from collections.abc import Mapping, Sequence

from tuneyard.core import version
from tuneyard.core.files import versions
from tuneyard.core.language.number_format import Table, grid
from tuneyard.core.language.reader_language import ENGLISH, in_language
from tuneyard.core.language.translation import in_english, tr, tr_counted
from tuneyard.eval.judge.ask import ComparedRuns
from tuneyard.eval.judge.conclusions import MEAN, Comparison, Section
from tuneyard.eval.judge.questions.against_base import AgainstBase, differences, figures, scores, section_name
from tuneyard.eval.judge.questions.replicates import replicates_table
from tuneyard.eval.read.scored_run import ScoredRun
from tuneyard.eval.show.setup import compared_tables
from tuneyard.eval.show.verdict import decisions, notes, verdict

LEFT_OUT = (
    "The intervals are for these examples and these weights. They leave out what another training seed, "
    "another prompt or other data would change."
)
LEFT_OUT_OF_SEEDS = (
    "The intervals of replicates are over these examples and training seeds. They leave out what another "
    "prompt or other data would change."
)

COMPARED = "What was compared"
OTHER_FIGURES = "Other figures"


def question_tables(compared: ComparedRuns) -> dict[str, Table]:
    """Tables that come before the comparison, by caption: those of the other questions."""
    tables: dict[str, Table] = {**replicates_table(compared.comparison)}
    for answer in compared.answers:
        if not isinstance(answer.question, AgainstBase):
            tables |= answer.tables()
    return tables


def left_out(comparison: Comparison) -> str:
    """What the intervals leave out, in English."""
    if replicates_table(comparison):
        return LEFT_OUT_OF_SEEDS
    return LEFT_OUT


def text_of(compared: ComparedRuns, tables: Mapping[str, Table], title: str = "", note: str = "") -> str:
    """Text of table.md: the decision, models and datasets, then the comparison with the tables by caption.

    The user's `note` follows the `title`.
    """
    setup = [f"## {title or tr(COMPARED)}"]
    if note:
        setup.append(note)
    setup += [grid(table) for table in compared_tables(compared).values()]
    captioned = [f"## {caption}\n\n{grid(table)}" for caption, table in tables.items()]
    return _text(compared.comparison, setup, captioned)


def markdown(comparison: Comparison) -> str:
    """The decision and the comparison, without tables of the models and datasets."""
    return _text(comparison, [], [])


def _text(comparison: Comparison, setup: Sequence[str], captioned: Sequence[str]) -> str:
    """The decision comes first, then the sections: those that decide, `captioned` tables, the others."""
    described = [section for section in comparison.sections if section.decided_by]
    parts = [*decisions(comparison), *setup, grid(scores(comparison))]
    parts += [_section(section, comparison) for section in comparison.deciding]
    parts += captioned
    parts += [_section(section, comparison) for section in described]
    others = figures(comparison)
    if others:
        parts += [f"## {tr(OTHER_FIGURES)}", *map(grid, others.values())]
    return "\n\n".join([*parts, tr(left_out(comparison))]) + "\n"


def method(section: Section) -> str:
    """How p and intervals of a section were computed, in sentences."""
    test = tr(" p and intervals come from one test.")
    has_seeds = any(score.trainings for score in section.figures.values())
    if section.name == MEAN:
        rows = tr("Every dataset counts alike.")
    elif section.groups is not None:
        examples, clusters = tr_counted(section.n, "example"), tr_counted(section.groups, "cluster")
        rows = tr("{examples} in {clusters}.", examples=examples, clusters=clusters)
        test = tr(" p and intervals come from one test, which takes clusters whole.")
    else:
        rows = tr_counted(section.n, "independent example") + tr(".")
        one_pair = len(section.against_base) == 1 and not section.between
        if one_pair and section.is_accuracy and not has_seeds:
            test = tr(" p is that of the mid-p McNemar test.")
    if has_seeds:
        test += tr(" Seeds are a random draw like examples.")
    return rows + test + _corrected(len(section.against_base), len(section.between))


def _corrected(against: int, between: int) -> str:
    """Sentence on the correction for several comparisons, "" for a single one."""
    if against > 1 and between > 1:
        sentence = (
            " They are corrected for {against} comparisons with the base and {between} among the others "
            "(max statistic)."
        )
        return tr(sentence, against=against, between=between)
    if against > 1:
        return tr(" They are corrected for {count} comparisons with the base (max statistic).", count=against)
    if between > 1:
        return tr(
            " They are corrected for {count} comparisons among the others (max statistic).", count=between
        )
    return ""


def _section(section: Section, comparison: Comparison) -> str:
    """A section's tests. The decision from a deciding section is the first line of the report."""
    parts = [f"## {section_name(section.name)}", section_text(section, comparison.base)]
    tables = [grid(table) for table in differences(section).values()]
    if tables:
        parts += [*tables, method(section)]
    return "\n\n".join(part for part in parts if part)


def section_text(section: Section, base: str) -> str:
    """The sentences of a section: of a deciding one those that follow the decision."""
    if section.decided_by:
        return verdict(section, base)
    return notes(section, base).strip()


def document(compared: ComparedRuns, plots: Sequence[str]) -> dict[str, object]:
    """table.json, in English: programs read the same JSON in every language."""
    with in_language(ENGLISH):
        fields = to_json(compared.comparison, compared.run_list, compared.warnings, plots)
    return {**fields, **other_answers_json(compared)}


def other_answers_json(compared: ComparedRuns) -> dict[str, object]:
    """The answers to all questions but the comparison with the base, by the names of the questions."""
    fields: dict[str, object] = {}
    for answer in compared.answers:
        if not isinstance(answer.question, AgainstBase):
            fields |= answer.json()
    return fields


def comparison_json(comparison: Comparison) -> dict[str, object]:
    """The comparison with the base as plain JSON values, each section with its verdict."""
    fields = AgainstBase().json([comparison])
    sections = {section.name: section for section in comparison.sets}
    by_name = fields["sets"]
    if isinstance(by_name, dict):
        for name, section_fields in by_name.items():
            section_fields["verdict"] = verdict(sections[name], comparison.base)
    mean = fields["mean"]
    if isinstance(mean, dict) and comparison.mean is not None:
        mean["verdict"] = verdict(comparison.mean, comparison.base)
    return fields


def to_json(
    comparison: Comparison, runs: Sequence[ScoredRun], warnings: Sequence[str], plots: Sequence[str]
) -> dict[str, object]:
    """The comparison with its warnings, runs and plots, and the versions that made it."""
    return {
        **comparison_json(comparison),
        "left_out": left_out(comparison),
        "warnings": [in_english(warning) for warning in warnings],
        "runs": [run.source for run in runs],
        "plots": list(plots),
        "versions": versions("numpy"),
        "tuneyard": version(),
    }
