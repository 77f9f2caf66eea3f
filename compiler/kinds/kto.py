"""Marks of answers as wanted or not, which LLaMA-Factory 0.9.5 reads as `kto_tag` (stage kto)."""

from collections import Counter
from collections.abc import Mapping
from typing import Self

from tuneyard.compiler.init.profile import FileProfile
from tuneyard.compiler.init.proposal import ProposedColumn
from tuneyard.compiler.kinds import MARK, ColumnReader, KeptValues, Kind, Values
from tuneyard.compiler.spec.column_meanings import USUAL_NAMES
from tuneyard.core.calls import WrongValueError
from tuneyard.core.errors import Problem, show_value

WORDS = {"true": True, "1": True, "yes": True, "false": False, "0": False, "no": False}


class KtoReader(ColumnReader):
    """Reads marks, and ratings if the column has `at_least`."""

    reads_each = True

    def read(self, value: object) -> bool:
        """True if the answer is wanted."""
        at_least = self.column.options.get("at_least")
        if at_least is not None:
            if isinstance(value, bool) or not isinstance(value, int | float):
                raise WrongValueError(
                    f"found {show_value(value)}, expected a number, since the column has `at_least`"
                )
            return bool(value >= at_least)
        if isinstance(value, bool):
            return value
        word = str(value).strip().lower()
        if word not in WORDS:
            raise WrongValueError(
                f"found {show_value(value)}, expected true or false (`at_least` at the column takes ratings)"
            )
        return WORDS[word]


class KeptMarks(KeptValues):
    """Counts the marks: KTO learns from the contrast of wanted and unwanted answers."""

    def __init__(self) -> None:
        self.counts: Counter[object] = Counter()

    def add(self, values: Values) -> None:
        """Count the marks of a batch."""
        self.counts.update(values)

    def join(self, other: Self) -> None:
        """Add the counts of further rows."""
        self.counts.update(other.counts)

    def problem(self, place: str) -> Problem | None:
        """The error of a dataset in which every answer is wanted, or none is."""
        if len(self.counts) != 1:
            return None
        mark = "wanted" if self.counts[True] else "unwanted"
        message = f"all {self.counts.total()} answers are {mark}: KTO learns from both kinds"
        return Problem("E112", place, message, "", "`at_least` at the column says which ratings are wanted")

    def note(self) -> str:
        """How many answers are wanted for each unwanted one."""
        if len(self.counts) < 2:
            return ""
        wanted_rows, unwanted_rows = self.counts[True], self.counts[False]
        ratio = f"{wanted_rows / unwanted_rows:.2f} to 1"
        return f"{wanted_rows} answers wanted, {unwanted_rows} unwanted ({ratio})"


class KtoKind(Kind):
    """Of a conversation, stage kto learns the last answer alone (data/processor/feedback.py)."""

    def learned_answers(self, answers: list[int]) -> list[int]:
        """The last answer."""
        return answers[-1:]

    def proposed_columns(self, profile: FileProfile, *, beside_turns: bool) -> Mapping[str, ProposedColumn]:
        """The first column of marks: true or false in every row."""
        del beside_turns
        for name in (*USUAL_NAMES[self.part], "label"):
            values = [row.get(name) for row in profile.first]
            if values and all(_is_mark(name, value) for value in values):
                return {self.part: {"names": [name], "is": self.name}}
        return {}


def _is_mark(name: str, value: object) -> bool:
    """True for true or false. In a `label`, 0 and 1 may be classes, so only truth values count."""
    if isinstance(value, bool):
        return True
    return name != "label" and str(value).strip().lower() in WORDS


KTO = KtoKind(
    "kto",
    {"description": "true or false, or a number", "type": ["boolean", "number", "string"]},
    options={
        "at_least": {
            "description": "of ratings: an answer with this one or a higher one is wanted",
            "type": "number",
        }
    },
    code="E111",
    part="kto_tag",
    compared=MARK,
    kept_values=KeptMarks,
    bundled_spec="kto",
    recipe="kto-lora",
    reader=KtoReader,
)
