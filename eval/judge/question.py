"""A question to a comparison besides which model is the best: one file each in `questions/`.

A question is a function from runs and the base to tables, the fields that it adds to table.json, and the runs
and the base that the next question is about. It reads no file and prints nothing.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from tuneyard.core.language.number_format import Table
from tuneyard.core.training.metrics import Metric
from tuneyard.eval.read.scored_run import RunsByDataset
from tuneyard.eval.statistics.estimate import Mean

Figures = Mapping[str, Mean]
"""A figure of each candidate."""


@dataclass(frozen=True, slots=True)
class Choice:
    """The best candidate on the choosing half of a dataset, or on the mean of several (`MEAN`).

    By half (`CHOOSING`, `HELD_OUT`): the number of rows, the accuracy (0-1) of always giving the most common
    answer, and the candidates' figures in `metric` and accuracies. Without answers that are correct or not
    there are no accuracies, and the majority is nan.
    """

    dataset: str
    model: str
    metric: Metric
    n: Mapping[str, int]
    majority: Mapping[str, float]
    figures: Mapping[str, Figures]
    accuracies: Mapping[str, Figures]


@dataclass(frozen=True, slots=True)
class AnsweredQuestion:
    """Tables by caption, in the current language, and fields of table.json by name.

    `runs` and `base` are what the next question is about; `choices` are those of a choice on one half.
    """

    runs: RunsByDataset
    base: str
    tables: Mapping[str, Table] = field(default_factory=dict)
    figures: Mapping[str, object] = field(default_factory=dict)
    choices: Sequence[Choice] = ()


Question = Callable[[RunsByDataset, str], AnsweredQuestion]
