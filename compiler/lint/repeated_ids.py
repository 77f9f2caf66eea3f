"""W201: ids that occur twice in a split."""

from collections.abc import Iterator

from tuneyard.compiler.lint import Splits, split_lint
from tuneyard.core.errors import Problem
from tuneyard.core.errors.problem_codes import ProblemCode
from tuneyard.core.language.message import _, marked

REPEATED_ID = ProblemCode(
    "W201",
    _("an id that came before"),
    _("Check whether two files were joined, or rows were repeated."),
    template=marked("the same id as in {place}"),
)


@split_lint(REPEATED_ID, columns=["ids"])
def repeated_ids(splits: Splits) -> Iterator[Problem]:
    """Yield the rows whose id came before in their split."""
    for rows in splits.rows.values():
        for row, first in rows.repeated_ids():
            message = REPEATED_ID.message(place=rows.location(first))
            yield Problem(REPEATED_ID, rows.location(row), message)
