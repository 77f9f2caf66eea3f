"""A benchmark's groups of sets: what every model reached in each, as a table and as JSON."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from core.files import read_object
from eval.metrics.macro import GroupScore, SetScore, group_score
from eval.reports.markdown import grid
from eval.reports.numbers import interval, percent
from eval.reports.tables import Table
from eval.runs.results import RESULTS

AVERAGE = "average over subjects"
QUESTIONS = "all questions as one"
Groups = Mapping[str, Sequence[str]]
Scores = dict[str, dict[str, GroupScore]]  # by model, then by group, the average last


def read_groups(out: Path, models: Sequence[str], groups: Groups) -> Scores:
    """Return each model's score in every group, and over all sets, of results in OUT/model/set."""
    names = list(dict.fromkeys(name for group in groups.values() for name in group))
    found = {
        model: {name: set_score(read_object(out / model / name / RESULTS)) for name in names}
        for model in models
    }
    every = {**groups, AVERAGE: names}
    return {
        model: {group: group_score([scores[name] for name in members]) for group, members in every.items()}
        for model, scores in found.items()
    }


def group_table(scores: Scores) -> str:
    """Return groups as rows and models as columns, the two averages last."""
    first = next(iter(scores.values()))
    rows = [
        [
            group,
            str(one.sets),
            f"{one.n:,}",
            percent(one.majority),
            *(interval((own[group].accuracy, *own[group].ci95)) for own in scores.values()),
        ]
        for group, one in first.items()
    ]
    last = first[AVERAGE]
    shares = (percent(own[AVERAGE].over_questions) for own in scores.values())
    rows.append([QUESTIONS, str(last.sets), f"{last.n:,}", "", *shares])
    return grid(Table(["accuracy (95 % interval)", "subjects", "n", "majority", *scores], rows))


def groups_json(scores: Scores) -> dict[str, object]:
    """Return the scores as plain JSON values."""
    return {model: {group: asdict(one) for group, one in own.items()} for model, own in scores.items()}


def set_score(results: Mapping[str, Any]) -> SetScore:
    """Return a set's score as results.json has it."""
    low, high = results["ci95"]
    return SetScore(results["accuracy"], (low, high), results["n"], results["majority"])
