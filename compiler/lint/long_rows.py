"""W207: rows that no model reads whole."""

from collections.abc import Iterator

from tuneyard.compiler.lint import TextBatch, batch_lint
from tuneyard.core.errors.problem_codes import ProblemCode

LONG_ROW = ProblemCode(
    "W207",
    "a very long row",
    "Split it into several rows.",
    "`cutoff_len` will cut most of it.",
    template="a very long row: a million characters or more",
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
