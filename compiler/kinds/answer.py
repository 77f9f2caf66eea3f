"""Answers as texts, and the files that `data init` recognises by one: questions, and texts with a summary."""

from collections.abc import Sequence

from tuneyard.compiler.init.labels import VALUE_TYPES, label_leaf
from tuneyard.compiler.init.profile import MOST_VALUES, PROSE, FileProfile, Leaf
from tuneyard.compiler.init.proposal import (
    Proposal,
    ProposedColumn,
    alpaca_output,
    question_leaf,
    question_proposal,
)
from tuneyard.compiler.kinds import ColumnReader, Kind, Shape, Values
from tuneyard.compiler.kinds.label import yes_or_no_question
from tuneyard.compiler.spec.column_meanings import USUAL_NAMES
from tuneyard.core.errors import counted

SUMMARIZE = {False: "Summarize this text.\n\n{text}", True: "请概括下面的文字。\n\n{text}"}


OTHERS = "rows with other answers"


class AnswerReader(ColumnReader):
    """Reads an answer. Of a list of accepted answers the first one is learned."""

    def unfold(self, values: Values) -> Values:
        """Take the first of the texts in a list."""
        if list not in set(map(type, values)):
            return values
        return [self._first(value) for value in values]

    def _first(self, value: object) -> object:
        if not isinstance(value, list) or not value or not all(isinstance(text, str) for text in value):
            return value
        if len(set(value)) > 1:
            self.tally[OTHERS] += 1
        return value[0]

    def notes(self) -> list[str]:
        """How many rows have answers that are not learned."""
        if not self.tally[OTHERS]:
            return []
        rows = counted(self.tally[OTHERS], "row")
        return [f"{self.column.name}: {rows} with several different answers, of which the first is learned"]


def answered_question(profile: FileProfile) -> Proposal | None:
    """A question and its answer: text, a list of accepted texts, a number, or true and false."""
    answer = profile.user_leaf("answer") or _answer_leaf(profile)
    if answer is None:
        return None
    question = question_leaf(profile)
    guesses = []
    is_program = answer.name in USUAL_NAMES["program"] and not profile.user_columns
    if question is None and (profile.user_columns or is_program):
        question = profile.named(USUAL_NAMES["text"])
    if question is not None and is_program:
        guesses.append(f"{answer.path} is used as the answer to {question.path}: no column is named as one")
    if question is None:
        question = profile.named(USUAL_NAMES["context"])
        if question is not None:
            guesses.append(f"{question.path} is used as the question: no column is named as one")
    if question is None or question is answer:
        return None
    if answer.kind == "truth value":
        return yes_or_no_question(profile, question, answer)
    kind = "answer" if answer.kind in ("text", "texts") else "any"
    columns: dict[str, ProposedColumn] = {
        "question": [question.path],
        "answer": {"names": [answer.path], "is": kind},
    }
    proposal = question_proposal(profile, "Questions and answers", question, columns, answer)
    proposal.guesses += guesses
    if kind == "any" and len(answer.values) <= MOST_VALUES < profile.rows:
        proposal.guesses.append(f"{answer.path} has few values, all numbers: they may stand for labels")
    return proposal


def _answer_leaf(profile: FileProfile) -> Leaf | None:
    """The answer by its name: text if there is one, then truth values or numbers, then lists of texts.

    Without any, a program is the answer. Short texts under `code` are codes of something, as of a diagnosis.
    """
    for value_type in (*VALUE_TYPES, "texts"):
        answer = profile.named(USUAL_NAMES["answer"], value_type)
        if answer is not None and not (answer.goes_by("target") and answer is label_leaf(profile)):
            return answer
    program = profile.named(USUAL_NAMES["program"])
    if program is None or program.characters < PROSE * program.filled or label_leaf(profile) is not None:
        return None
    return program


def summarized_text(profile: FileProfile) -> Proposal | None:
    """A text and its summary."""
    text = profile.named(USUAL_NAMES["summarized"])
    summary = profile.named(USUAL_NAMES["summary"])
    if text is None or summary is None or profile.user_columns:
        return None
    columns: dict[str, ProposedColumn] = {
        "text": [text.path],
        "answer": {"names": [summary.path], "is": "answer"},
    }
    write = alpaca_output(SUMMARIZE[text.in_chinese], "{answer}")
    proposal = Proposal("Texts with a summary", columns, write, prompts={"text": text}, answer=summary)
    proposal.answer_sources = ("text",)
    return proposal


class AnswerKind(Kind):
    """An answer to a question, or the summary of a text."""

    def shapes(self) -> Sequence[Shape]:
        """A question with its answer, and a text with its summary."""
        of_user = ({"answer"}, {"text", "answer"}, {"text", "text2", "answer"})
        return (Shape(answered_question, 80, of_user), Shape(summarized_text, 120))


ANSWER = AnswerKind(
    "answer",
    {"description": "text", "type": "string"},
    is_text=True,
    is_cleaned=True,
    may_be_blank=True,
    has_answer=True,
    leaf_types=("text", "texts"),
    reader=AnswerReader,
)
