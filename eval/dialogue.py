"""tuneyard eval dialogue --model models/demo-base --data talks.jsonl --out results/talks

Plays each conversation turn by turn, with the model's own answers. Measures the share of an answer's content
that came up before (carry-over), and the share that an earlier answer has word for word (repetition). Both
are heuristics: they compare words, not meaning. docs/eval-dialogue.md explains them. Writes
OUT/<model>/<dataset>/ {results.json,predictions.jsonl} with the transcripts.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from tuneyard.core.cli.run import run_command
from tuneyard.core.errors import ContentError
from tuneyard.core.language.message import Message, _, counted, joined, marked
from tuneyard.core.llamafactory.prompt import Encode, Messages, PromptAndAnswer
from tuneyard.core.records.prediction_record import Prediction
from tuneyard.eval.data.dataset import EvalDataset
from tuneyard.eval.figures import metrics
from tuneyard.eval.figures.answers import cut_thought
from tuneyard.eval.figures.dialogue import (
    carry_over_by_chance,
    mean_of_measured,
    questions_of,
    talk_of,
    talks_of,
)
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
from tuneyard.eval.statistics.rates import Mean, Rows, is_answered

FIGURES = {"carry_over": _("carry-over"), "chance": _("chance"), "repetition": _("repetition")}
"""The figures by their names in results.json, as they are printed."""


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
            "references": list(talk_of(_reference(job.rows[row])).answers),
            "row": row,
            **answer_without(fields, ()),
        }

    def results(self, job: Job, predictions: list[Prediction]) -> dict[str, object]:
        """Both figures of the model and of the data's own answers, as means over conversations."""
        played = [line for line in predictions if is_answered(line)]
        figures = _figures(played)
        references = [{**line, "transcript": _reference(job.rows[line["row"]])} for line in played]
        return {
            **_values(figures),
            "reference": _values(_figures(references)),
            "n": len(played),
            "answers": sum(len(talk.answers) for talk in talks_of(played)),
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
        plays = {row: Play(questions_of(talks[row])) for row in batch}
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


def _figures(rows: Rows) -> dict[str, Mean]:
    """Means of the figures that could be measured."""
    values_by_name = {
        "carry_over": metrics()["carry_over"].values(rows),
        "chance": carry_over_by_chance(rows),
        "repetition": metrics()["repetition"].values(rows),
    }
    figures = {}
    for name in FIGURES:
        mean = mean_of_measured(values_by_name[name], rows)
        if mean is not None:
            figures[name] = mean
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


def _reference(example: PromptAndAnswer) -> Messages:
    """The data's own conversation."""
    return [*example.messages, {"role": "assistant", "content": example.answer}]


def _several_questions(example: PromptAndAnswer) -> bool:
    return len(questions_of(example.messages)) > 1


if __name__ == "__main__":
    run_command(cli)
