"""W207: rows that no model reads whole."""

from collections.abc import Iterator

from tuneyard.compiler.lint import TextBatch, batch_lint
from tuneyard.core.errors.problem_codes import ProblemCode
from tuneyard.core.language.message import _, marked

LONG_ROW = ProblemCode(
    "W207",
    _("a very long row"),
    _("Split it into several rows."),
    _("`cutoff_len` will cut most of it."),
    template=marked("a very long row: a million characters or more"),
)
LONG = 1_000_000


@batch_lint(LONG_ROW)
def long_rows(batch: TextBatch) -> Iterator[tuple[int, str]]:
    """Yield the rows with a million characters or more."""
    if max(batch.lengths) < LONG:
        return
    for number, length in enumerate(batch.lengths):
        if length >= LONG:
            yield number, ""
