"""Findings of a comparison. `report/findings.py` has a sentence for each."""

from dataclasses import dataclass

from tuneyard.eval.runs.findings import RunFinding


@dataclass(frozen=True, slots=True)
class TrainingNotRecorded(RunFinding):
    """Logs of other tools do not record the training data of these models."""

    models: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class UnnamedData(RunFinding):
    """Some of the paired runs lack the hash of their data: rows and expected answers alone pair them."""

    unnamed: int
    runs: int
    first: str


@dataclass(frozen=True, slots=True)
class FewClusters(RunFinding):
    """So few clusters can show no difference."""

    dataset: str
    clusters: int
    expected: int


@dataclass(frozen=True, slots=True)
class DifferentQuestions(RunFinding):
    """Two runs have different questions, first in this row."""

    sources: tuple[str, str]
    row: str


@dataclass(frozen=True, slots=True)
class DifferentSettings(RunFinding):
    """Runs differ from the first, the last of `sources`, in (setting, their value, its value)."""

    sources: tuple[str, ...]
    differences: tuple[tuple[str, object, object], ...]


@dataclass(frozen=True, slots=True)
class WorstValues(RunFinding):
    """Every row has the worst value of the metric."""

    model: str
    dataset: str
    metric: str
    value: float


@dataclass(frozen=True, slots=True)
class RefusedRows(RunFinding):
    """A server refused these of `n` rows."""

    model: str
    dataset: str
    rows: tuple[str, ...]
    n: int


@dataclass(frozen=True, slots=True)
class NoCorrectAnswer(RunFinding):
    """No answer is correct; `expected` and `predicted` are those of the first row."""

    model: str
    dataset: str
    expected: str
    predicted: str


@dataclass(frozen=True, slots=True)
class UnexpectedAnswers(RunFinding):
    """Most of `n` answers are none of the few expected ones, such as `examples`."""

    model: str
    answers: int
    n: int
    examples: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class EqualLogProbabilities(RunFinding):
    """Two models have bit-equal log-probabilities. `adapters` are the folders of the first one."""

    dataset: str
    model: str
    other: str
    adapters: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class FewSeeds(RunFinding):
    """A setting has so few trainings that its interval is wide."""

    setting: str
    trainings: int


@dataclass(frozen=True, slots=True)
class RareLabels(RunFinding):
    """Labels with fewer examples than expected, whose F1 is very uncertain."""

    dataset: str
    labels: tuple[str, ...]
    expected: int


@dataclass(frozen=True, slots=True)
class SkewedDifference(RunFinding):
    """A few very skewed values decide a difference."""

    dataset: str
