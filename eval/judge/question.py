"""A question to a comparison besides which model is the best: one file each in `questions/`.

A question is a function from runs and the base to tables, the fields that it adds to table.json, and the runs
and the base that the next question is about. It reads no file and prints nothing.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from tuneyard.core.language.number_format import Table
from tuneyard.core.training.metrics import Metric
from tuneyard.eval.runs.scored_run import RunsByDataset
from tuneyard.eval.statistics.rates import Mean

CHOICES = "choice"  # in table.json


@dataclass(frozen=True, slots=True)
class Half:
    """The rows of a dataset that choose, or those held out, or such rows of all datasets.

    `majority` is the accuracy (0-1) of always giving the most common answer, nan if the choice is by another
    metric. `models` have each candidate's figure in the metric of the choice.
    """

    n: int
    majority: float
    models: Mapping[str, Mean]


@dataclass(frozen=True, slots=True)
class Choice:
    """The best candidate on the choosing half of a dataset, or on the mean of several (`MEAN`)."""

    dataset: str
    metric: Metric
    model: str
    choosing: Half
    held_out: Half


@dataclass(frozen=True, slots=True)
class AnsweredQuestion:
    """Tables by caption, in the current language, and records by their name in table.json.

    `runs` and `base` are what the next question is about.
    """

    runs: RunsByDataset
    base: str
    tables: Mapping[str, Table] = field(default_factory=dict)
    figures: Mapping[str, Any] = field(default_factory=dict)


Question = Callable[[RunsByDataset, str], AnsweredQuestion]
