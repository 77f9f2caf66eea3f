"""The records of a comparison: figures, paired tests, sections with their conclusions, answers to questions.

Shares are 0-1, differences -1 to 1, limits are at 95 %. `report/` makes tables and sentences of them.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial

from tuneyard.core.records.results_record import MetricFigure
from tuneyard.core.training.metrics import ACCURACY, Metric
from tuneyard.eval.runs.findings import RunFinding
from tuneyard.eval.runs.results import BASE
from tuneyard.eval.runs.scored_run import RunsByDataset
from tuneyard.eval.statistics.family import ALPHA, DifferenceTest
from tuneyard.eval.statistics.rates import Calibration, Mean

MEAN = "mean"
"""The name of the section that averages all datasets."""


@dataclass(frozen=True, slots=True)
class ModelScore(Mean):
    """A model's accuracy, or its value in the compared metric, on a dataset or on the mean of datasets.

    `trained_on` counts the rows in the model's training data; `trained_on_at_most` if the training may have
    read fewer. `calibration` needs the labels' probabilities. `metrics` are those of results.json. `always`
    is the answer of a model that gives the same answer to every example, if several were expected.
    `trainings` are the models of a setting with several seeds, `seed_deviation` is the standard deviation of
    their figures; the limits are then over seeds and examples. `macro_f1` is the value with its limits, if
    the answers are labels.
    """

    unparsed: int = 0
    calibration: Calibration | None = None
    trained_on: int = 0
    trained_on_at_most: bool = False
    metrics: Mapping[str, MetricFigure] = field(default_factory=dict)
    always: str = ""
    trainings: Sequence[str] = ()
    seed_deviation: float = 0.0
    macro_f1: Sequence[float] | None = None


@dataclass(frozen=True, slots=True)
class PairedTest(DifferenceTest):
    """`model` minus `against` on the same `n` rows; p and limits hold for the whole family.

    `better` and `worse` count rows. `shrunk` is the value shrunk towards the mean of three or more candidates
    against the base. `macro_f1` is the difference of macro-F1 on the same rows, if the answers are labels.
    """

    model: str
    against: str
    n: int
    better: int
    worse: int
    shrunk: float | None = None
    macro_f1: DifferenceTest | None = None

    @property
    def significant(self) -> bool:
        """True if the difference is significant at 5 % in its family: its interval excludes 0."""
        return self.p < ALPHA

    def seen_from(self, model: str | None) -> "PairedTest":
        """The same test as a test of `model` against the other one, if it is one of the two."""
        if model != self.against:
            return self
        return replace(
            self.turned(), model=model, against=self.model, better=self.worse, worse=self.better,
            macro_f1=self.macro_f1 and self.macro_f1.turned(),
        )  # fmt: skip


@dataclass(frozen=True, slots=True)
class Section:
    """Figures and tests of one dataset, or of the mean of datasets, and the conclusions from them.

    `over_majority` tests each model against always giving the most common answer, whose accuracy is
    `majority`. Other metrics than accuracy, and datasets with one expected answer, have neither (`majority`
    is nan). `same_answer` is the one expected answer: always giving it is correct, so that accuracy supports
    no verdict. `left_out` counts rows without a value of some model. `decided_by` names the section that
    decides if this one only describes. `margin` is the loss (a share) of `--margin`. `cautions` warn of
    intervals that are too narrow. `datasets` are the sections that the mean averages. `elsewhere` are the
    other datasets if the user chose this one to decide.
    `has_seeds` is true if a candidate is a setting that was trained with several seeds.

    The conclusions: `ranked` are all models, the best figure first. `better` are the tests of the models that
    are shown to be better than the base, in this order. `best` is the first of them that is not shown to be
    worse than the majority class. `recommended` is the best, the base if none is better, otherwise "".
    `rivals` are the tests of the best model against those that it is not shown to differ from. `against_top`
    are the tests of every other model against that of the best figure. `within_margin` are the models that
    are shown to lose no more than the margin to it.
    """

    name: str
    n: int
    groups: int | None
    majority: float
    majority_label: str
    figures: Mapping[str, ModelScore]
    against_base: Sequence[PairedTest]
    between: Sequence[PairedTest]
    over_majority: Mapping[str, PairedTest] = field(default_factory=dict)
    decided_by: str = ""
    margin: float | None = None
    left_out: int = 0
    metric: Metric = ACCURACY
    cautions: Sequence[RunFinding] = ()
    datasets: Sequence["Section"] = ()
    elsewhere: Sequence["Section"] = ()
    base: str = BASE
    has_seeds: bool = False
    same_answer: str | None = None
    ranked: Sequence[str] = field(init=False)
    better: Mapping[str, PairedTest] = field(init=False)
    best: str | None = field(init=False)
    recommended: str = field(init=False)
    rivals: Sequence[PairedTest] = field(init=False)
    against_top: Sequence[PairedTest] = field(init=False)
    within_margin: Sequence[str] = field(init=False)

    def __post_init__(self) -> None:
        """Conclude once, in the order in which one conclusion rests on another."""
        conclude = partial(object.__setattr__, self)
        by_rank = sorted(self.figures, key=lambda model: self.metric.rank(self.figures[model].value))
        conclude("ranked", by_rank)
        better: dict[str, PairedTest] = {}
        for test in sorted(self.against_base, key=lambda test: by_rank.index(test.model)):
            if test.significant and (test.value > 0) == self.metric.higher:
                better[test.model] = test
        if self.same_answer is not None:
            better.clear()
        conclude("better", better)
        best = next((model for model in better if not self.below_majority(model)), None)
        conclude("best", best)
        kept = ""
        if self.against_base and not better and self.same_answer is None:
            kept = self.base
        conclude("recommended", best or kept)
        conclude("rivals", [test for test in self.tests_of(best) if not test.significant])
        conclude("against_top", [test.seen_from(test.against) for test in self.tests_of(by_rank[0])])
        least = math.inf
        if self.margin is not None:
            least = -self.margin
        conclude("within_margin", [test.model for test in self.against_top if test.low > least])

    def below_majority(self, model: str) -> list["Section"]:
        """Where a model is shown to be worse than always giving the most common answer: the datasets of a
        mean, otherwise this section. Something is then wrong with its labels, parser or template. If all
        expected answers of a dataset are the same, there is no such baseline: it would be 100 %."""
        sections = [section for section in self.datasets if section.below_majority(model)]
        if sections:
            return sections
        test = self.over_majority.get(model)
        has_baseline = all(section.majority < 1 for section in self.datasets or [self])
        if test is not None and has_baseline and test.significant and test.value < 0:
            return [self]
        return []

    def tests_of(self, model: str | None) -> list[PairedTest]:
        """The tests of a model against each other one, the one of the best figure first; [] for None."""
        every = (*self.against_base, *self.between)
        tests = [test.seen_from(model) for test in every if model in (test.model, test.against)]
        return sorted(tests, key=lambda test: self.ranked.index(test.against))


@dataclass(frozen=True, slots=True)
class Comparison:
    """All sections of a comparison with `base` by one metric. The mean exists from two datasets on.

    `deciding` are the sections that the verdict is based on: one, or every dataset if there is no mean.
    `sections` are all of them in the order of a page: the deciding ones first.
    """

    base: str
    models: Sequence[str]
    sets: Sequence[Section]
    mean: Section | None
    deciding: Sequence[Section]
    sections: Sequence[Section]
    metric: Metric = ACCURACY


@dataclass(frozen=True, slots=True)
class Half:
    """The rows of a dataset that choose, or those held out, or such rows of all datasets."""

    n: int
    majority: float
    """Accuracy of always giving the most common answer, nan if the choice is by another metric."""
    models: Mapping[str, Mean]
    """Each candidate's figure in the metric of the choice."""


@dataclass(frozen=True, slots=True)
class Choice:
    """The best candidate on the choosing half of a dataset, or on the mean of several (`MEAN`)."""

    dataset: str
    metric: Metric
    model: str
    choosing: Half
    held_out: Half


@dataclass(frozen=True, slots=True)
class FlatTop:
    """Every other point of a sweep against the best one, on the rows that chose it, the nearest first."""

    best: str
    metric: Metric
    tests: Sequence[PairedTest]

    @property
    def level(self) -> list[PairedTest]:
        """The tests of the points that are not significantly worse than the best one."""
        return [test for test in self.tests if not test.significant]


@dataclass(frozen=True, slots=True)
class ChoiceOnHalf:
    """How does the best of several models do on examples that did not choose it?"""

    choices: Sequence[Choice]
    """One for each dataset, then one for the mean of several: the last one decides."""
    flat_top: FlatTop | None = None


@dataclass(frozen=True, slots=True)
class Slice:
    """The rows of a dataset with the same value of a field."""

    dataset: str
    value: str
    n: int
    accuracy: Mapping[str, float]
    """Each model's share of correct rows."""
    tests: Sequence[PairedTest]
    """Against the base. p and limits hold for all slices and models of the dataset together."""


@dataclass(frozen=True, slots=True)
class ComparedSlices:
    """How do the models compare with the base on the rows of each value of a field?"""

    field: str
    slices: Sequence[Slice]


@dataclass(frozen=True, slots=True)
class OtherMetrics:
    """How do the models compare with the base in other metrics, by their names?"""

    comparisons: Mapping[str, Comparison]


Answer = ChoiceOnHalf | ComparedSlices | OtherMetrics
"""The answer to a further question. `report/answers.py` shows it."""


@dataclass(frozen=True, slots=True)
class QuestionResult:
    """The answer to a question, and the runs and the base that the next question is about."""

    runs: RunsByDataset
    base: str
    answer: Answer


Question = Callable[[RunsByDataset, str], QuestionResult]
"""A question to a comparison besides which model is the best, about runs and their base: one file each in
`questions/`. It reads no file and prints nothing."""
