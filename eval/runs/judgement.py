"""What is compared and what comes of it: a run, and the judgement on runs of the same rows.

Shares are 0-1, differences -1 to 1, limits are at 95 %.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import compress, pairwise
from pathlib import Path
from typing import Any

from tuneyard.core.errors import ContentError, RequestError, show_value
from tuneyard.core.metrics import Metric, metric_of
from tuneyard.eval.metrics.calibration import Calibration
from tuneyard.eval.statistics.family import ALPHA, Estimate

MEAN = "mean"
ACCURACY = metric_of("accuracy")


@dataclass(frozen=True, slots=True)
class ScoredRun:
    """One model's answers to one set, row by row, in the same order for all models of the set.

    `kinds` may part the rows, by `type` or `subtype`; `confidence` is the share (0-1) of the chosen label
    among the labels' probabilities; `facts` say how it was scored (results.json). Where only counts are
    known, `rows` is empty, and which flag belongs to which row is not known. Of another metric than accuracy,
    `values` are its own (None: missing), and `weights` what each row counts (the tokens that a loss is of).
    """

    model: str
    dataset: str
    source: str
    rows: Sequence[str]
    gold: Sequence[str]
    predicted: Sequence[str]
    correct: Sequence[bool]
    groups: Sequence[str] | None = None
    kinds: Mapping[str, Sequence[str]] = field(default_factory=dict)
    confidence: Sequence[float] | None = None
    facts: Mapping[str, object] = field(default_factory=dict)
    values: Sequence[float | None] = ()
    weights: Sequence[float] = ()

    @property
    def trained_on(self) -> Mapping[str, Any]:
        """What results.json says of training examples among the rows; empty where it says nothing."""
        found = self.facts.get("trained_on")
        return found if isinstance(found, Mapping) else {}

    def only(self, keep: Sequence[bool]) -> "ScoredRun":
        """The run with some of its rows."""
        columns = ("rows", "gold", "predicted", "correct", "groups", "confidence", "values", "weights")
        given = {name: getattr(self, name) for name in columns}
        kept: dict[str, Any] = {name: own and list(compress(own, keep)) for name, own in given.items()}
        kept["kinds"] = {name: list(compress(own, keep)) for name, own in self.kinds.items()}
        return replace(self, **kept)


def by_dataset(runs: Iterable[ScoredRun], decide_on: str = "") -> dict[str, dict[str, ScoredRun]]:
    """Return the runs by dataset and model; `RequestError` where none is of the dataset `decide_on`."""
    found: dict[str, dict[str, ScoredRun]] = {}
    for run in runs:
        found.setdefault(run.dataset, {})[run.model] = run
    if decide_on not in ("", *found):
        raise RequestError(f"--decide-on {decide_on}: no such dataset; expected one of {', '.join(found)}")
    return found


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

    `majority` is nan where the expected answers are not known; `over_majority` tests each model whose rows
    are known against always giving the commonest answer. `metric` names another one than accuracy, with
    neither of the two; `left_out` are then rows without a value of some model. `decided_by` names the section
    that decides where this one only describes; `margin` is the loss (a share) that may be shown not to be
    exceeded. `cautions` name what makes some of the intervals too narrow.
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
        something is wrong with their labels, parser or template. If all expected answers are the same, there
        is no such baseline: it would be 100 %."""
        if self.majority >= 1:
            return []
        tests = self.over_majority
        return [name for name in self.ranked if name in tests and tests[name].shown and tests[name].value < 0]

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


KINDS = ("type", "subtype")


@dataclass(frozen=True, slots=True)
class ScoredExample:
    """One scored row: `row` is what it is paired by, `place` where it stands (file:line)."""

    row: str
    gold: str
    predicted: str
    correct: bool
    place: str
    group: str | None = None
    kinds: Mapping[str, str] = field(default_factory=dict)
    confidence: float | None = None
    value: float | None = None
    weight: float = 1.0


def text_field(record: Mapping[str, object], name: str, where: str) -> str:
    """Return a field that must hold a text; `ContentError` with its place otherwise."""
    value = record.get(name)
    if not isinstance(value, str):
        raise ContentError(f"{where}: {name}: found {show_value(value)}, expected a text")
    return value


def optional_text(record: Mapping[str, object], name: str) -> str | None:
    """Return a field as text (a number as its digits), None where it is absent or null.

    1.0 is the text of 1: a table writes whole numbers as floats once a row of their column is empty.
    """
    value = record.get(name)
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    return None if value is None else str(value)


def kinds_of(record: Mapping[str, object], gold: str) -> dict[str, str]:
    """Return the fields that part the rows; rows with a subtype have their gold answer as type."""
    kinds = {name: value for name in KINDS if (value := optional_text(record, name)) is not None}
    return {"type": gold, **kinds} if "subtype" in kinds else kinds


def confidence_of(logs: Sequence[float]) -> float | None:
    """Return the share (0-1) of the likeliest label, given every label's log-probability; None where not even
    that one has any probability."""
    top = max(logs)
    return 1 / math.fsum(math.exp(log - top) for log in logs) if math.isfinite(top) else None


def assemble(
    model: str, dataset: str, source: Path, records: Iterable[ScoredExample], facts: Mapping[str, object]
) -> ScoredRun:
    """Return the run of the records in the order of their row ids; `ContentError` for doubles or gaps."""
    ordered = sorted(records, key=lambda record: (len(record.row), record.row))
    if not ordered:
        raise ContentError(f"{source}: no rows in it; score {model} on {dataset} again")
    try:  # halves of characters (lone surrogates): JSON can hold them, and no file of text can
        "".join([model, dataset, *(text for one in ordered for text in (one.gold, one.predicted))]).encode()
    except UnicodeEncodeError as error:
        half = error.object[error.start]
        raise ContentError(f"{source}: an answer or a name holds half a character ({half!r})") from error
    for one, other in pairwise(ordered):
        if one.row == other.row:
            raise ContentError(f"{other.place}: row {other.row} stands in {one.place} already")
    named = sorted({name for record in ordered for name in record.kinds})
    known = [record.confidence for record in ordered if record.confidence is not None]
    groups = [record.group for record in ordered if record.group is not None]
    if groups and len(groups) < len(ordered):
        without = next(record for record in ordered if record.group is None)
        raise ContentError(f"{without.place}: no group, but {len(groups)} other rows have one")
    return ScoredRun(
        model,
        dataset,
        str(source),
        rows=[record.row for record in ordered],
        gold=[record.gold for record in ordered],
        predicted=[record.predicted for record in ordered],
        correct=[record.correct for record in ordered],
        groups=groups or None,
        kinds={name: [record.kinds.get(name, "") for record in ordered] for name in named},
        confidence=known if len(known) == len(ordered) else None,
        facts=facts,
        values=[record.value for record in ordered],
        weights=[record.weight for record in ordered],
    )
