"""A benchmark's groups of sets: what every model reached in each, as a table and as JSON."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from core.files import read_object
from eval.reports.numbers import Table, grid, interval, percent
from eval.runs.results import RESULTS
from eval.statistics.rates import Measured, average

AVERAGE = "average over subjects"
QUESTIONS = "all questions as one"


@dataclass(frozen=True, slots=True)
class GroupScore:
    """The mean over sets with its 95 % limits, and beside it the share of all questions taken as one."""

    sets: int
    n: int
    accuracy: float
    ci95: tuple[float, float]
    majority: float
    over_questions: float


Scores = dict[str, dict[str, GroupScore]]  # by model, then by group, the average last


def read_groups(out: Path, models: Sequence[str], groups: Mapping[str, Sequence[str]]) -> Scores:
    """Return each model's score in every group, and over all sets, of results in OUT/model/set."""
    every = {**groups, AVERAGE: list(dict.fromkeys(name for group in groups.values() for name in group))}
    found = {
        model: {name: read_object(out / model / name / RESULTS) for name in every[AVERAGE]}
        for model in models
    }
    return {
        model: {group: group_score([results[name] for name in members]) for group, members in every.items()}
        for model, results in found.items()
    }


def group_score(results: Sequence[Mapping[str, Any]]) -> GroupScore:
    """Return the mean accuracy of sets by their results.json, every set counting alike."""
    mean = average([Measured(one["accuracy"], one["n"], one["stderr"], one["ci95"]) for one in results])
    majority = sum(one["majority"] for one in results) / len(results)
    right = sum(round(one["accuracy"] * one["n"]) for one in results)
    return GroupScore(len(results), mean.n, mean.value, mean.ci95, majority, right / mean.n)


def group_table(scores: Scores) -> str:
    """Return groups as rows and models as columns, the two averages last."""
    first = next(iter(scores.values()))
    rows = []
    for group, one in first.items():
        shares = (interval((own[group].accuracy, *own[group].ci95)) for own in scores.values())
        rows.append([group, str(one.sets), f"{one.n:,}", percent(one.majority), *shares])
    last = first[AVERAGE]
    overall = (percent(own[AVERAGE].over_questions) for own in scores.values())
    rows.append([QUESTIONS, str(last.sets), f"{last.n:,}", "", *overall])
    return grid(Table(["accuracy (95 % interval)", "subjects", "n", "majority", *scores], rows))


def groups_json(scores: Scores) -> dict[str, object]:
    """Return the scores as plain JSON values."""
    return {model: {group: asdict(one) for group, one in own.items()} for model, own in scores.items()}
