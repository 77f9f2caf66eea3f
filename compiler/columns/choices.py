"""Choices of a question, and the correct one of them by its number, its letter or its text.

MMLU has `choices: [..]` with `answer: 2`, counted from 0. ARC has `choices: {text: [..], label: [..]}` with
`answerKey: C`. `{choices}` puts one line for each choice into the prompt, and the letter is learned.

Other files have a column for each choice (COPA, PIQA, WinoGrande, SciQ). There the column of the answer names
them: `answer: {names: [label], is: choice, of: [a, b]}`.
"""

from collections.abc import Mapping
from string import ascii_uppercase
from typing import Any, NamedTuple

from tuneyard.compiler.rows import Fields, are_objects
from tuneyard.compiler.spec.column_types import Column, ColumnReader, ColumnType, Row
from tuneyard.compiler.spec.model import Spec
from tuneyard.core.errors import show_value
from tuneyard.core.language.message import _
from tuneyard.core.records.calls import WrongValueError, unusable


class Choices(NamedTuple):
    """The choices of one question: a label and a text for each."""

    labels: list[str]
    texts: list[str]

    def lines(self) -> str:
        """One line for each choice: `A. Paris`."""
        pairs = zip(self.labels, self.texts, strict=True)
        return "\n".join(f"{label}. {text}" for label, text in pairs)


class CorrectChoiceReader(ColumnReader):
    """Finds the label of the correct choice, for the columns in `answers`."""

    answers: list[Column]

    def label(self, choices: Choices, column: Column, row: Row) -> str:
        """The label of the correct choice, which the answer in `column` names."""
        answer = row[column.name]
        text = str(answer).strip()
        for label in (text, text.upper()):
            if label in choices.labels:
                return label
        matches = [number for number, choice in enumerate(choices.texts) if choice.strip() == text]
        if not text.removeprefix("-").isdecimal():
            if len(matches) > 1:
                raise WrongValueError(
                    _(
                        "{number} choices are {answer}, which is the answer",
                        number=len(matches),
                        answer=show_value(answer),
                    )
                )
            if matches:
                return choices.labels[matches[0]]
            labels = ", ".join(choices.labels)
            raise WrongValueError(
                _(
                    "found the answer {answer}, expected {labels}, a number, or the text of a choice",
                    answer=show_value(answer),
                    labels=labels,
                )
            )
        first: int = column.options.get("first", 0)
        position = int(text) - first
        is_inside = 0 <= position < len(choices.texts)
        if isinstance(answer, str) and len(matches) == 1:
            if is_inside and position != matches[0]:
                raise WrongValueError(
                    _(
                        "the answer {answer} is the number of one choice and the text of another; "
                        "write the letter",
                        answer=show_value(answer),
                    )
                )
            return choices.labels[matches[0]]
        self.noted[int(text)] += 1
        if not is_inside:
            last = first + len(choices.texts) - 1
            message = _(
                "found the answer {answer}, expected a number from {first} to {last}",
                answer=answer,
                first=first,
                last=last,
            )
            if first == 0 and position == len(choices.texts):
                message = _("{message} (`first: 1` at the column counts from 1)", message=message)
            raise WrongValueError(message)
        return choices.labels[position]

    def notes(self) -> list[str]:
        """From which number on the choices are counted, if answers are numbers."""
        if not self.noted:
            return []
        return [
            _(
                "{name}: numbers from {lowest} to {highest}, of which {first} is the first choice "
                "(`first: 0` or `first: 1` at the column)",
                name=column.name,
                lowest=min(self.noted),
                highest=max(self.noted),
                first=column.options.get("first", 0),
            )
            for column in self.answers
        ]


class ChoicesReader(CorrectChoiceReader):
    """Reads the choices of a question, and replaces the answer of the row by its letter."""

    checks_rows = True

    def prepare(self) -> None:
        """Find the columns of the answers."""
        self.answers = [column for column in self.spec.columns if column.type is CHOICE]

    def read(self, value: object) -> Choices:
        """The choices with their labels; `WrongValueError` if a text is missing or two choices are alike."""
        labels, texts = _labels_and_texts(value)
        if len(texts) < 2:
            raise unusable(value, _("two or more choices"))
        for text in texts:
            if not isinstance(text, str) or not text.strip():
                raise WrongValueError(
                    _("found the choice {text}, expected a text that is not blank", text=show_value(text))
                )
        if not labels:
            labels = list(ascii_uppercase[: len(texts)])
        if len(labels) != len(texts) or len(set(labels)) != len(labels):
            raise WrongValueError(
                _(
                    "found {choices} choices and the labels {labels}, expected one label for each",
                    choices=len(texts),
                    labels=show_value(labels),
                )
            )
        return Choices(labels, list(map(self.file.clean, texts)))

    def check_row(self, row: Row) -> Fields:
        """The choices as lines, and the letter of the answer. `WrongValueError` if no choice is meant."""
        choices: Choices = row[self.column.name]
        changed: Fields = {self.column.name: choices.lines()}
        for column in self.answers:
            changed[column.name] = self.label(choices, column, row)
        return changed


class ChoiceReader(CorrectChoiceReader):
    """Replaces the answer by its letter, if each choice has a column (`of`)."""

    def prepare(self) -> None:
        """Read the choices of the row if each has a column."""
        self.checks_rows = "of" in self.column.options
        self.answers = [self.column]

    def check_row(self, row: Row) -> Fields:
        """The letter of the answer, and the choices in alphabetical order if the column has `sort`."""
        names: list[str] = self.column.options["of"]
        texts = [str(row[name]) for name in names]
        if "sort" in self.column.options:
            texts.sort()
        choices = Choices(list(ascii_uppercase[: len(texts)]), texts)
        letter = self.label(choices, self.column, row)
        return {**dict(zip(names, texts, strict=True)), self.column.name: letter}


def _labels_and_texts(value: Any) -> tuple[list[str], list[Any]]:
    """The labels, [] if the value names none, and the texts of choices in any of their published forms."""
    if isinstance(value, Mapping):
        if isinstance(value.get("text"), list):
            labels = value.get("label", value.get("labels"))
            return [str(label) for label in labels or ()], list(value["text"])
        return list(value), list(value.values())
    if are_objects(value) and all("text" in item for item in value):
        labels = [str(item["label"]) for item in value if "label" in item]
        return labels, [item["text"] for item in value]
    return [], list(value)


class ChoiceType(ColumnType):
    """The correct choice. `ChoicesReader` replaces it, unless each choice has a column (`of`)."""

    def check(self, column: Column, spec: Spec) -> None:
        """Refuse an answer without exactly one column of choices, or a text for each of several choices."""
        names = column.options.get("of", ())
        for name in names:
            if name not in spec.types:
                listed = ", ".join(spec.types)
                raise ValueError(
                    _(
                        "column {column}: `of` names {name!r}, which is no column (columns: {columns})",
                        column=column.name,
                        name=name,
                        columns=listed,
                    )
                )
        if not names and len(spec.named("choices")) != 1:
            raise ValueError(
                _(
                    "column {name}: the answer needs one column of choices, with `is: choices`, "
                    "or the names of the columns with one choice each, as `of: [a, b]`",
                    name=column.name,
                )
            )


CHOICES = ColumnType(
    "choices",
    {"description": _("a list of choices, or their texts by label"), "type": ["array", "object"]},
    is_text=True,
    takes_objects=True,
    shapes=("listed choices",),
    reader=ChoicesReader,
)
CHOICE = ChoiceType(
    "choice",
    {"description": _("the number, the letter or the text of a choice"), "type": ["integer", "string"]},
    options={
        "first": {"description": "the number of the first choice, if answers are numbers", "enum": [0, 1]},
        "of": {
            "description": "the columns of the choices, if each has one. The letter of the answer goes by "
            "their order",
            "type": "array",
            "minItems": 2,
            "maxItems": 26,
            "items": {"type": "string"},
        },
        "sort": {
            "description": "put the texts of `of` into alphabetical order, if the correct one has the same "
            "column in every row",
            "const": True,
        },
    },
    is_text=True,
    shapes=("choices in columns",),
    reader=ChoiceReader,
)
