"""Keys of records and of their messages that LLaMA-Factory 0.9.5 does not read (data/converter.py).

Its converters take the columns that an entry names, the role and the text of a message, and those of
`formatting: openai` its `tool_calls` as well. `data compile` counts the other keys or refuses them, so
`data verify` and `recipe check` do the same for a file that was registered by hand.
"""

import shlex
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from tuneyard.core.datasets import filled
from tuneyard.core.datasets.answer_flags import adds_content, changes_answer, is_measure, masks
from tuneyard.core.datasets.column_meanings import (
    CHOICES,
    KEY_OF_MEANING,
    MEDIA,
    PREFERENCES,
    REASONING,
    meaning,
    usual_name,
)
from tuneyard.core.errors import show_value
from tuneyard.core.errors.problem_codes import ProblemCode
from tuneyard.core.files import Fields
from tuneyard.core.language.message import _, relative
from tuneyard.core.records import ANSWERS, BARE, KTO_TAG, OPENAI, PAIR, PLACEHOLDERS, Record, RecordFormat

UNMAPPED_TEXT = ProblemCode(
    "W409",
    _("another text, reasoning or second answer that the entry lacks"),
    _("If the prompt needs it, map it under `columns`."),
)
UNREAD_KEY = ProblemCode(
    "E410",
    _("a key that LLaMA-Factory does not read changes the answer"),
    _("Write it into text or columns."),
    _("`weight: 0`, `loss: false`; in a turn also `tool_calls`, reasoning, `images`."),
)


CALLS = "tool_calls"
REFUSAL = "refusal"
LABEL = "label"
MOST = 2000
"""Keys that are counted: bounded, whatever keys the records have."""
NOT_LEARNED = _("a mark that the answer is incorrect or not to be learned")


class UnreadKey(NamedTuple):
    """A problem of a key, at the first of its records: E410 if it changes an answer, W409 if it may.

    `row` is the number of that record from 0.
    """

    code: str
    place: str
    row: int
    name: str
    message: str
    fix: str


@dataclass
class _Finding:
    """A key that changes answers: the first record and message with it, and in how many records it does.

    `message` is the number of the message in its list from 1, 0 for a single one, None for a column of the
    record. `row` and `last_row` are numbers of records from 0.
    """

    key: str
    place: str
    message: int | None
    value: object
    is_flag: bool
    row: int
    last_row: int
    records: int = 1


class UnreadKeys:
    """Counts the keys of a dataset's records, and of their messages, that LLaMA-Factory does not read.

    A flag (`weight: 0`) counts only at an answer that is learned. With the recipe's `mask_history: true` that
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
        self._columns = {*record_format.columns.values(), *BARE}
        self._findings: dict[str, _Finding] = {}
        self._measures: set[str] = set()
        self.neutral: Counter[str] = Counter()
        """The number of records that fill each key of a message which changes no answer."""

    def note(self, record: Record, place: str, row: int) -> None:
        """Count the keys in one record, whose number from 0 is `row`."""
        self._note_columns(record, place, row)
        if self.format.formatting == "alpaca":
            return
        neutral: set[str] = set()
        for column, number, message, is_learned in self._messages(record):
            for key in self._unread_keys(message):
                name = f"{column}.{key}"
                value = message[key]
                is_flag = masks(key, value)
                if self._changes_answer(key, value, is_flag=is_flag, is_learned=is_learned):
                    self._find(name, _Finding(key, place, number, value, is_flag, row, row))
                else:
                    neutral.add(name)
        for name in sorted(neutral):
            if name in self.neutral or len(self.neutral) < MOST:
                self.neutral[name] += 1

    def _note_columns(self, record: Record, place: str, row: int) -> None:
        """Count the columns that the entry does not name, and whose value changes the answer or may."""
        for name, value in record.items():
            if name in self._columns:
                continue
            if is_measure(name, value):
                self._measures.add(name)
            if not changes_answer(name, value):
                continue
            is_flag = masks(name, value)
            if is_flag:
                counts = self._is_flag_of_answer(name, value, record)
            else:
                counts = self._may_be_missed(name, value, record)
            if counts:
                self._find(name, _Finding(name, place, None, value, is_flag, row, row))

    def _is_flag_of_answer(self, name: str, value: object, record: Record) -> bool:
        """False for a class that is called `label`, and for a flag that the entry's `kto_tag` repeats."""
        if usual_name(name) == LABEL and not isinstance(value, bool):
            return False
        tag = record.get(self.format.columns.get(KTO_TAG, ""))
        return tag is not False

    def _may_be_missed(self, name: str, value: object, record: Record) -> bool:
        """False for a content that the entry has in another column, or that a text of the record has."""
        content = meaning(name)
        is_preference = content in PREFERENCES
        registry_key = KEY_OF_MEANING.get(content, "")
        if content == CHOICES or self.format.text_only or registry_key in self.format.columns:
            return False
        if is_preference and (self.format.ranking or KTO_TAG in self.format.columns):
            return False
        return is_preference or not (isinstance(value, str) and self._is_in_texts(value.strip(), record))

    def _is_in_texts(self, text: str, record: Record) -> bool:
        """True if a text is a part of what LLaMA-Factory reads of a record."""
        for column in self.format.columns.values():
            value = record.get(column)
            messages = value if isinstance(value, list) else [value]
            for message in messages:
                texts = message.values() if isinstance(message, dict) else [message]
                if any(isinstance(candidate, str) and text in candidate for candidate in texts):
                    return True
        return False

    def _find(self, name: str, finding: _Finding) -> None:
        """Count a record with a key that changes an answer, once. At most `MOST` keys are counted."""
        first = self._findings.get(name)
        if first is None:
            if len(self._findings) < MOST:
                self._findings[name] = finding
        elif first.last_row != finding.row:
            first.last_row = finding.row
            first.records += 1

    def _changes_answer(self, key: str, value: object, *, is_flag: bool, is_learned: bool) -> bool:
        if is_flag:
            return is_learned
        return key in self._read or key == REFUSAL or adds_content(key, value)

    def problems(self, records: int) -> Iterator[UnreadKey]:
        """The problem of each key, at the first of its records."""
        for name, finding in self._findings.items():
            if name in self._measures:
                continue
            if finding.message is not None or finding.is_flag:
                code, message = UNREAD_KEY, self._message(finding, records)
            else:
                code = UNMAPPED_TEXT
                message = _(
                    "filled in {count} of {records:,} records: {content}, and the entry does not name it: "
                    "LLaMA-Factory leaves it out",
                    count=finding.records,
                    records=records,
                    content=meaning(name),
                )
            yield UnreadKey(code, finding.place, finding.row, name, message, self._fix(finding))

    def _message(self, finding: _Finding, records: int) -> str:
        content, effect = meaning(finding.key), _("LLaMA-Factory leaves it out")
        if finding.is_flag:
            content, effect = NOT_LEARNED, _("LLaMA-Factory learns the whole answer")
        elif finding.key in self._read:
            content = _("a text next to tool_calls")
        elif finding.key == REFUSAL:
            content = _("a refusal")
        message = _("the record")
        if finding.message == 0:
            message = _("the answer")
        elif finding.message is not None:
            message = _("turn {number}", number=finding.message)
        return _(
            "{message} has {value}: {content}, in {count} of {records:,} records; {effect}",
            message=message,
            value=show_value(finding.value),
            content=content,
            count=finding.records,
            records=records,
            effect=effect,
        )

    def _fix(self, finding: _Finding) -> str:
        """The edit of the file, or the command that reads such messages."""
        init = f"`tuneyard data init {shlex.quote(relative(self.path))}`"
        if finding.is_flag:
            return _("take these answers out of the file, or compile it: {command}", command=init)
        content = meaning(finding.key)
        if content == REASONING:
            return _(
                "write it into the text as <think>…</think>, or compile the file: {command}", command=init
            )
        if finding.message is None:
            registry_key = KEY_OF_MEANING.get(content, "")
            if registry_key:
                return _(
                    'add "{registry_key}": "{key}" to the entry\'s `columns`, or take it out of the file',
                    registry_key=registry_key,
                    key=finding.key,
                )
            return _(
                "take it out of the file, or compile the file, which makes pairs of it: {command}",
                command=init,
            )
        if content in MEDIA:
            return _(
                'name the files in a column of the record, add "{part}": "<column>" to the entry\'s '
                "`columns`, and write one {placeholder} for each into the text",
                part=content,
                placeholder=PLACEHOLDERS[content],
            )
        return _("compile the file, which writes it as a turn or refuses it: {command}", command=init)

    def _messages(self, record: Record) -> Iterator[tuple[str, int, Fields, bool]]:
        """Yield column, number (0 for a single message), message, and whether its answer is learned."""
        columns = self.format.columns
        column = columns.get("messages", "")
        value = record.get(column)
        messages = value if isinstance(value, list) else []
        learned = self._learned(record, messages)
        for number, message in enumerate(messages, 1):
            if isinstance(message, dict):
                if self._reads_calls(message):
                    self.has_calls = True
                yield column, number, message, number in learned
        if not self.format.ranking:
            return
        for registry_key in PAIR:
            message = record.get(columns.get(registry_key, ""))
            if isinstance(message, dict):
                yield columns[registry_key], 0, message, True

    def _learned(self, record: Record, messages: list[object]) -> list[int]:
        """Numbers of the messages that are learned as answers (data/processor/)."""
        if self.format.ranking:
            return []
        role_key = self.format.tags.get("role_tag", "")
        answers = []
        for number, message in enumerate(messages, 1):
            if isinstance(message, dict) and message.get(role_key) in self._answer_roles:
                answers.append(number)
        is_marked = isinstance(record.get(self.format.columns.get(KTO_TAG, "")), bool)
        if self.mask_history or is_marked:
            return answers[-1:]
        return answers

    def _reads_calls(self, message: Fields) -> bool:
        """True if LLaMA-Factory writes a message's `tool_calls` in place of its text."""
        role = message.get(self.format.tags.get("role_tag", ""))
        is_answer = role in self._answer_roles
        return self.format.formatting == OPENAI and is_answer and bool(message.get(CALLS))

    def _unread_keys(self, message: Fields) -> Iterator[str]:
        """Yield the keys with a value that LLaMA-Factory does not read."""
        read = self._read
        if self._reads_calls(message):
            read = {self.format.tags.get("role_tag", ""), CALLS}
        for key, value in message.items():
            is_blank_text = isinstance(value, str) and not value.strip()
            if key not in read and not is_blank_text and (filled([value]) or masks(key, value)):
                yield key
