"""Choices of a question, and the correct one of them by its number, its letter or its text.

MMLU has `choices: [..]` with `answer: 2`, counted from 0. ARC has `choices: {text: [..], label: [..]}` with
`answerKey: C`. `{choices}` puts one line for each choice into the prompt, and the letter is learned.
"""

from collections.abc import Mapping, Sequence
from string import ascii_uppercase
from typing import Any, NamedTuple

from tuneyard.compiler.init.look import FileProfile
from tuneyard.compiler.init.proposal import (
    Proposal,
    ProposedColumn,
    alpaca_output,
    longest_prose,
    question_leaf,
    question_proposal,
)
from tuneyard.compiler.kinds import ColumnReader, FileContext, Kind, RecordLayout, Shape
from tuneyard.compiler.spec.column_meanings import USUAL_NAMES
from tuneyard.compiler.spec.model import Column
from tuneyard.core.calls import WrongValueError
from tuneyard.core.errors import show_value


class Choices(NamedTuple):
    """The choices of one question: a label and a text for each. `has_labels` if the file names the labels."""

    labels: list[str]
    texts: list[str]
    has_labels: bool

    def lines(self) -> str:
        """One line for each choice: `A. Paris`."""
        pairs = zip(self.labels, self.texts, strict=True)
        return "\n".join(f"{label}. {text}" for label, text in pairs)


class ChoicesReader(ColumnReader):
    """Reads the choices of a question, and replaces the answer of the row by its letter."""

    reads_each = True

    def __init__(self, column: Column, file: FileContext) -> None:
        super().__init__(column, file)
        self.checks_rows = True
        self.answers = [column for column in file.spec.columns if column.kind == "choice"]
        self.numbers: set[int] = set()

    def read(self, value: object) -> Choices:
        """The choices with their labels; `WrongValueError` if a text is missing or two choices are alike."""
        labels, texts = _labels_and_texts(value)
        if len(texts) < 2:
            raise WrongValueError(f"found {show_value(value)}, expected two or more choices")
        for text in texts:
            if not isinstance(text, str) or not text.strip():
                raise WrongValueError(
                    f"found the choice {show_value(text)}, expected a text that is not blank"
                )
        has_labels = bool(labels)
        if not has_labels:
            labels = list(ascii_uppercase[: len(texts)])
        if len(labels) != len(texts) or len(set(labels)) != len(labels):
            raise WrongValueError(
                f"found {len(texts)} choices and the labels {show_value(labels)}, expected one label for each"
            )
        cleaned_texts = [str(self.file.clean([text])[0]) for text in texts]
        return Choices(labels, cleaned_texts, has_labels)

    def check_row(self, row: dict[str, Any], place: str) -> dict[str, object]:
        """The choices as lines, and the letter of the answer. `WrongValueError` if no choice is meant."""
        del place
        choices: Choices = row[self.column.name]
        changed: dict[str, object] = {self.column.name: choices.lines()}
        for column in self.answers:
            changed[column.name] = self._label(choices, row[column.name], column.options.get("first", 0))
        return changed

    def _label(self, choices: Choices, answer: object, first: int) -> str:
        """The label of the correct choice. If answers are numbers, `first` is that of the first choice."""
        text = str(answer).strip()
        is_number = text.removeprefix("-").isdigit()
        if text in choices.labels and (choices.has_labels or not is_number):
            return text
        matches = [number for number, choice in enumerate(choices.texts) if choice.strip() == text]
        if not is_number:
            if len(matches) == 1:
                return choices.labels[matches[0]]
            labels = ", ".join(choices.labels)
            raise WrongValueError(
                f"found the answer {show_value(answer)}, expected {labels}, a number, or the text of a choice"
            )
        position = int(text) - first
        is_inside = 0 <= position < len(choices.texts)
        if isinstance(answer, str) and len(matches) == 1:
            if is_inside and position != matches[0]:
                raise WrongValueError(
                    f"the answer {show_value(answer)} is the number of one choice and the text of another; "
                    "write the letter"
                )
            return choices.labels[matches[0]]
        self.numbers.add(int(text))
        if not is_inside:
            last = first + len(choices.texts) - 1
            hint = ""
            if first == 0 and position == len(choices.texts):
                hint = " (`first: 1` at the column counts from 1)"
            raise WrongValueError(
                f"found the answer {answer}, expected a number from {first} to {last}{hint}"
            )
        return choices.labels[position]

    def notes(self) -> list[str]:
        """From which number on the choices are counted, if answers are numbers."""
        if not self.numbers:
            return []
        numbers = f"numbers from {min(self.numbers)} to {max(self.numbers)}"
        return [
            f"{column.name}: {numbers}, of which {column.options.get('first', 0)} is the first choice "
            "(`first: 0` or `first: 1` at the column)"
            for column in self.answers
        ]


def _labels_and_texts(value: Any) -> tuple[list[str], list[Any]]:
    """The labels, [] if the value names none, and the texts of choices in any of their published forms."""
    if isinstance(value, Mapping):
        if isinstance(value.get("text"), list):
            labels = value.get("label", value.get("labels"))
            return [str(label) for label in labels or ()], list(value["text"])
        return list(value), list(value.values())
    if (
        isinstance(value, list)
        and value
        and all(isinstance(item, Mapping) and "text" in item for item in value)
    ):
        labels = [str(item["label"]) for item in value if "label" in item]
        return labels, [item["text"] for item in value]
    return [], list(value)


def lettered_choices(profile: FileProfile) -> Proposal | None:
    """A question, its choices in columns of one letter each, and the correct letter."""
    question = profile.named(USUAL_NAMES["question"])
    answer = profile.named(USUAL_NAMES["chosen letter"])
    letters = [leaf for leaf in map(profile.named, "abcdef") if leaf is not None]
    if question is None or answer is None or len(letters) < 3:
        return None
    columns: dict[str, ProposedColumn] = {"question": [question.path]}
    choices = []
    for leaf in letters:
        columns[leaf.name] = [leaf.path]
        choices.append(f"{leaf.name.upper()}. {{{leaf.name}}}")
    columns["answer"] = {"names": [answer.path], "is": "answer"}
    write = alpaca_output("\n".join(["{question}", *choices]), "{answer}")
    return Proposal("Questions with choices", columns, write, prompts={"question": question}, answer=answer)


class ChoicesKind(Kind):
    """The choices of a question. They become lines of text in the prompt."""

    def check(self, column: str, layout: RecordLayout) -> None:
        """Refuse choices without an answer that names one of them."""
        if list(layout.kinds.values()).count("choice") == 0:
            raise ValueError(f"column {column}: choices go with an answer, a column with `is: choice`")

    def shapes(self) -> Sequence[Shape]:
        """A question with its choices in a list, or in columns of one letter each."""
        return (Shape(self.propose, 40), Shape(lettered_choices, 60))

    def propose(self, profile: FileProfile) -> Proposal | None:
        """A question or the beginning of a text, a list of choices, and the correct one of them."""
        choices = profile.named(USUAL_NAMES["choices"], "texts")
        answer = None
        for name in (*USUAL_NAMES["chosen letter"], "label"):
            for value_type in ("text", "number"):
                answer = answer or profile.named([name], value_type)
        question = question_leaf(profile)
        guesses = []
        if question is None:
            question = longest_prose(profile)
            if question is not None:
                guesses.append(f"{question.path} is used as the question: it is the longest text")
        if choices is None or answer is None or question is None:
            return None
        columns: dict[str, ProposedColumn] = {
            "question": [question.path],
            "choices": {"names": [choices.path], "is": self.name},
            "answer": {"names": [answer.path], "is": CHOICE.name},
        }
        proposal = question_proposal(profile, "Questions with choices", question, columns, answer)
        proposal.write["instruction"] = "{question}\n{choices}"
        proposal.guesses += guesses
        return proposal


class ChoiceKind(Kind):
    """Which of the choices is correct. `ChoicesReader` replaces it, since it knows the choices of the row."""

    def check(self, column: str, layout: RecordLayout) -> None:
        """Refuse an answer without exactly one column of choices."""
        if list(layout.kinds.values()).count("choices") != 1:
            raise ValueError(f"column {column}: the answer needs one column of choices, with `is: choices`")


CHOICES = ChoicesKind(
    "choices",
    {"description": "a list of choices, or their texts by label", "type": ["array", "object"]},
    is_text=True,
    takes_objects=True,
    reader=ChoicesReader,
)
CHOICE = ChoiceKind(
    "choice",
    {"description": "the number, the letter or the text of a choice", "type": ["integer", "string"]},
    options={
        "first": {"description": "the number of the first choice, if answers are numbers", "enum": [0, 1]},
    },
    is_text=True,
)
