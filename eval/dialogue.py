"""tuneyard eval dialogue --model models/demo-base --data talks.jsonl --out results/talks

Plays each conversation turn by turn, with the model's own answers. Measures the share of an answer's content
that came up before (carry-over), and the share that an earlier answer has word for word (repetition). Both
are heuristics: they compare words, not meaning. docs/eval-dialogue.md explains them. Writes
OUT/<model>/<dataset>/ {results.json,predictions.jsonl} with the transcripts.
"""

import re
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

from tuneyard.core.cli.run import run_command
from tuneyard.core.errors import ContentError
from tuneyard.core.language.han import HAN
from tuneyard.core.language.message import Message, _, counted, joined, marked
from tuneyard.core.llamafactory.prompt import Encode, Messages, PromptAndAnswer
from tuneyard.core.records.prediction_record import Prediction
from tuneyard.eval.data.dataset import EvalDataset
from tuneyard.eval.figures.answers import cut_thought
from tuneyard.eval.figures.text import ngrams, words
from tuneyard.eval.models import Backend
from tuneyard.eval.models.batch_plan import BatchPlan, Fields, Refused, TooLong, plan_answers
from tuneyard.eval.runs.results import Results
from tuneyard.eval.scoring.command import Declared, scoring_command
from tuneyard.eval.scoring.evaluation import (
    Evaluation,
    Job,
    answer_without,
    refused_warnings,
)
from tuneyard.eval.scoring.request import ScoringRequest
from tuneyard.eval.statistics.rates import Mean, groups_of, is_answered, mean_of

FIGURES = {"carry_over": _("carry-over"), "chance": _("chance"), "repetition": _("repetition")}
"""The figures by their names in results.json, as they are printed."""
SHORTEST = 4  # letters of a word that carries content: no list of stop words is needed
PHRASE = 4  # words of a phrase that may be repeated
HAN_RUN = re.compile(f"[{HAN}]+")


@scoring_command(
    "dialogue",
    "tuneyard eval dialogue --model models/demo-base --data eval/suites/toolkit-talks.jsonl "
    "--limit 1 --max-new-tokens 4 --out results/talk",
    "tuneyard eval dialogue --model models/demo-base --adapter demo-rte --data "
    "eval/suites/toolkit-talks.jsonl --limit 1 --max-new-tokens 4 --out results/talks-of-rte",
    longest=256,
)
def cli(request: ScoringRequest, datasets: Sequence[EvalDataset]) -> Declared:
    """Measure multi-turn coherence by two heuristics, carry-over and repetition, and keep the transcripts.

    Both come with the figures of the data's own answers, and carry-over with the value expected by chance.
    """
    for dataset in datasets:
        if not any(map(_several_questions, dataset.conversations[: request.limit])):
            raise ContentError(
                _("{path}: no conversation has a second question: nothing to measure", path=dataset.path)
            )
    return Dialogue(), datasets


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


class Dialogue(Evaluation):
    """Playing conversations with the model's own answers."""

    tests = _("conversations")

    def batch_plan(self, job: Job) -> BatchPlan:
        """Play every conversation with several questions. The others are left out."""
        talks = {row: talk.messages for row, talk in enumerate(job.rows) if _several_questions(talk)}
        prompting = job.candidate.prompting
        longest = job.request.max_new_tokens
        return conversing(job.backend, talks, prompting.encode, longest, prompting.keeps_thoughts)

    def prediction(self, job: Job, row: int, fields: Fields) -> Prediction:
        """The data's own answers, the row's number, and the transcript or the reason why it is missing."""
        return {
            "references": list(_reference(job.rows[row]).answers),
            "row": row,
            **answer_without(fields, ()),
        }

    def results(self, job: Job, predictions: list[Prediction]) -> dict[str, object]:
        """Both figures of the model and of the data's own answers, as means over conversations."""
        played = [line for line in predictions if is_answered(line)]
        talks = [_talk(line["transcript"]) for line in played]
        references = [_reference(job.rows[line["row"]]) for line in played]
        groups = groups_of(played) or range(len(played))
        figures = _figures(talks, groups)
        return {
            **_values(figures),
            "reference": _values(_figures(references, groups)),
            "n": len(played),
            "answers": sum(len(talk.answers) for talk in talks),
            "cut_short": sum(bool(line["cut_short"]) for line in played),
            "one_question": len(job.rows) - len(predictions),
            "estimates": {name: figure.as_json() for name, figure in figures.items()},
        }

    def line(self, results: Results) -> str:
        """Each figure, with that of the data's own answers."""
        reference = results["reference"]
        parts = [_figure_text(label, results[name], reference[name]) for name, label in FIGURES.items()]
        parts.append(
            _("n {n} ({answers})", n=results["n"], answers=counted(results["answers"], "answer", "answers"))
        )
        return joined(parts, "  ")

    def warnings(self, results: Results) -> list[str]:
        """Warn of conversations that were not played to their end."""
        warnings = refused_warnings(results, _("left out"))
        single = results["one_question"]
        if single:
            warnings.append(_("{rows} with a single question: left out", rows=counted(single, "row", "rows")))
        reasons = {
            "too_long": marked("{conversations} too long for the context: left out"),
            "cut_short": marked("{conversations} ended early, when the context was full"),
        }
        for name, template in reasons.items():
            if results[name]:
                conversations = counted(results[name], "conversation", "conversations")
                warnings.append(_(template, conversations=conversations))
        return warnings


@dataclass(slots=True)
class Play:
    """A conversation that is played: the messages before each answer to come, and all turns so far.

    `prompted` are these turns in the next prompt, where answers may have their thoughts.
    """

    questions: list[Messages]
    prompted: Messages = field(default_factory=list)
    transcript: Messages = field(default_factory=list)
    cut_short: bool = False
    refusal: str = ""
    refused: str = ""


def conversing(
    backend: Backend,
    talks: Mapping[int, Messages],
    encode: Encode,
    max_new_tokens: int,
    keeps_thoughts: bool = False,
) -> BatchPlan:
    """Batches that answers conversations turn after turn, each turn after all turns before it.

    Conversations, by row, end with a user's turn. Each stops when the context is full. A row's fields are the
    `transcript`, without thoughts, and `cut_short`. `keeps_thoughts`: the prompts have the thoughts of
    earlier answers, as in the training.
    """

    def score(batch: Sequence[int]) -> list[Fields]:
        plays = {row: Play(_questions(talks[row])) for row in batch}
        while True:
            asked: dict[int, Messages] = {}
            for row, play in plays.items():
                if not play.questions or play.cut_short:
                    continue
                messages = [*play.prompted, *play.questions[0]]
                if len(encode(messages)) <= backend.context - max_new_tokens:
                    asked[row] = messages
                else:
                    play.cut_short = True
            if not asked:
                break
            answers = backend.chat(asked, encode, max_new_tokens)
            for (row, messages), answer in zip(asked.items(), answers, strict=True):
                play = plays[row]
                if isinstance(answer, Refused):
                    play.cut_short, play.refused = True, answer.reason
                elif isinstance(answer, TooLong):
                    play.cut_short, play.refusal = True, answer.reason
                else:
                    visible = {"role": "assistant", "content": cut_thought(answer)}
                    play.transcript += [*play.questions[0], visible]
                    content = answer if keeps_thoughts else cut_thought(answer)
                    play.prompted = [*messages, {"role": "assistant", "content": content}]
                    del play.questions[0]
        fields: list[Fields] = []
        for play in plays.values():
            if play.refused:  # also in a later turn: its figures would be those of the first ones
                fields.append({"refused": play.refused})
            elif play.transcript:
                fields.append({"transcript": play.transcript, "cut_short": play.cut_short})
            else:
                fields.append({"too_long": play.refusal})
        return fields

    return BatchPlan(*plan_answers(backend, talks, encode, max_new_tokens), score)


def _figures(talks: Sequence[Talk], groups: Sequence[Hashable]) -> dict[str, Mean]:
    """Means of the figures that could be measured. Chance pairs each talk with the turns of the next one."""
    values: dict[str, list[float | None]] = {
        "carry_over": [carry_over(talk) for talk in talks],
        "chance": [],
        "repetition": [repetition(talk) for talk in talks],
    }
    if len(talks) > 1:
        for talk, other in zip(talks, [*talks[1:], talks[0]], strict=True):
            values["chance"].append(carry_over(talk, other))
    figures = {}
    for name in FIGURES:
        measured = {row: value for row, value in enumerate(values[name]) if value is not None}
        if measured:
            figures[name] = mean_of([*measured.values()], [groups[row] for row in measured])
    return figures


def _values(figures: Mapping[str, Mean]) -> dict[str, float | None]:
    return {name: figures[name].value if name in figures else None for name in FIGURES}


def _percent(value: float | None) -> str:
    return "–" if value is None else f"{value:.1%}"


def _figure_text(label: str, value: float | None, of_data: float | None) -> Message:
    """A figure of the model next to that of the data's own answers: `carry-over 40.0% (data 35.2%)`."""
    return _(
        "{figure} {share} (data {expected})",
        figure=label,
        share=_percent(value),
        expected=_percent(of_data),
    )


def _reference(example: PromptAndAnswer) -> Talk:
    return _talk([*example.messages, {"role": "assistant", "content": example.answer}])


def _several_questions(example: PromptAndAnswer) -> bool:
    return len(_questions(example.messages)) > 1


def _questions(messages: Messages) -> list[Messages]:
    """The messages before each answer: the user's turn, the first together with the system message."""
    parts: list[Messages] = [[]]
    for message in messages:
        if message["role"] == "assistant":
            parts.append([])
        else:
            parts[-1].append(message)
    return parts


def _talk(messages: Any) -> Talk:
    """The two sides of messages from a record or from predictions.jsonl."""
    questions = []
    for part in _questions(messages):
        texts = [message["content"] for message in part if message["role"] == "user"]
        questions.append("\n".join(texts))
    answers = [message["content"] for message in messages if message["role"] == "assistant"]
    return Talk(questions, answers)


if __name__ == "__main__":
    run_command(cli)
