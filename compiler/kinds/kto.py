"""Marks of answers as wanted or not: what LLaMA-Factory 0.9.5 reads as `kto_tag` (stage kto)."""

from collections import Counter

from tuneyard.compiler.kinds import MARK, ColumnReader, Kind
from tuneyard.core.calls import WrongValueError
from tuneyard.core.errors import Problem, show_value

WORDS = {"true": True, "1": True, "yes": True, "false": False, "0": False, "no": False}


class KtoReader(ColumnReader):
    """Reads marks, and ratings if the column has `at_least`."""

    reads_each = True

    def read(self, value: object) -> bool:
        """Whether the answer is wanted."""
        at_least = self.column.at_least
        if at_least is not None:
            if isinstance(value, bool) or not isinstance(value, int | float):
                raise WrongValueError(
                    f"found {show_value(value)}, expected a number, since the column has `at_least`"
                )
            return value >= at_least
        if isinstance(value, bool):
            return value
        word = str(value).strip().lower()
        if word not in WORDS:
            raise WrongValueError(
                f"found {show_value(value)}, expected true or false (`at_least` at the column takes ratings)"
            )
        return WORDS[word]


def one_class(counts: Counter[object], place: str) -> Problem:
    """The error of a dataset in which every answer is wanted, or none is."""
    found = "wanted" if counts[True] else "unwanted"
    message = f"all {counts.total()} answers are {found}: KTO learns from both kinds"
    return Problem("E112", place, message, "", "`at_least` at the column says which ratings are wanted")


class KtoKind(Kind):
    """Of a conversation, stage kto learns the last answer alone (data/processor/feedback.py)."""

    def learned_answers(self, answers: list[int]) -> list[int]:
        """The last answer."""
        return answers[-1:]


KTO = KtoKind(
    "kto",
    {"description": "true or false, or a number", "type": ["boolean", "number", "string"]},
    code="E111",
    part="kto_tag",
    compared=MARK,
    reader=KtoReader,
)
