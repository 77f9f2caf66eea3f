"""W202 and W203: inputs that occur twice in a split, with the same answer or another one."""

from collections.abc import Iterator

from tuneyard.compiler.lint import Splits, split_lint
from tuneyard.core.errors import Problem
from tuneyard.core.errors.problem_codes import ProblemCode
from tuneyard.core.language.message import _, marked

REPEATED_ROW = ProblemCode(
    "W202",
    _("a row that came before"),
    _("Delete one of both, or write `drop_duplicates: true` into the spec."),
    _("Same texts and answer, apart from blanks and case."),
    template=marked("the same row as in {place}; `drop_duplicates: true` in the spec drops it"),
)
CONFLICT = ProblemCode(
    "W203",
    _("the same input with another answer"),
    _("Correct the wrong one of both."),
    template=marked("the same input as in {place}, another answer"),
)


@split_lint(REPEATED_ROW, CONFLICT, columns=["prompts", "answers"])
def repeated_rows(splits: Splits) -> Iterator[Problem]:
    """Yield the rows whose input came before in their split."""
    for rows in splits.rows.values():
        repeats, conflicts = rows.repeats()
        for code, pairs in ((REPEATED_ROW, repeats), (CONFLICT, conflicts)):
            for row, first in pairs:
                yield Problem(code, rows.location(row), code.message(place=rows.location(first)))
