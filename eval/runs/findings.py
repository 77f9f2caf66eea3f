"""Findings on scored runs, which a reader of a comparison must know. `report/findings.py` has the sentences.

A finding is made where it is seen, also by `judge/`. Its values are those of the runs: no text for people.
"""

from dataclasses import dataclass
from pathlib import Path

from tuneyard.core.records.results_record import ResultFacts, TrainedOn
from tuneyard.core.training.metrics import ACCURACY, Metric


class RunFinding:
    """Something that weakens a comparison: commands print it as a warning, and table.json lists it."""

    __slots__ = ()


class Note(RunFinding):
    """A choice that reading made. It is printed, and is no warning."""

    __slots__ = ()


@dataclass(frozen=True, slots=True)
class HeldOutHalf(Note):
    """The folder of a sweep of weights is compared on its held-out half."""

    sweep: Path


@dataclass(frozen=True, slots=True)
class ChosenSetting(Note):
    """The best setting of a sweep of trainings is compared on the half that did not choose it."""

    sweep: Path


@dataclass(frozen=True, slots=True)
class DecidingScore(Note):
    """One of several scores in a log decides which answers are correct."""

    log: Path
    score: str
    others: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class FailedTraining(RunFinding):
    """A run of a sweep failed, and is left out."""

    run: str


@dataclass(frozen=True, slots=True)
class UnfinishedRun(RunFinding):
    """A run without results.json is left out."""

    folder: Path


@dataclass(frozen=True, slots=True)
class ChosenOnTheseRows(RunFinding):
    """A sweep chose its best point on the compared rows."""

    folders: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class TrainedOnExamples(RunFinding):
    """A model was trained on `examples` of the `n` scored ones.

    `at_most`: they are in its training data, but the training may not have read all of them. `sources` are
    files of the training. `dataset` is "" if the reader knows it.
    """

    model: str
    dataset: str
    examples: int
    n: int
    at_most: bool
    sources: tuple[str, ...]
    metric: Metric


@dataclass(frozen=True, slots=True)
class ScoredTrainingRows(RunFinding):
    """The scored rows are rows of a training split, whichever model answers them.

    `drawn`: the split was drawn from a file, so that another recipe draws other rows. `held_out` are the
    datasets of the rows that the training left out.
    """

    model: str
    dataset: str
    examples: int
    n: int
    training_datasets: tuple[str, ...]
    drawn: bool
    held_out: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class TrainedOnSameName(RunFinding):
    """A model was trained on a dataset with the name of this one."""

    model: str
    dataset: str
    source: str


@dataclass(frozen=True, slots=True)
class CheckpointChosenHere(RunFinding):
    """A model's checkpoint was chosen by its figures on these examples."""

    model: str
    dataset: str
    source: str


@dataclass(frozen=True, slots=True)
class TrainingNotChecked(RunFinding):
    """Nobody could look for these examples in a model's training data."""

    model: str
    reason: str


def training_findings(
    model: str, dataset: str, n: int, facts: ResultFacts, metric: Metric = ACCURACY
) -> list[RunFinding]:
    """Training examples among the `n` scored ones, from the facts in results.json."""
    findings: list[RunFinding] = []
    trained_on: TrainedOn = facts.get("trained_on") or {}
    training_rows = facts.get("training_rows")
    examples = trained_on.get("examples", 0)
    if examples:
        at_most = bool(trained_on.get("at_most", False))
        sources = tuple(trained_on.get("sources", ()))
        findings.append(TrainedOnExamples(model, dataset, examples, n, at_most, sources, metric))
    elif training_rows:
        of_split = ScoredTrainingRows(
            model,
            dataset,
            training_rows["examples"],
            n,
            tuple(training_rows["datasets"]),
            training_rows["drawn"],
            tuple(training_rows["held_out"]),
        )
        findings.append(of_split)
    findings += [TrainedOnSameName(model, dataset, source) for source in trained_on.get("same_name", ())]
    findings += [CheckpointChosenHere(model, dataset, source) for source in trained_on.get("chose", ())]
    findings += [TrainingNotChecked(model, reason) for reason in trained_on.get("not_checked", ())]
    return findings
