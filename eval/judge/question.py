"""A question to a comparison, and its answer.

`eval compare` asks a list of questions, in their order, before it compares the models with the base. Each
answer has records for table.json; `show.tables` makes a table of them.
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from tuneyard.eval.read.run import ScoredRun


class Question(ABC):
    """A question about runs of the same rows."""

    __slots__ = ()
    key: ClassVar[str]
    """Name of the records in table.json."""

    @property
    def warnings(self) -> list[str]:
        """Limits of the answer that do not depend on the runs."""
        return []

    @abstractmethod
    def answer(self, runs: Sequence[ScoredRun], base: str) -> "AnsweredQuestion":
        """Judge the runs. `RequestError` if they cannot answer the question."""


@dataclass(frozen=True, slots=True)
class AnsweredQuestion:
    """Records that answer a question, and the runs to compare afterwards."""

    question: Question
    records: Sequence[Any]
    runs: Sequence[ScoredRun]
