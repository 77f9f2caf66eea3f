"""The examples that at least one model got wrong, with prompt and answers, for a reader of the report."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from tuneyard.core.language.translation import tr
from tuneyard.eval.read.scored_run import (
    KINDS,
    OUTPUTS,
    RunsByDataset,
    ScoredRun,
    first_text,
    models_of,
    question_of,
)

Item = TypeVar("Item")
LONGEST = 2000  # characters of a question or an answer that are shown
MOST_LETTERS = 12_000_000  # of all rows on a page, which a browser still opens at once


@dataclass(frozen=True, slots=True)
class IncorrectExamples:
    """Incorrect examples of one dataset: `total` counts all of them, `rows` are those that the page shows."""

    dataset: str
    total: int
    rows: Sequence[dict[str, Any]]


def collect_incorrect(runs: RunsByDataset, most: int) -> list[IncorrectExamples]:
    """Collect each dataset's incorrect examples: at most `most`, and at most `MOST_LETTERS` characters.

    If there are more, the rows are evenly spread. A row has `row`, `question`, `expected`, and `type` and
    `subtype` if the data has them. Its `answers` have `model` (its place among all), `predicted`, `output`,
    `right` and `confidence`. Long texts are cut, and say so.
    """
    models = models_of(runs)
    wrong = {}
    for dataset, by_model in runs.items():
        flags_by_row = zip(*(run.correct for run in by_model.values()), strict=True)
        wrong[dataset] = [place for place, flags in enumerate(flags_by_row) if not all(flags)]
    shares = fair_shares({dataset: len(places) for dataset, places in wrong.items()}, most)
    rows_by_dataset = {}
    letters = 0
    for dataset, by_model in runs.items():
        rows = _rows(list(by_model.values()), models, spread(wrong[dataset], shares[dataset]))
        rows_by_dataset[dataset] = rows
        letters += sum(len(json.dumps(row)) for row in rows)
    kept = min(1.0, MOST_LETTERS / max(1, letters))
    collected = []
    for dataset, rows in rows_by_dataset.items():
        kept_rows = spread(rows, int(kept * len(rows)))
        collected.append(IncorrectExamples(dataset, len(wrong[dataset]), kept_rows))
    return collected


def fair_shares(counts: Mapping[str, int], most: int) -> dict[str, int]:
    """Divide `most` evenly; the part that a small count does not need goes to the others."""
    shares = {}
    for place, (name, count) in enumerate(sorted(counts.items(), key=lambda item: item[1])):
        shares[name] = min(count, most // (len(counts) - place))
        most -= shares[name]
    return shares


def spread(items: Sequence[Item], count: int) -> list[Item]:
    """Pick `count` of the items, evenly spread."""
    return [items[i * len(items) // count] for i in range(count)]


def _rows(runs: Sequence[ScoredRun], models: Sequence[str], places: Sequence[int]) -> list[dict[str, Any]]:
    first = runs[0]
    kinds = {kind: values for kind in KINDS if (values := first.kinds(kind))}
    rows = []
    for place in places:
        row: dict[str, Any] = {
            "row": first.rows[place],
            "question": cut(question_of(first.records[place])),
            "expected": cut(first.gold[place]),
        }
        for kind, values in kinds.items():
            row[kind] = cut(values[place])
        row["answers"] = []
        for run in runs:
            predicted = cut(run.predicted[place])
            row["answers"].append(
                {
                    "model": models.index(run.model),
                    "predicted": predicted,
                    "output": cut(first_text(run.records[place], OUTPUTS)) or predicted,
                    "right": run.correct[place],
                    "confidence": run.confidence and round(run.confidence[place], 4),
                }
            )
        rows.append(row)
    return rows


def cut(text: str) -> str:
    """Cut a text after `LONGEST` characters; the count of the rest follows."""
    more = len(text) - LONGEST
    if more <= 0:
        return text
    return text[:LONGEST] + tr("… ({count:,} more characters)", count=more)
