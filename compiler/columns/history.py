"""Earlier messages of an alpaca record: pairs of a question and its answer."""

from tuneyard.compiler.spec.column_types import PROMPT, Beside, Column, ColumnReader, ColumnType
from tuneyard.compiler.spec.model import Spec
from tuneyard.core.datasets.column_meanings import USUAL_NAMES
from tuneyard.core.language.message import _


class HistoryReader(ColumnReader):
    """Reads the pairs before the question of a row."""

    def read(self, value: list[list[str]] | None) -> list[list[str]]:
        """Clean the texts of each pair."""
        return [list(map(self.file.clean, pair)) for pair in value or []]


class HistoryType(ColumnType):
    """The column `history` of LLaMA-Factory's alpaca format."""

    def check(self, column: Column, spec: Spec) -> None:
        """Refuse it without an alpaca record that it can go before."""
        if spec.mix or "text" in spec.formats:
            super().check(column, spec)
        if spec.conversation_column or spec.formats != {"alpaca"}:
            raise ValueError(
                _(
                    "column {name}: history goes with the question of an alpaca record. Write "
                    "alpaca, or read the whole conversation as turns.",
                    name=column.name,
                )
            )


_TEXT = {"description": _("text that is not blank"), "type": "string", "pattern": "\\S"}
HISTORY = HistoryType(
    "history",
    {
        "description": _("a list of pairs, each a question and its answer"),
        "type": ["array", "null"],
        "items": {"type": "array", "minItems": 2, "maxItems": 2, "items": _TEXT},
    },
    default=[],
    registry_key="history",
    compared=PROMPT,
    beside=Beside(USUAL_NAMES["history"], conversations=False, questions=True),
    reader=HistoryReader,
)
