"""Conclusions from a comparison: figures, paired tests, and the sections that decide or describe.

Shares are 0-1, differences -1 to 1, limits are at 95 %.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from tuneyard.core.language.number_format import limits, p_cell
from tuneyard.core.language.translation import tr
from tuneyard.core.training.metrics import ACCURACY, Metric
from tuneyard.eval.metrics.calibration import Calibration
from tuneyard.eval.read.results import BASE
from tuneyard.eval.statistics.family import ALPHA, DifferenceTest
from tuneyard.eval.statistics.rates import Mean

MEAN = "mean"
BEST_MARK = " ←"
DIFFERENCES = ("", "difference, points (95 %)", "fixed", "regressed", "p", "minimum detectable effect")
MEASURED = ("", "difference (95 %)", "better", "worse", "p", "minimum detectable effect")


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
    metrics: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
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
    def shown(self) -> bool:
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
    base: str = BASE

    @property
    def has_seeds(self) -> bool:
        """True if a candidate is a setting that was trained with several seeds."""
        return any(score.trainings for score in self.figures.values())

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

    def below_majority(self, model: str) -> list["Section"]:
        """Where a model is shown to be worse than always giving the most common answer: the datasets of a
        mean, otherwise this section. Something is then wrong with its labels, parser or template. If all
        expected answers of a dataset are the same, there is no such baseline: it would be 100 %."""
        sections = [section for section in self.datasets if section.below_majority(model)]
        if sections:
            return sections
        test = self.over_majority.get(model)
        has_baseline = all(section.majority < 1 for section in self.datasets or [self])
        if test is not None and has_baseline and test.shown and test.value < 0:
            return [self]
        return []

    @property
    def best(self) -> str | None:
        """The model of the best figure among those shown to be better than the base.

        None if each of them is shown to be worse than the majority class.
        """
        return next((model for model in self.better if not self.below_majority(model)), None)

    def tests_of(self, model: str | None) -> list[PairedTest]:
        """The tests of a model against each other one, the one of the best figure first; [] for None."""
        every = (*self.against_base, *self.between)
        tests = [test.seen_from(model) for test in every if model in (test.model, test.against)]
        return sorted(tests, key=lambda test: self.ranked.index(test.against))

    @property
    def rivals(self) -> list[PairedTest]:
        """The tests of the best model against the models that it is not shown to differ from."""
        return [test for test in self.tests_of(self.best) if not test.shown]

    @property
    def against_top(self) -> list[PairedTest]:
        """The tests of every other model against that of the best figure."""
        return [test.seen_from(test.against) for test in self.tests_of(self.ranked[0])]

    @property
    def within_margin(self) -> list[str]:
        """The models that are shown to lose no more than the margin to the best figure."""
        margin = self.margin
        if margin is None:
            return []
        return [test.model for test in self.against_top if test.low > -margin]


@dataclass(frozen=True, slots=True)
class Comparison:
    """All sections of a comparison with `base` by one metric. The mean exists from two datasets on."""

    base: str
    models: Sequence[str]
    sets: Sequence[Section]
    mean: Section | None
    metric: Metric = ACCURACY

    @property
    def sections(self) -> list[Section]:
        """All sections in the order of a page: those that decide first, then the others."""
        sections = list(self.sets)
        if self.mean:
            sections.append(self.mean)
        return sorted(sections, key=lambda section: bool(section.decided_by))

    @property
    def ranked(self) -> list[str]:
        """All models, the best in the deciding section first, those without a figure there last."""
        ranked = self.deciding[0].ranked
        return [*ranked, *(model for model in self.models if model not in ranked)]

    @property
    def deciding(self) -> list[Section]:
        """The sections that the verdict is based on: one, or every dataset if there is no mean."""
        return [section for section in self.sections if not section.decided_by]


def translated(header: Sequence[str]) -> list[str]:
    """A table's header in the current language."""
    return [name and tr(name) for name in header]


def differences_header(metric: Metric) -> Sequence[str]:
    """The header of a table of tests: in points, or in the unit of the metric."""
    if metric.in_percent:
        return DIFFERENCES
    return MEASURED


def section_name(name: str) -> str:
    """A dataset's name, or that of the mean in the current language."""
    if name == MEAN:
        return tr(MEAN)
    return name


def difference_cells(test: PairedTest, metric: Metric) -> list[str]:
    """Cells of one test, in the order of `DIFFERENCES` and `MEASURED`."""
    return [
        f"{test.model} − {test.against}",
        limits(metric.signed_text, test.with_limits),
        f"{test.better:,}",
        f"{test.worse:,}",
        p_cell(test.p),
        metric.size_text(test.smallest),
    ]
