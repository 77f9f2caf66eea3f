"""table.json: a comparison of models, as `tuneyard eval compare` writes it.

Shares are 0 to 1, differences of accuracy -1 to 1, limits are at 95 %. A limit is null if a single row or
cluster leaves it open.
"""

from typing import Annotated, Any, Literal, Required, TypedDict

from tuneyard.core.records.json_schema import Count, Limits, Share
from tuneyard.core.records.record import record, renamed_keys

Limit = Annotated[float | None, "null: one row or cluster leaves it open"]


class CalibrationBin(TypedDict):
    """The examples of which a model is about equally sure."""

    n: Annotated[int, Limits(1, None)]
    confidence: Share
    accuracy: Share
    low: Share
    high: Share


class CalibrationRecord(TypedDict):
    """How well the probability of the chosen label agrees with the accuracy."""

    error: Annotated[Share, "expected calibration error"]
    chance: Annotated[Share, "95 of 100 perfectly calibrated models have less"]
    n: Count
    bins: list[CalibrationBin]


class ModelFigure(TypedDict, total=False):
    """A model's accuracy, or its value in the compared metric, with its limits."""

    accuracy: Share
    value: Annotated[float, "in the compared metric, if that is not accuracy"]
    low: Required[Limit]
    high: Required[Limit]
    stderr: Required[Annotated[float | None, Limits(0, None)]]
    n: Required[Count]
    unparsed: Annotated[Count, "rows whose answer is no label"]
    trained_on: Annotated[Count, "rows in the model's training data"]
    trained_on_at_most: Annotated[bool, "the training may have read fewer of them"]
    trainings: Annotated[list[str], "the models of a setting with several seeds (--replicates)"]
    seed_deviation: Annotated[float, "standard deviation of the trainings' figures"]
    always: Annotated[str, "the one answer to every example"]
    metrics: Annotated[dict[str, Any], "metrics of examples, as in results.json"]
    macro_f1: Annotated[list[Share] | None, "value, low, high", Limits(3, 3)]
    calibration: CalibrationRecord | None


class F1Difference(TypedDict):
    """Macro-F1 of a model minus that of another one."""

    value: Limit
    low: Limit
    high: Limit
    p: Share
    smallest: Annotated[Share, "minimum detectable effect"]


class PairedDifference(TypedDict, total=False):
    """`model` minus `against` on the same rows. p and limits hold for all comparisons together."""

    model: Required[str]
    against: Required[str]
    value: Required[Limit]
    low: Required[Limit]
    high: Required[Limit]
    p: Required[Share]
    shrunk: Annotated[float | None, "value drawn towards the mean of three or more candidates"]
    n: Required[Count]
    better: Required[Annotated[Count, "rows that only `model` has right"]]
    worse: Required[Annotated[Count, "rows that only `against` has right"]]
    smallest: Required[Annotated[float | None, "minimum detectable effect at 80 % power"]]
    macro_f1: Required[F1Difference | None]


class SectionRecord(TypedDict, total=False):
    """The figures and comparisons on one dataset, or on the mean of all."""

    n: Required[Count]
    groups: Required[Annotated[int | None, "number of clusters; null: rows are independent"]]
    majority: Required[Share | None]
    majority_label: Required[str | None]
    margin: Annotated[Share | None, "of --margin"]
    left_out: Annotated[Count, "rows without a value of some model (--metric)"]
    within_margin: Annotated[list[str], "models that lose no more than the margin to the most accurate one"]
    decided_by: Annotated[str | None, "the section that decides, if this one only describes"]
    ship: Required[Annotated[str | None, "the best model that is significantly better than the base"]]
    tied_with: Required[list[str]]
    comparisons: Required[list[PairedDifference]]
    models: Required[dict[str, ModelFigure]]
    verdict: Required[str]


class EstimateRecord(TypedDict):
    """A figure with its limits."""

    value: float
    low: Limit
    high: Limit
    stderr: float | None
    n: Count


class HalfRecord(TypedDict):
    """One half of the examples, with the candidates' figures in the metric of the choice."""

    n: Count
    majority: Annotated[Share | None, "null: the choice is by another metric than accuracy"]
    models: dict[str, EstimateRecord]


class ChoiceRecord(TypedDict):
    """The best candidate on half of a dataset, or on the mean of several datasets (--choose-on)."""

    dataset: str
    metric: str
    model: str
    choosing: HalfRecord
    held_out: HalfRecord


class SliceRecord(TypedDict):
    """The models against the base on the rows with one value of a field (--by)."""

    dataset: str
    value: str
    n: Count
    accuracy: dict[str, Share]
    tests: list[PairedDifference]


class JudgedRecord(TypedDict, total=False):
    """What was compared, and what the comparison shows."""

    metric: Annotated[str, "the compared metric, if that is not accuracy (--metric)"]
    unit: str
    higher_is_better: bool
    base: Required[str]
    models: Required[Annotated[list[str], Limits(1, None)]]
    datasets: Required[Annotated[dict[str, SectionRecord], Limits(1, None)]]
    mean: Required[Annotated[SectionRecord | None, "mean over the datasets, each counting alike"]]
    choice: list[ChoiceRecord]
    slices: list[SliceRecord]
    steps: Annotated[dict[str, Any], "of a suite: figures by step, name and model"]


@record(
    "table.json",
    "table.json: a comparison of models",
    lifts=[renamed_keys({"sets": "datasets"})],
    closed=True,
)
class TableRecord(JudgedRecord, total=False):
    """A comparison with its files."""

    format: Required[Literal[2]]
    left_out: Required[Annotated[str, "what the limits leave out"]]
    warnings: Required[list[str]]
    runs: Required[Annotated[list[str], "folders and files that were read"]]
    plots: Required[Annotated[list[str], "paths below the folder of table.json"]]
    versions: Required[dict[str, str]]
    inputs: Annotated[dict[str, Any], "what the comparison depends on: hashes of runs, values of options"]
    outputs: Annotated[dict[str, str], "SHA-256 of each other file of the comparison, by its path"]
    tuneyard: dict[str, str]
