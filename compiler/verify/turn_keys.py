"""Keys inside turns that LLaMA-Factory 0.9.5 does not read (data/converter.py).

Its converters take the role and the text of a turn, those of `formatting: openai` its `tool_calls` as well.
`data compile` counts the other keys or refuses them, so `data verify` does the same for a file that was
registered by hand.
"""

import shlex
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from tuneyard.compiler.check.marks import adds_content, masks
from tuneyard.compiler.check.unused_columns import MOST, Unused
from tuneyard.compiler.spec.column_meanings import MEDIA, REASONING, meaning
from tuneyard.core.datasets import filled
from tuneyard.core.errors import Problem, show_value
from tuneyard.core.files import Fields
from tuneyard.core.records import ANSWERS, MARK, OPENAI, PAIR, PLACEHOLDERS, Record, RecordFormat

CALLS = "tool_calls"
REFUSAL = "refusal"


@dataclass
class _Finding:
    """A key that changes answers: the first record and turn with it, and in how many records it does.

    `row` and `last_row` are numbers of records from 0.
    """

    place: str
    turn: str
    value: object
    is_mark: bool
    row: int
    last_row: int
    records: int = 1


class UnreadTurnKeys:
    """Counts the keys of the turns in a dataset's records that LLaMA-Factory does not read.

    A mark (`weight: 0`) counts only at an answer that is learned. With the recipe's `mask_history: true` that
    is the last one of a conversation.
    """

    def __init__(self, path: Path, record_format: RecordFormat, *, mask_history: bool) -> None:
        self.path = path
        self.format = record_format
        self.mask_history = mask_history
        self.has_calls = False
        tags = record_format.tags
        self._read = {tags.get("role_tag", ""), tags.get("content_tag", "")}
        self._answer_roles = {tags[f"{role}_tag"] for role in ANSWERS if f"{role}_tag" in tags}
        self._unused = Unused()
        self._findings: dict[str, _Finding] = {}

    def note(self, record: Record, place: str, row: int) -> None:
        """Count the keys in one record, whose number from 0 is `row`."""
        if self.format.formatting == "alpaca":
            return
        neutral: set[str] = set()
        for column, number, turn, is_learned in self._turns(record):
            turn_place = f"turn {number}" if number else "the answer"
            for key in self._unread_keys(turn):
                name = f"{column}.{key}"
                value = turn[key]
                is_mark = masks(key, value)
                if self._changes_answer(key, value, is_mark=is_mark, is_learned=is_learned):
                    self._find(name, _Finding(place, turn_place, value, is_mark, row, row))
                else:
                    neutral.add(name)
        for name in sorted(neutral):
            self._unused.add(name, 1, ignored=False)

    def _find(self, name: str, finding: _Finding) -> None:
        """Count a record with a key that changes an answer, once. At most `MOST` keys are counted."""
        first = self._findings.get(name)
        if first is None:
            if len(self._findings) < MOST:
                self._findings[name] = finding
        elif first.last_row != finding.row:
            first.last_row = finding.row
            first.records += 1

    def _changes_answer(self, key: str, value: object, *, is_mark: bool, is_learned: bool) -> bool:
        if is_mark:
            return is_learned
        return key in self._read or key == REFUSAL or adds_content(key, value)

    def lines(self, records: int) -> list[str]:
        """The line `not used: messages.id (300 of 300)`, as `data compile` prints it."""
        return self._unused.lines(records)

    def counts(self) -> Counter[str]:
        """The number of records that fill each key which changes no answer."""
        return self._unused.rows

    def problems(self, records: int) -> Iterator[tuple[Problem, int]]:
        """E410 for each key that changes an answer, at the first of its records."""
        for name, finding in self._findings.items():
            key = name.rpartition(".")[2]
            content, effect = meaning(key), "LLaMA-Factory leaves it out"
            if finding.is_mark:
                content = "a mark that the answer is incorrect or not to be learned"
                effect = "LLaMA-Factory learns the whole answer"
            elif key in self._read:
                content = "a text next to tool_calls"
            elif key == REFUSAL:
                content = "a refusal"
            message = (
                f"{finding.turn} has {show_value(finding.value)}: {content}, in {finding.records} of "
                f"{records:,} records; {effect}"
            )
            yield Problem("E410", finding.place, message, name, self._fix(key, finding)), finding.row

    def _fix(self, key: str, finding: _Finding) -> str:
        """The edit of the file, or the command that reads such turns."""
        init = f"`tuneyard data init {shlex.quote(str(self.path))}`"
        if finding.is_mark:
            return f"take these answers out of the file, or compile it: {init}"
        kind = meaning(key)
        if kind in MEDIA:
            return (
                f'name the files in a column of the record, add "{kind}": "<column>" to the entry\'s '
                f"`columns`, and write one {PLACEHOLDERS[kind]} for each into the text"
            )
        if kind == REASONING:
            return f"write it into the text as <think>…</think>, or compile the file: {init}"
        return f"compile the file, which writes it as a turn or refuses it: {init}"

    def _turns(self, record: Record) -> Iterator[tuple[str, int, Fields, bool]]:
        """Yield column, number (0 for a single turn), turn, and whether its answer is learned."""
        columns = self.format.columns
        column = columns.get("messages", "")
        messages = record.get(column)
        turns = messages if isinstance(messages, list) else []
        learned = self._learned(record, turns)
        for number, turn in enumerate(turns, 1):
            if isinstance(turn, dict):
                if self._reads_calls(turn):
                    self.has_calls = True
                yield column, number, turn, number in learned
        if not self.format.ranking:
            return
        for part in PAIR:
            turn = record.get(columns.get(part, ""))
            if isinstance(turn, dict):
                yield columns[part], 0, turn, True

    def _learned(self, record: Record, turns: list[object]) -> list[int]:
        """Numbers of the turns that are learned as answers (data/processor/)."""
        if self.format.ranking:
            return []
        role_key = self.format.tags.get("role_tag", "")
        answers = []
        for number, turn in enumerate(turns, 1):
            if isinstance(turn, dict) and turn.get(role_key) in self._answer_roles:
                answers.append(number)
        is_marked = isinstance(record.get(self.format.columns.get(MARK, "")), bool)
        if self.mask_history or is_marked:
            return answers[-1:]
        return answers

    def _reads_calls(self, turn: Fields) -> bool:
        """True if LLaMA-Factory writes a turn's `tool_calls` in place of its text."""
        role = turn.get(self.format.tags.get("role_tag", ""))
        is_answer = role in self._answer_roles
        return self.format.formatting == OPENAI and is_answer and bool(turn.get(CALLS))

    def _unread_keys(self, turn: Fields) -> Iterator[str]:
        """Yield the keys with a value that LLaMA-Factory does not read."""
        read = self._read
        if self._reads_calls(turn):
            read = {self.format.tags.get("role_tag", ""), CALLS}
        for key, value in turn.items():
            is_blank_text = isinstance(value, str) and not value.strip()
            if key not in read and not is_blank_text and (filled([value]) or masks(key, value)):
                yield key
