"""Compares the rows that LLaMA-Factory loads with the records of the file."""

import sys
from collections.abc import Iterable, Sized
from itertools import islice, zip_longest
from typing import Any

from tuneyard.compiler.spec.column_types import column_types
from tuneyard.compiler.verify.audit import Row
from tuneyard.compiler.verify.expect import Records
from tuneyard.compiler.verify.verdict import Verdict
from tuneyard.core.errors import Problem, show_value
from tuneyard.core.errors.problem_codes import ProblemCode
from tuneyard.core.language.message import _
from tuneyard.core.llamafactory.stages import TRAINING_STAGES
from tuneyard.core.plugins import guarded
from tuneyard.core.records import Example

DROPPED_RECORD = ProblemCode(
    "E406", _("a record that is dropped"), _("Check its answer, and that turns alternate.")
)
CHANGED_ROW = ProblemCode(
    "E407", _("a row that differs from its record"), _("Compile again, or report it with the file.")
)
UNUSABLE_FILE = ProblemCode(
    "E408",
    _("a missing or refused image, video or audio"),
    _("Write it as a path; check `media_dir` and placeholders."),
)


ANSWERS_PER_ROW = {
    name: stage.answers for name, stage in TRAINING_STAGES.items() if stage.answers is not None
}
"""Answers of a loaded row, by stage."""
LEFT_OUT = _("the loader leaves this record out")


class RecordComparison:
    """Compares rows with the records of the file, which come in the same order."""

    def __init__(self, loaded: Any, records: Records, verdict: Verdict) -> None:
        self.locations: list[str] = []  # of the records
        self._records, self._verdict = records, verdict
        self._types = [column_type for column_type in column_types().values() if column_type.loaded_column]
        columns_of_types = [column_type.loaded_column for column_type in self._types]
        self._columns = loaded.select_columns(["_prompt", "_response", "_system", *columns_of_types])

    def add(self, start: int, size: int) -> int:
        """Compare the batch of rows that begins here; the number of its rows."""
        rows = self._columns[start : start + size]
        batch = list(islice(self._records, len(rows["_prompt"])))
        for number, (location, _unused, example) in enumerate(batch):
            self.locations.append(location)
            row = {name: values[number] for name, values in rows.items()}
            problem = self._problem_of(location, example, row)
            if problem:
                self._verdict.add(problem, row=start + number)
            self._verdict.dropped += is_dropped(row, self._verdict.stage)
        self._verdict.records += len(batch)
        return len(rows["_prompt"])

    def end(self) -> None:
        """Report records without a row, and rows without a record."""
        verdict = self._verdict
        for location, *_unused in self._records:
            verdict.add(Problem(DROPPED_RECORD, location, LEFT_OUT), row=verdict.records)
            verdict.records += 1
        if verdict.loaded > verdict.records:
            message = _(
                "{loaded} rows from {records} records: rows were made up",
                loaded=verdict.loaded,
                records=verdict.records,
            )
            verdict.add(Problem(CHANGED_ROW, verdict.dataset, message))

    def _problem_of(self, location: str, example: Example | str, row: Row) -> Problem | None:
        """The first difference of a record and its row: messages, system text, what the column types add."""
        verdict = self._verdict
        if isinstance(example, str):
            return Problem(DROPPED_RECORD, location, example)
        if is_dropped(row, verdict.stage):
            return Problem(DROPPED_RECORD, location, verdict.no_answer)
        pairs: list[tuple[object, object]] = []  # of the file, of the loader
        trained = [(message.role, message.text) for message in example.trained_messages]
        loaded = [(message["role"], message["content"]) for message in row["_prompt"] + row["_response"]]
        pairs += zip_longest(trained, loaded)
        pairs.append((example.system, row["_system"] or ""))
        for column_type in self._types:
            with guarded(column_type.plugin):
                pairs += column_type.loaded_pairs(example, row)
        for of_file, of_loader in pairs:
            if of_file != of_loader:
                message = _(
                    "the file has {in_file}, LLaMA-Factory reads {loaded}",
                    in_file=show_value(of_file),
                    loaded=show_value(of_loader),
                )
                return Problem(CHANGED_ROW, location, message)
        verdict.same += 1
        for column_type in self._types:
            with guarded(column_type.plugin):
                unusable = column_type.unusable(row)
                fault = "" if unusable else column_type.miscounted(row) or column_type.not_found(row)
            if unusable:
                fix = _("save it as a file, and write its path")
                return Problem(
                    UNUSABLE_FILE,
                    location,
                    _("{reason}: LLaMA-Factory stops at it", reason=unusable),
                    column_type.name,
                    fix,
                )
            if fault:
                return Problem(UNUSABLE_FILE, location, fault)
        return None


def row_bar(label: str, rows: Sized, iterated: Iterable[object] | None = None) -> Any:
    """A bar on stderr that counts rows, once two seconds have passed. It yields the `iterated` ones."""
    from tqdm import tqdm

    return tqdm(iterated, total=len(rows), desc=label, unit="row", unit_scale=True, delay=2, file=sys.stderr)


def is_dropped(row: Row, stage: str) -> bool:
    """True if LLaMA-Factory's processor skips a loaded row: it is not a question with its answers."""
    answers = ANSWERS_PER_ROW.get(stage)
    return bool(answers) and (len(row["_prompt"]) % 2 != 1 or len(row["_response"]) != answers)
