"""Coherence of conversations by two heuristics: carry-over and repetition compare words, not meaning."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from tuneyard.core.language.han import HAN
from tuneyard.core.llamafactory.prompt import Messages
from tuneyard.core.training.metrics import SHARE
from tuneyard.eval.figures import Values, metric_over_rows
from tuneyard.eval.figures.text import ngrams, words
from tuneyard.eval.statistics.rates import Mean, Rows, groups_of, mean_of

SHORTEST = 4  # letters of a word that carries content: no list of stop words is needed
PHRASE = 4  # words of a phrase that may be repeated
HAN_RUN = re.compile(f"[{HAN}]+")


@dataclass(frozen=True, slots=True)
class Talk:
    """Questions, turn by turn (at least two), and the answers to them."""

    questions: Sequence[str]
    answers: Sequence[str]


def content(text: str) -> set[str]:
    """Words of four letters or more, and pairs of neighbouring Chinese characters.

    >>> sorted(content("The LoRA 适配器"))
    ['lora', '适配', '配器']
    """
    units = {word for word in words(text) if len(word) >= SHORTEST}
    for run_of_characters in HAN_RUN.findall(text):
        units.update(a + b for a, b in pairwise(run_of_characters))
    return units


def carry_over(talk: Talk, earlier: Talk | None = None) -> float | None:
    """Mean share of an answer's content that occurs in the turns before its question, from both sides.

    It starts with the second answer. The earlier turns come from `earlier`, by default the talk itself. With
    another talk the result is the share expected by chance. None if no answer has content.
    """
    past = earlier or talk
    shares = []
    for turn in range(1, len(talk.answers)):
        answer = content(talk.answers[turn])
        before = content("\n".join([*past.questions[:turn], *past.answers[:turn]]))
        if answer:
            shares.append(len(answer & before) / len(answer))
    return sum(shares) / len(shares) if shares else None


def repetition(talk: Talk) -> float | None:
    """Mean share of an answer's phrases of four words that an earlier answer has too.

    From the second answer on. In Chinese, characters count as words. None if no answer is long enough.
    """
    shares = []
    earlier: set[tuple[str, ...]] = set()
    for turn, answer in enumerate(talk.answers):
        phrases = ngrams(words(answer), PHRASE)
        if turn and phrases:
            repeated = [phrase for phrase in phrases if phrase in earlier]
            shares.append(len(repeated) / len(phrases))
        earlier.update(phrases)
    return sum(shares) / len(shares) if shares else None


def questions_of(messages: Messages) -> list[Messages]:
    """The messages before each answer: the user's turn, the first together with the system message."""
    parts: list[Messages] = [[]]
    for message in messages:
        if message["role"] == "assistant":
            parts.append([])
        else:
            parts[-1].append(message)
    return parts


def talk_of(messages: Any) -> Talk:
    """The two sides of messages from a record or from predictions.jsonl."""
    questions = []
    for part in questions_of(messages):
        texts = [message["content"] for message in part if message["role"] == "user"]
        questions.append("\n".join(texts))
    answers = [message["content"] for message in messages if message["role"] == "assistant"]
    return Talk(questions, answers)


def talks_of(rows: Rows) -> list[Talk]:
    """The conversation in the `transcript` of each row."""
    return [talk_of(row["transcript"]) for row in rows]


def mean_of_measured(values: Values, rows: Rows) -> Mean | None:
    """Mean over the conversations that have a value, None if none has."""
    groups = groups_of(rows) or range(len(rows))
    measured = {row: value for row, value in enumerate(values) if value is not None}
    if not measured:
        return None
    return mean_of([*measured.values()], [groups[row] for row in measured])


@metric_over_rows("carry_over", unit=SHARE, higher=True, needs=("transcript",), by_command=True)
def carry_over_by_row(rows: Rows) -> Values:
    """Carry-over of each conversation."""
    return [carry_over(talk) for talk in talks_of(rows)]


@metric_over_rows("repetition", unit=SHARE, higher=False, needs=("transcript",), by_command=True)
def repetition_by_row(rows: Rows) -> Values:
    """Repetition in each conversation."""
    return [repetition(talk) for talk in talks_of(rows)]


def carry_over_by_chance(rows: Rows) -> Values:
    """Carry-over of each conversation from the turns of the next one, the last one's from the first."""
    talks = talks_of(rows)
    if len(talks) < 2:
        return []
    return [carry_over(talk, other) for talk, other in zip(talks, [*talks[1:], talks[0]], strict=True)]
