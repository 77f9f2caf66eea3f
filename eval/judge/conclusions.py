"""The records of a comparison: figures, paired tests, sections with their conclusions, answers to questions.

Shares are 0-1, differences -1 to 1, limits are at 95 %. `report/` makes tables and sentences of them.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from tuneyard.core.records.results_record import MetricFigure
from tuneyard.core.training.metrics import ACCURACY, Metric
from tuneyard.eval.runs.findings import RunFinding
from tuneyard.eval.runs.scored_run import RunsByDataset
from tuneyard.eval.statistics.family import ALPHA, DifferenceTest
from tuneyard.eval.statistics.rates import Calibration, Mean

MEAN = "mean"
"""The name of the section that averages all datasets."""


@dataclass(frozen=True, slots=True)
class ModelScore(Mean):
    """A model's accuracy, or its value in the compared metric, on a dataset or on the mean of datasets."""

    unparsed: int = 0
    calibration: Calibration | None = None
    """None without probabilities of the labels."""
    trained_on: int = 0
    """Examples that are in the model's training data."""
    trained_on_at_most: bool = False
    """True if the training may have read fewer of them."""
    metrics: Mapping[str, MetricFigure] = field(default_factory=dict)
    """Those of results.json."""
    always: str = ""
    """The answer of a model that gives it to every example, if several were expected."""
    trainings: Sequence[str] = ()
    """The models of a setting with several seeds: the limits are then over seeds and examples."""
    seed_deviation: float = 0.0
    """Standard deviation of the figures of the trainings."""
    macro_f1: Sequence[float] | None = None
    """The value with its limits, if the answers are labels."""


@dataclass(frozen=True, slots=True)
class PairedTest(DifferenceTest):
    """`model` minus `against` on the same rows; p and limits hold for the whole family."""

    model: str
    against: str
    n: int
    better: int
    """Rows on which `model` is better."""
    worse: int
    shrunk: float | None = None
    """The value shrunk towards the mean of three or more candidates against the base."""
    macro_f1: DifferenceTest | None = None
    """The difference of macro-F1 on the same rows, if the answers are labels."""

    @property
    def significant(self) -> bool:
        """True if the difference is significant at 5 % in its family: its interval excludes 0."""
        return self.p < ALPHA

    def seen_from(self, model: str | None) -> "PairedTest":
        """The same test as a test of `model` against the other one, if it is one of the two."""
        if model != self.against:
            return self
        return replace(
            self.opposite(), model=model, against=self.model, better=self.worse, worse=self.better,
            macro_f1=self.macro_f1 and self.macro_f1.opposite(),
        )  # fmt: skip


@dataclass(frozen=True, slots=True)
class Baseline:
    """Always giving the most common answer of a dataset, or of each of several.

    There is none for another metric than accuracy, or if all expected answers are the same.
    """

    accuracy: float = math.nan
    label: str = ""
    """The most common answer, "" for several datasets."""
    tests: Mapping[str, PairedTest] = field(default_factory=dict)
    """Each model against it, on the same rows."""

    def beats(self, model: str) -> bool:
        """True if the model is significantly worse. Its labels, parser or template are then wrong."""
        test = self.tests.get(model)
        return test is not None and test.significant and test.value < 0


@dataclass(frozen=True, slots=True)
class Conclusion:
    """What a section shows."""

    ranked: Sequence[str]
    """All models, the best figure first."""
    better: Mapping[str, PairedTest]
    """The tests of the models that are significantly better than the base, in this order."""
    best: str | None
    """The first of them that is not significantly worse than the majority class, on any dataset."""
    recommended: str
    """The best. The base if no model is better, and "" if there is nothing to recommend."""
    rivals: Sequence[PairedTest]
    """The tests of the best model against those from which it does not differ significantly."""
    against_top: Sequence[PairedTest]
    """The tests of every other model against that of the best figure."""
    within_margin: Sequence[str]
    """The models that lose significantly less than the margin to it."""


@dataclass(frozen=True, slots=True)
class Section:
    """What was compared on one dataset, or on the mean of datasets, and what it shows."""

    name: str
    n: int
    groups: int | None
    """Number of clusters. None: the examples are independent."""
    metric: Metric
    base: str
    figures: Mapping[str, ModelScore]
    against_base: Sequence[PairedTest]
    between: Sequence[PairedTest]
    """The tests of every pair of the other models."""
    baseline: Baseline
    conclusion: Conclusion
    same_answer: str | None = None
    """The one expected answer: always giving it is correct, so that accuracy supports no verdict."""
    left_out: int = 0
    """Rows without a value of some model."""
    margin: float | None = None
    """The loss (a share) of `--margin`."""
    cautions: Sequence[RunFinding] = ()
    """Why intervals may be too narrow."""
    decided_by: str = ""
    """The section that decides, if this one only describes."""
    datasets: Sequence["Section"] = ()
    """The sections that the mean averages."""
    elsewhere: Sequence["Section"] = ()
    """The other datasets, if the user chose this one to decide."""

    @property
    def has_seeds(self) -> bool:
        """True if a candidate is a setting that was trained with several seeds."""
        return any(score.trainings for score in self.figures.values())

    def below_majority(self, model: str) -> list["Section"]:
        """Where a model is significantly worse than always giving the most common answer: the datasets of a
        mean, otherwise this section."""
        sections = [section for section in self.datasets if section.baseline.beats(model)]
        if not sections and self.baseline.beats(model):
            return [self]
        return sections

    def tests_of(self, model: str | None) -> list[PairedTest]:
        """The tests of a model against each other one, the one of the best figure first; [] for None."""
        return _tests_of(model, [*self.against_base, *self.between], self.conclusion.ranked)


def conclude(
    figures: Mapping[str, ModelScore],
    against_base: Sequence[PairedTest],
    between: Sequence[PairedTest],
    baselines: Sequence[Baseline],
    metric: Metric,
    base: str,
    margin: float | None,
    *,
    has_verdict: bool,
) -> Conclusion:
    """What figures and tests show. `baselines` are those of the section, and of the datasets of a mean.

    Without a verdict, because every expected answer is the same, no model is better.
    """
    ranked = sorted(figures, key=lambda model: metric.rank(figures[model].value))
    better: dict[str, PairedTest] = {}
    for test in sorted(against_base, key=lambda test: ranked.index(test.model)):
        if has_verdict and test.significant and (test.value > 0) == metric.higher:
            better[test.model] = test
    above = [model for model in better if not any(baseline.beats(model) for baseline in baselines)]
    best = next(iter(above), None)
    recommended = best or ""
    if has_verdict and against_base and not better:
        recommended = base
    tests = [*against_base, *between]
    against_top = [test.seen_from(test.against) for test in _tests_of(ranked[0], tests, ranked)]
    least = math.inf
    if margin is not None:
        least = -margin
    return Conclusion(
        ranked,
        better,
        best,
        recommended,
        rivals=[test for test in _tests_of(best, tests, ranked) if not test.significant],
        against_top=against_top,
        within_margin=[test.model for test in against_top if test.low > least],
    )


def _tests_of(model: str | None, tests: Sequence[PairedTest], ranked: Sequence[str]) -> list[PairedTest]:
    """The tests of a model as tests of it against each other one, by rank."""
    of_model = [test.seen_from(model) for test in tests if model in (test.model, test.against)]
    return sorted(of_model, key=lambda test: ranked.index(test.against))


@dataclass(frozen=True, slots=True)
class Comparison:
    """All sections of a comparison with `base` by one metric."""

    base: str
    models: Sequence[str]
    datasets: Sequence[Section]
    mean: Section | None
    """From two datasets on."""
    deciding: Sequence[Section]
    """The sections that the verdict is based on: one, or every dataset if there is no mean."""
    sections: Sequence[Section]
    """All of them in the order of a page: the deciding ones first."""
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
