"""Conclusions from a comparison: figures, paired tests, and the sections that decide or describe.

Shares are 0-1, differences -1 to 1, limits are at 95 %.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from tuneyard.core.metrics import Metric, metric_of
from tuneyard.eval.metrics.calibration import Calibration
from tuneyard.eval.statistics.family import ALPHA, Estimate

MEAN = "mean"
ACCURACY = metric_of("accuracy")


@dataclass(frozen=True, slots=True)
class ModelScore:
    """A model's accuracy (a share), or `value` in the metric compared, on a set, or its unweighted mean over
    sets, with 95 % limits.

    `macro_f1` is (value, low, high), None on average and of free text; `calibration` needs the labels'
    probabilities; `trained_on` counts the rows in the model's training data, of which it read fewer, perhaps,
    if `trained_on_at_most`; `metrics` are those of results.json; `always` is the one answer given to every
    example, where several were expected.
    """

    value: float
    low: float
    high: float
    stderr: float
    n: int
    unparsed: int = 0
    macro_f1: tuple[float, float, float] | None = None
    calibration: Calibration | None = None
    trained_on: int = 0
    trained_on_at_most: bool = False
    metrics: Mapping[str, Mapping[str, object]] = field(default_factory=dict)
    always: str = ""


@dataclass(frozen=True, slots=True)
class PairedTest:
    """`model` minus `against` on the same rows; p and limits are those of the whole family. `smallest` is the
    least difference that these rows show with 80 % power, `macro_f1` that of macro-F1 in the same family,
    `shrunk` the value drawn towards the mean of three or more candidates against the base."""

    model: str
    against: str
    value: float
    low: float
    high: float
    n: int
    better: int
    worse: int
    smallest: float
    p: float
    macro_f1: Estimate | None = None
    shrunk: float | None = None

    @property
    def shown(self) -> bool:
        """Whether the difference is significant at 5 % in its family: its interval leaves 0 out."""
        return self.p < ALPHA

    def seen_from(self, model: str) -> "PairedTest":
        """The same test with `model` as the one that is compared."""
        if model == self.model:
            return self
        f1 = self.macro_f1 and replace(
            self.macro_f1, value=-self.macro_f1.value, low=-self.macro_f1.high, high=-self.macro_f1.low
        )
        return replace(
            self, model=model, against=self.model, value=-self.value, low=-self.high, high=-self.low,
            better=self.worse, worse=self.better, macro_f1=f1,
        )  # fmt: skip


@dataclass(frozen=True, slots=True)
class Section:
    """What is known of one set, or of the mean over sets, and what follows from it.

    `over_majority` tests each model against always giving the commonest answer, whose accuracy is `majority`.
    `metric` names another one than accuracy, with neither of the two (`majority` is nan);
    `left_out` are then rows without a value of some model. `decided_by` names the section
    that decides where this one only describes; `margin` is the loss (a share) that may be shown not to be
    exceeded. `cautions` name what makes some of the intervals too narrow. `datasets` are the sections that
    the mean averages.
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
    metric: str = ""
    meaning: Metric = ACCURACY
    cautions: Sequence[str] = ()
    datasets: Sequence["Section"] = ()

    @property
    def ranked(self) -> list[str]:
        """All models, that of the best figure first."""
        return sorted(self.figures, key=lambda model: self.meaning.rank(self.figures[model].value))

    @property
    def better(self) -> list[str]:
        """The models shown to be better than the base, that of the best figure first."""
        sign = 1 if self.meaning.higher else -1
        shown = {test.model for test in self.against_base if test.shown and sign * test.value > 0}
        return [model for model in self.ranked if model in shown]

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

    @property
    def best(self) -> str | None:
        """The model of the best figure among those shown to be better than the base. None is shown to be
        worse than the majority class."""
        below = self.below_majority
        return next((model for model in self.better if model not in below), None)

    @property
    def rivals(self) -> list[PairedTest]:
        """The tests of the best model against those that it is statistically tied with."""
        best = self.best
        if best is None:
            return []
        return [t.seen_from(best) for t in self.between if best in (t.model, t.against) and not t.shown]

    @property
    def against_top(self) -> list[PairedTest]:
        """The tests of every other model against that of the best figure, where they were paired."""
        top = self.ranked[0]
        tests = [t for t in (*self.against_base, *self.between) if top in (t.model, t.against)]
        return [t.seen_from(t.against if t.model == top else t.model) for t in tests]


@dataclass(frozen=True, slots=True)
class Comparison:
    """All sections of a comparison with `base`; `mean` is there from two sets on."""

    base: str
    models: Sequence[str]
    sets: Sequence[Section]
    mean: Section | None

    @property
    def metric(self) -> str:
        """The metric compared, empty for accuracy."""
        return self.sets[0].metric

    @property
    def sections(self) -> list[Section]:
        """All sections in the order in which they are shown: those that decide first, then the others."""
        sections = list(self.sets)
        if self.mean:
            sections.append(self.mean)
        return sorted(sections, key=lambda section: bool(section.decided_by))
