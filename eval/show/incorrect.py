"""The examples that at least one model got wrong, with prompt and answers, for a reader of the report."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tuneyard.core.documents import json_lines
from tuneyard.core.language.translation import tr
from tuneyard.eval.read.logs import reader_of
from tuneyard.eval.read.results import PREDICTIONS
from tuneyard.eval.read.scored_run import (
    KINDS,
    RunsByDataset,
    RunsByModel,
    ScoredRun,
    first_text,
    models_of,
    optional_text,
)

LONGEST = 2000  # characters of a question or an answer that are shown
MOST_LETTERS = 12_000_000  # of all rows on a page, which a browser still opens at once
ROW_NAMES = ("row", "doc_id", "id")
QUESTION_NAMES = ("instruction", "prompt", "question", "user")
ANSWER_NAMES = ("model_output", "output", "prediction")


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

    This reads the logs a second time, for the texts of these rows alone. Which rows they are depends on all
    models, so the first reading would have to keep every row's texts: 190 bytes a row and their letters. To
    read 45,000 rows again takes 0.2 s.
    """
    models = models_of(runs)
    wrong = {dataset: _wrong_places(by_model) for dataset, by_model in runs.items()}
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
        kept_rows = [rows[place] for place in spread(range(len(rows)), int(kept * len(rows)))]
        collected.append(IncorrectExamples(dataset, len(wrong[dataset]), kept_rows))
    return collected


def _wrong_places(runs: RunsByModel) -> list[int]:
    """Places of the rows that at least one of the runs got wrong."""
    flags_by_row = zip(*(run.correct for run in runs.values()), strict=True)
    return [place for place, flags in enumerate(flags_by_row) if not all(flags)]


def fair_shares(counts: Mapping[str, int], most: int) -> dict[str, int]:
    """Divide `most` evenly; the part that a small count does not need goes to the others."""
    shares = {}
    for place, (name, count) in enumerate(sorted(counts.items(), key=lambda item: item[1])):
        shares[name] = min(count, most // (len(counts) - place))
        most -= shares[name]
    return shares


def spread(places: Sequence[int], count: int) -> list[int]:
    """Pick `count` of the places, evenly spread."""
    return [places[i * len(places) // count] for i in range(count)]


def _rows(runs: Sequence[ScoredRun], models: Sequence[str], places: Sequence[int]) -> list[dict[str, Any]]:
    first = runs[0]
    row_names = {first.rows[place] for place in places}
    records_by_run = [_records(run, row_names) for run in runs]
    rows = []
    for place in places:
        name = first.rows[place]
        row: dict[str, Any] = {
            "row": name,
            "question": _question(records_by_run[0][name]),
            "expected": cut(first.gold[place]),
        }
        for kind in KINDS:
            if kind in first.kinds:
                row[kind] = cut(first.kinds[kind][place])
        row["answers"] = [
            _answer(run, models.index(run.model), place, records[run.rows[place]])
            for run, records in zip(runs, records_by_run, strict=True)
        ]
        rows.append(row)
    return rows


def _records(run: ScoredRun, row_names: set[str]) -> dict[str, dict[str, object]]:
    """The logged records of some rows. If a log has a row several times (several filters), the first."""
    source = Path(run.source)
    records: dict[str, dict[str, object]] = {}
    if source.is_dir():
        for _, record in json_lines(source / PREDICTIONS):
            name = first_text(record, ROW_NAMES)
            if name in row_names:
                records.setdefault(name, record)
        return records
    for logged in reader_of(source).records(source):
        name = first_text(logged, ("id",))
        if name in row_names:
            records.setdefault(name, dict(logged))
    return records


def _answer(run: ScoredRun, model: int, place: int, record: Mapping[str, object]) -> dict[str, object]:
    predicted = cut(run.predicted[place])
    return {
        "model": model,
        "predicted": predicted,
        "output": cut(first_text(record, ANSWER_NAMES)) or predicted,
        "right": run.correct[place],
        "confidence": run.confidence and round(run.confidence[place], 4),
    }


def _question(record: Mapping[str, object]) -> str:
    """The prompt in a record, and its separate input if there is one."""
    texts = (first_text(record, QUESTION_NAMES), optional_text(record, "input"))
    return cut("\n".join(text for text in texts if text))


def cut(text: str) -> str:
    """Cut a text after `LONGEST` characters; the count of the rest follows."""
    more = len(text) - LONGEST
    if more <= 0:
        return text
    return text[:LONGEST] + tr("… ({count:,} more characters)", count=more)
