"""Conclusions from a comparison: figures, paired tests, and the sections that decide or describe.

Shares are 0-1, differences -1 to 1, limits are at 95 %.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from tuneyard.core.training.metrics import ACCURACY, Metric
from tuneyard.eval.metrics.calibration import Calibration
from tuneyard.eval.statistics.estimate import DifferenceTest, Estimate, Mean
from tuneyard.eval.statistics.family import ALPHA

MEAN = "mean"


@dataclass(frozen=True, slots=True)
class ModelScore(Mean):
    """A model's accuracy, or its value in the compared metric, on a dataset or on the mean of datasets.

    `macro_f1` is None on the mean and of free text. `calibration` needs the labels' probabilities.
    `trained_on` counts the rows in the model's training data; `trained_on_at_most` if the training may have
    read fewer. `metrics` are those of results.json. `always` is the answer of a model that gives the same
    answer to every example, if several were expected. `trainings` are the models of a recipe with several
    seeds; `seed_deviation` is the standard deviation of their figures, and the limits are over seeds and
    examples.
    """

    unparsed: int = 0
    macro_f1: Estimate | None = None
    calibration: Calibration | None = None
    trained_on: int = 0
    trained_on_at_most: bool = False
    metrics: Mapping[str, Mapping[str, object]] = field(default_factory=dict)
    always: str = ""
    trainings: Sequence[str] = ()
    seed_deviation: float = 0.0


@dataclass(frozen=True, slots=True)
class PairedTest(DifferenceTest):
    """`model` minus `against` on the same `n` rows; p and limits hold for the whole family.

    `better` and `worse` count rows. `macro_f1` is the difference of macro-F1 in the same family. `shrunk` is
    the value shrunk towards the mean of three or more candidates against the base.
    """

    model: str
    against: str
    n: int
    better: int
    worse: int
    macro_f1: DifferenceTest | None = None
    shrunk: float | None = None

    @property
    def shown(self) -> bool:
        """True if the difference is significant at 5 % in its family: its interval excludes 0."""
        return self.p < ALPHA

    def seen_from(self, model: str) -> "PairedTest":
        """The same test as a test of `model` against the other one."""
        if model == self.model:
            return self
        macro_f1 = self.macro_f1
        if macro_f1 is not None:
            macro_f1 = replace(macro_f1, value=-macro_f1.value, low=-macro_f1.high, high=-macro_f1.low)
        return replace(
            self, model=model, against=self.model, value=-self.value, low=-self.high, high=-self.low,
            better=self.worse, worse=self.better, macro_f1=macro_f1,
        )  # fmt: skip


@dataclass(frozen=True, slots=True)
class Section:
    """Figures and tests of one dataset, or of the mean of datasets, and the conclusions from them.

    `over_majority` tests each model against always giving the most common answer, whose accuracy is
    `majority`. Other metrics than accuracy have neither (`majority` is nan). `left_out` counts rows without a
    value of some model. `decided_by` names the section that decides if this one only describes. `margin` is
    the loss (a share) of `--margin`. `cautions` warn of intervals that are too narrow. `datasets` are the
    sections that the mean averages. `elsewhere` are the other datasets if the user chose this one to decide.
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
    cautions: Sequence[str] = ()
    datasets: Sequence["Section"] = ()
    elsewhere: Sequence["Section"] = ()

    @property
    def is_accuracy(self) -> bool:
        """True if the figures are accuracies."""
        return self.metric is ACCURACY

    @property
    def ranked(self) -> list[str]:
        """All models, the best figure first."""
        return sorted(self.figures, key=lambda model: self.metric.rank(self.figures[model].value))

    @property
    def better(self) -> list[str]:
        """The models shown to be better than the base, the best figure first."""
        better = set()
        for test in self.against_base:
            if test.shown and (test.value > 0) == self.metric.higher:
                better.add(test.model)
        return [model for model in self.ranked if model in better]

    @property
    def below_majority(self) -> list[str]:
        """The models shown to be worse than always giving the most common answer, the best figure first:
        something is wrong with their labels, parser or template. One dataset is enough for the mean."""
        return [model for model in self.ranked if self.sections_below_majority(model)]

    def sections_below_majority(self, model: str) -> list["Section"]:
        """Where a model is shown to be worse than always giving the most common answer: the datasets of a
        mean, otherwise this section. If all expected answers of a dataset are the same, there is no such
        baseline: it would be 100 %."""
        sections = [section for section in self.datasets if section.sections_below_majority(model)]
        if sections:
            return sections
        test = self.over_majority.get(model)
        has_baseline = all(section.majority < 1 for section in self.datasets or [self])
        if test is not None and has_baseline and test.shown and test.value < 0:
            return [self]
        return []

    def elsewhere_below_majority(self, model: str) -> list["Section"]:
        """The datasets that do not decide, on which a model is shown to be worse than the majority class."""
        return [section for section in self.elsewhere if section.sections_below_majority(model)]

    @property
    def best(self) -> str | None:
        """The model of the best figure among those shown to be better than the base.

        None if each of them is shown to be worse than the majority class.
        """
        below = self.below_majority
        return next((model for model in self.better if model not in below), None)

    @property
    def rivals(self) -> list[PairedTest]:
        """The tests of the best model against the models that it is statistically tied with."""
        best = self.best
        if best is None:
            return []
        ties = [test for test in self.between if not test.shown]
        return [test.seen_from(best) for test in ties if best in (test.model, test.against)]

    @property
    def against_top(self) -> list[PairedTest]:
        """The tests of every other model against that of the best figure."""
        top = self.ranked[0]
        tests = []
        for test in (*self.against_base, *self.between):
            if test.model == top:
                tests.append(test.seen_from(test.against))
            elif test.against == top:
                tests.append(test)
        return tests


@dataclass(frozen=True, slots=True)
class Comparison:
    """All sections of a comparison with `base`. The mean exists from two datasets on."""

    base: str
    models: Sequence[str]
    sets: Sequence[Section]
    mean: Section | None

    @property
    def metric(self) -> Metric:
        """The metric compared."""
        return self.sets[0].metric

    @property
    def is_accuracy(self) -> bool:
        """True if accuracies are compared."""
        return self.sets[0].is_accuracy

    @property
    def sections(self) -> list[Section]:
        """All sections in the order of a page: those that decide first, then the others."""
        sections = list(self.sets)
        if self.mean:
            sections.append(self.mean)
        return sorted(sections, key=lambda section: bool(section.decided_by))

    @property
    def deciding(self) -> list[Section]:
        """The sections that the verdict is based on: one, or every dataset if there is no mean."""
        return [section for section in self.sections if not section.decided_by]
