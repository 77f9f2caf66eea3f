"""W204: answers that say nothing."""

from collections.abc import Iterator

from tuneyard.compiler.lint import TextBatch, batch_lint
from tuneyard.core.errors.problem_codes import ProblemCode
from tuneyard.core.language.message import _, marked

EMPTY_ANSWER = ProblemCode(
    "W204",
    _("an empty answer"),
    _("Fill in the answer, or delete the row."),
    _("Also what spreadsheets write for it: `NaN`, `N/A`, `无`, `#REF!`."),
    template=marked("an empty answer would be trained on"),
)
_EMPTY = "- – — nan nat <na> n/a null none <noinput> 无 暂无 待补充 tbd #n/a #ref! #value! #div/0! #name?"
EMPTY = {b"", *_EMPTY.encode().split()}
"""Empty texts, and what people, pandas and spreadsheets write for them or for an error, in small letters."""


@batch_lint(EMPTY_ANSWER)
def empty_answers(batch: TextBatch) -> Iterator[tuple[int, str]]:
    """Yield the rows with an empty text or null in a column of answers."""
    for name in batch.may_be_blank:
        values = batch.rows.columns.get(name, batch.texts[name])
        plain = batch.plain[name]
        if EMPTY.isdisjoint(plain) and None not in values:
            continue
        for number, text in enumerate(plain):
            if text in EMPTY or values[number] is None:
                yield number, name
