"""The rows that somebody got wrong, with what was asked and answered, for a report to look through."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tuneyard.core.documents import json_lines
from tuneyard.core.language import tr
from tuneyard.eval.read.logs import reader_of
from tuneyard.eval.read.results import PREDICTIONS
from tuneyard.eval.read.run import KINDS, ScoredRun, by_dataset, optional_text

LONGEST = 2000  # characters of a question or an answer that are shown
MOST_LETTERS = 12_000_000  # of all rows on a page, which a browser still opens at once
ROW_NAMES = ("row", "doc_id", "id")
QUESTION_NAMES = ("instruction", "prompt", "question", "user")
ANSWER_NAMES = ("model_output", "prediction")


@dataclass(frozen=True, slots=True)
class IncorrectExamples:
    """Of one set: how many rows at least one model has wrong, and the rows that are shown."""

    dataset: str
    total: int
    rows: Sequence[dict[str, Any]]


def collect_incorrect(runs: Sequence[ScoredRun], models: Sequence[str], most: int) -> list[IncorrectExamples]:
    """Return each set's wrong rows, evenly spread where they are more than `most`, or than `MOST_LETTERS`
    hold.

    A row has `row`, `question`, `expected`, `type` and `subtype` where it has them, and `answers` (`model` by
    its place in `models`, `predicted`, `output`, `right`, `confidence`); long texts are cut, and say so.
    """
    by_set = {name: list(own.values()) for name, own in by_dataset(runs).items()}
    wrong = {
        name: [
            place
            for place, right in enumerate(zip(*(run.correct for run in own), strict=True))
            if not all(right)
        ]
        for name, own in by_set.items()
    }
    shares = fair_shares({name: len(rows) for name, rows in wrong.items()}, most)
    found = {name: _rows(own, models, spread(wrong[name], shares[name])) for name, own in by_set.items()}
    letters = sum(len(json.dumps(row)) for rows in found.values() for row in rows)
    kept = min(1.0, MOST_LETTERS / max(1, letters))
    return [
        IncorrectExamples(
            name, len(wrong[name]), [rows[i] for i in spread(range(len(rows)), int(kept * len(rows)))]
        )
        for name, rows in found.items()
    ]


def fair_shares(counts: Mapping[str, int], most: int) -> dict[str, int]:
    """Return how much each may have of `most`: all alike, and what one does not need goes to the others."""
    shares = {}
    for place, (name, count) in enumerate(sorted(counts.items(), key=lambda item: item[1])):
        shares[name] = min(count, most // (len(counts) - place))
        most -= shares[name]
    return shares


def spread(places: Sequence[int], count: int) -> list[int]:
    """Return `count` of the places, evenly spread over them."""
    return [places[i * len(places) // count] for i in range(count)]


def _rows(runs: Sequence[ScoredRun], models: Sequence[str], places: Sequence[int]) -> list[dict[str, Any]]:
    wanted = {runs[0].rows[place] for place in places}
    records = [_records(run, wanted) for run in runs]
    return [
        {
            "row": runs[0].rows[place],
            "question": _question(records[0][runs[0].rows[place]]),
            "expected": cut(runs[0].gold[place]),
            **{kind: cut(runs[0].kinds[kind][place]) for kind in KINDS if kind in runs[0].kinds},
            "answers": [
                _answer(run, models.index(run.model), place, own[run.rows[place]])
                for run, own in zip(runs, records, strict=True)
            ],
        }
        for place in places
    ]


def _records(run: ScoredRun, wanted: set[str]) -> dict[str, dict[str, object]]:
    """The logged records of the wanted rows; of several filters of one log the first that stands there."""
    source = Path(run.source)
    records: dict[str, dict[str, object]] = {}
    if source.is_dir():
        for _, record in json_lines(source / PREDICTIONS):
            row = _first(record, ROW_NAMES)
            if row in wanted:
                records.setdefault(row, record)
        return records
    for logged in reader_of(source).rows(source):
        if logged.example.row in wanted:
            shown: dict[str, object] = {"question": logged.question}
            if logged.output:
                shown["model_output"] = logged.output
            records.setdefault(logged.example.row, shown)
    return records


def _answer(run: ScoredRun, model: int, place: int, record: Mapping[str, object]) -> dict[str, object]:
    predicted = cut(run.predicted[place])
    return {
        "model": model,
        "predicted": predicted,
        "output": cut(_first(record, ANSWER_NAMES)) or predicted,
        "right": run.correct[place],
        "confidence": run.confidence and round(run.confidence[place], 4),
    }


def _question(record: Mapping[str, object]) -> str:
    """The question as it is in the record."""
    texts = (_first(record, QUESTION_NAMES), optional_text(record, "input"))
    return cut("\n".join(text for text in texts if text))


def _first(record: Mapping[str, object], names: Sequence[str]) -> str:
    return next((text for name in names if (text := optional_text(record, name)) is not None), "")


def cut(text: str) -> str:
    """Return a text of bearable length, which says how much of it is left out."""
    more = len(text) - LONGEST
    return text if more <= 0 else text[:LONGEST] + tr("… ({count:,} more characters)", count=more)
