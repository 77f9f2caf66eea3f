"""A question to a comparison, and its answer.

A comparison asks a list of questions in their order. Each question is one file in `questions/`. It judges the
runs and gives records, a table of them and the JSON for table.json. It reads no file and prints nothing.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, ClassVar

from tuneyard.core.language.number_format import Table
from tuneyard.eval.read.scored_run import RunsByDataset


class Question(ABC):
    """A question about runs of the same rows."""

    __slots__ = ()
    key: ClassVar[str]
    """Name of the records in table.json."""

    @property
    def metric(self) -> str:
        """Metric whose values the runs must have, "" for none."""
        return ""

    @property
    def field(self) -> str:
        """Field of the rows that the runs must have, "" for none."""
        return ""

    @property
    def reads_stated_metrics(self) -> bool:
        """True if the runs must have the values of the metrics that their results.json states."""
        return False

    @property
    def warnings(self) -> list[str]:
        """Limits of the answer that do not depend on the runs."""
        return []

    @abstractmethod
    def answer(self, runs: RunsByDataset, base: str) -> "AnsweredQuestion":
        """Judge the runs. `RequestError` if they cannot answer the question."""

    @abstractmethod
    def tables(self, records: Sequence[Any], base: str) -> dict[str, Table]:
        """Tables of the records by caption, in the current language."""

    def json(self, records: Sequence[Any]) -> dict[str, object]:
        """The part of table.json that the records fill."""
        return {self.key: [asdict(record) for record in records]}


def metric_of_questions(questions: Sequence[Question]) -> str:
    """Metric whose values the runs must have, "" if no question needs one."""
    return next((question.metric for question in questions if question.metric), "")


@dataclass(frozen=True, slots=True)
class AnsweredQuestion:
    """Records that answer a question, and the runs and the base that the next question is about."""

    question: Question
    records: Sequence[Any]
    runs: RunsByDataset
    base: str

    def tables(self) -> Mapping[str, Table]:
        """Tables by caption; none without records."""
        if not self.records:
            return {}
        return self.question.tables(self.records, self.base)

    def json(self) -> dict[str, object]:
        """Part of table.json."""
        return self.question.json(self.records)
