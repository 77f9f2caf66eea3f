"""A question to a comparison besides which model is the best: one file each in `questions/`.

A question is a function from runs and the base to tables, the fields that it adds to table.json, and the runs
and the base that the next question is about. It reads no file and prints nothing.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from tuneyard.core.language.number_format import Table
from tuneyard.eval.read.scored_run import RunsByDataset

if TYPE_CHECKING:
    from tuneyard.eval.judge.questions.choice import Choice


@dataclass(frozen=True, slots=True)
class AnsweredQuestion:
    """Tables by caption, in the current language, and fields of table.json by name.

    `runs` and `base` are what the next question is about; `choices` are those of a choice on one half.
    """

    runs: RunsByDataset
    base: str
    tables: Mapping[str, Table] = field(default_factory=dict)
    figures: Mapping[str, object] = field(default_factory=dict)
    choices: "Sequence[Choice]" = ()


Question = Callable[[RunsByDataset, str], AnsweredQuestion]
