"""Labels of a spec: `labels:` maps the values of a file to the words that a model answers with."""

from functools import lru_cache
from itertools import chain
from typing import cast

from tuneyard.compiler.spec.column_types import Column, ColumnType, FileContext, Values, written_value
from tuneyard.compiler.spec.model import Spec
from tuneyard.core.errors import Problem, nearest, show_value
from tuneyard.core.errors.problem_codes import ProblemCode
from tuneyard.core.language.message import _

UNKNOWN_LABEL = ProblemCode(
    "E104",
    _("a label outside the map"),
    _("Add it to `labels:` in the spec, or correct the row."),
)


COLUMN = "label"
_nearest = lru_cache(1000)(nearest)  # a wrong label often stands in every row, and looking takes 70 µs


class LabelType(ColumnType):
    """The spec's `labels:` check and replace the values. Rows without one are dropped."""

    def check(self, column: Column, spec: Spec) -> None:
        """Refuse it without labels, and another name of the column."""
        if column.name != COLUMN or not spec.labels:
            raise ValueError(_("`is: label` is for the column `label`, and needs `labels`"))

    def is_usual_for(self, column: str, *, has_labels: bool) -> bool:
        """True for the column `label` of a spec with labels."""
        return column == COLUMN and has_labels

    def is_always_used(self) -> bool:
        """Rows without a label are dropped, whatever the records contain."""
        return True

    def drops_rows_without_it(self) -> bool:
        """Files of unlabelled rows have no such column."""
        return True

    def as_texts(self, values: Values) -> list[str]:
        """The labels of the spec, which are texts."""
        return cast("list[str]", values)

    def explain(self, value: object, location: str, field: str, file: FileContext) -> Problem:
        """E104: a label that the spec lacks, with the one that may be meant."""
        labels = tuple(dict.fromkeys(map(written_value, chain.from_iterable(file.spec.labels.values()))))
        fix = _nearest(value, labels) if isinstance(value, str) else ""
        if isinstance(value, str) and not value.strip():
            fix = _(
                "`unlabelled: [{value}]` under `labels` in a spec drops such rows", value=show_value(value)
            )
        elif value is None:
            fix = _("fill it, or delete the row")
        elif isinstance(value, dict | list):
            fix = _(
                "--column label={column}.KEY names the label inside it",
                column=file.sources.get(COLUMN, COLUMN),
            )
        message = _(
            "found {value}, expected one of {labels}", value=show_value(value), labels=", ".join(labels)
        )
        return Problem(UNKNOWN_LABEL, location, message, field, fix)


LABEL = LabelType(
    "label",
    {"description": _("one of the spec's labels")},
    has_answer=True,
    shapes=("labelled pair", "labelled text"),
)
