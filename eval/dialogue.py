"""python -m eval.dialogue --model models/demo-base --data talks.jsonl --out results/talks

Leads each conversation turn by turn, with the model's own answers, and says how much of an answer's content
was spoken of before (carry-over) and how much of it was answered before, word for word (repetition): two
heuristics, which read words, not sense; docs/eval-dialogue.md. Writes OUT/<model>/<set>/
{results.json,predictions.jsonl} with the transcripts.
"""

import re
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import pairwise
from typing import Any

from tuneyard.core.errors import ContentError, counted, run
from tuneyard.core.han import HAN
from tuneyard.core.prompt import Conversation
from tuneyard.eval.backends.scorers import Fields, Generator, Messages, Scorer
from tuneyard.eval.backends.server import Server
from tuneyard.eval.datasets.dataset import read_datasets
from tuneyard.eval.metrics.answers import cut_thought
from tuneyard.eval.metrics.text import ngrams, words
from tuneyard.eval.read.results import Prediction
from tuneyard.eval.scoring.command import Asked, scoring_command
from tuneyard.eval.scoring.options import ScoringRequest
from tuneyard.eval.scoring.task import Figure, Job, Task
from tuneyard.eval.statistics.rates import Measured, groups_of, mean_of

FIGURES = ("carry_over", "chance", "repetition")
SHORTEST = 4  # letters of a word that carries content: no list of stop words is needed
PHRASE = 4  # words in a row that are said again
ROW = re.compile(f"[{HAN}]+")


@scoring_command(
    "tuneyard eval dialogue --model models/demo-base --data eval/suites/toolkit-talks.jsonl "
    "--limit 1 --max-new-tokens 4 --out results/talk",
    "tuneyard eval dialogue --model models/demo-base --adapter demo-rte --data "
    "eval/suites/toolkit-talks.jsonl --limit 1 --max-new-tokens 4 --out results/talks-of-rte",
    longest=256,
)
def cli(request: ScoringRequest) -> Asked:
    """Measure multi-turn coherence by two heuristics, carry-over and repetition, and keep the transcripts.

    Both stand beside those of the data's own answers, and carry-over beside what chance gives.
    """
    sets = read_datasets(request.datasets, request.data, request.cluster)
    for one in sets:
        if not any(map(_several, one.conversations[: request.limit])):
            raise ContentError(f"{one.path}: no conversation has a second question: nothing to measure")
    return Dialogue(), sets


@dataclass(frozen=True, slots=True)
class Talk:
    """What was asked, turn by turn (at least two), and what was answered to it."""

    asked: Sequence[str]
    answers: Sequence[str]


def content(text: str) -> set[str]:
    """Return the words of four letters or more, and the pairs of neighbouring Chinese characters.

    >>> sorted(content("The LoRA 适配器"))
    ['lora', '适配', '配器']
    """
    long = {word for word in words(text) if len(word) >= SHORTEST}
    return long | {a + b for row in ROW.findall(text) for a, b in pairwise(row)}


def carry_over(talk: Talk, earlier: Talk | None = None) -> float | None:
    """Return the mean share of an answer's content that the turns before its question have, of both sides.
    From the second answer on, each against the turns of `earlier` (the talk itself by default): with another
    talk there it is the share to be expected by chance. None if no answer has content."""
    past = earlier or talk
    shares = []
    for turn in range(1, len(talk.answers)):
        said = content(talk.answers[turn])
        known = content("\n".join([*past.asked[:turn], *past.answers[:turn]]))
        if said:
            shares.append(len(said & known) / len(said))
    return sum(shares) / len(shares) if shares else None


def repetition(talk: Talk) -> float | None:
    """Return the mean share of an answer's phrases of four words that an earlier answer has too. From the
    second answer on; characters count as words in Chinese. None if no answer is that long."""
    shares = []
    known: set[tuple[str, ...]] = set()
    for turn, answer in enumerate(talk.answers):
        phrases = ngrams(words(answer), PHRASE)
        if turn and phrases:
            shares.append(sum(phrase in known for phrase in phrases) / len(phrases))
        known.update(phrases)
    return sum(shares) / len(shares) if shares else None


class Dialogue(Task):
    """Leading conversations with the model's own answers."""

    command = "eval.dialogue"

    def scorer(self, job: Job) -> Scorer:
        """Return one that leads every conversation of several questions; the others show nothing."""
        talks = {row: talk.messages for row, talk in enumerate(job.rows) if _several(talk)}
        return conversing(job.generator, talks, _fits(job), job.request.max_new_tokens)

    def prediction(self, job: Job, row: int, fields: Fields) -> Prediction:
        """Return the data's own answers, the row's number, and the transcript or why there is none."""
        return {"references": _reference(job.rows[row]).answers, "row": row, **fields}

    def results(self, job: Job, predictions: list[Prediction]) -> dict[str, object]:
        """Return both figures of the model and of the data's own answers, means over conversations."""
        led = [p for p in predictions if "refused" not in p]
        groups = groups_of(led) or range(len(led))
        own = _figures([_talk(p["transcript"]) for p in led], groups)
        reference = _figures([_reference(job.rows[p["row"]]) for p in led], groups)
        return {
            **_values(own),
            "reference": _values(reference),
            "n": len(led),
            "answers": sum(len(_talk(p["transcript"]).answers) for p in led),
            "cut_short": sum(bool(p["cut_short"]) for p in led),
            "one_question": len(job.rows) - len(predictions),
            "estimates": {name: asdict(estimate) for name, estimate in own.items()},
        }

    def line(self, results: Mapping[str, Any]) -> str:
        """Return each figure with that of the data's own answers."""
        reference = results["reference"]
        parts = [
            f"{name.replace('_', '-')} {_percent(results[name])} (data {_percent(reference[name])})"
            for name in FIGURES
        ]
        return "  ".join([*parts, f"n {results['n']} ({counted(results['answers'], 'answer')})"])

    def warnings(self, results: Mapping[str, Any]) -> list[str]:
        """Say which conversations were not led to their end."""
        reasons = {
            "one_question": ("row", "with a single question: left out"),
            "refused": ("conversation", "too long for the context: left out"),
            "cut_short": ("conversation", "ended early, when the context was full"),
        }
        warnings = []
        for name, (noun, reason) in reasons.items():
            if results[name]:
                warnings.append(f"{counted(results[name], noun)} {reason}")
        return warnings

    def figures(self, results: Mapping[str, Any]) -> dict[str, Figure]:
        """Return what could be measured."""
        return {
            name: Figure(one["value"], one["ci95"], results["n"])
            for name, one in results["estimates"].items()
        }


def conversing(
    generator: Generator, talks: Mapping[int, Messages], fits: Callable[[Messages], bool], max_new_tokens: int
) -> Scorer:
    """Return what has a generator answer turn after turn, each on all that was said before.

    Conversations, by row, have a user's turn last; each ends where it no longer `fits`. Of each row the
    `transcript`, thoughts left out, and whether it was `cut_short`.
    """

    def score(batch: Sequence[int]) -> list[Fields]:
        turns = [_questions(talks[row]) for row in batch]
        said: list[Messages] = [[] for _ in batch]
        ended = [False for _ in batch]
        for turn in range(max(map(len, turns))):
            now = []
            for n, asked in enumerate(turns):
                if turn < len(asked) and not ended[n]:
                    ended[n] = not fits([*said[n], *asked[turn]])
                    if not ended[n]:
                        said[n] += asked[turn]
                        now.append(n)
            answers = generator.generate([said[n] for n in now], max_new_tokens) if now else []
            for n, answer in zip(now, answers, strict=True):
                said[n].append({"role": "assistant", "content": cut_thought(answer)})
        return [{"transcript": s, "cut_short": e} for s, e in zip(said, ended, strict=True)]

    return Scorer(*generator.plan(talks, max_new_tokens), score)


def _fits(job: Job) -> Callable[[Messages], bool]:
    if isinstance(job.opened.model, Server):
        return lambda _: True  # it refuses by itself
    room = job.opened.model.context - job.request.max_new_tokens
    return lambda talk: len(job.candidate.prompting.encode(talk)) <= room


def _figures(talks: Sequence[Talk], groups: Sequence[Hashable]) -> dict[str, Measured]:
    """Return the means of what can be measured; chance takes each talk with the turns before of the next."""
    others = [*talks[1:], *talks[:1]]
    each = {
        "carry_over": [carry_over(talk) for talk in talks],
        "chance": [carry_over(*pair) for pair in zip(talks, others, strict=True)] if len(talks) > 1 else [],
        "repetition": [repetition(talk) for talk in talks],
    }
    found = {}
    for name, values in each.items():
        known = [(value, group) for value, group in zip(values, groups, strict=False) if value is not None]
        if known:
            found[name] = mean_of([value for value, _ in known], [group for _, group in known])
    return found


def _values(figures: Mapping[str, Measured]) -> dict[str, float | None]:
    return {name: figures[name].value if name in figures else None for name in FIGURES}


def _percent(value: float | None) -> str:
    return "–" if value is None else f"{value:.1%}"


def _reference(asked: Conversation) -> Talk:
    return _talk([*asked.messages, {"role": "assistant", "content": asked.answer}])


def _several(asked: Conversation) -> bool:
    return len(_questions(asked.messages)) > 1


def _questions(talk: Messages) -> list[Messages]:
    """Return what stands before each answer: the user's turn, the first with the system's text."""
    parts: list[Messages] = [[]]
    for message in talk:
        if message["role"] == "assistant":
            parts.append([])
        else:
            parts[-1].append(message)
    return parts


def _talk(messages: Any) -> Talk:
    """Return the two sides of messages, as they come from a record or from predictions.jsonl."""
    asked = ["\n".join(m["content"] for m in part if m["role"] == "user") for part in _questions(messages)]
    return Talk(asked, [m["content"] for m in messages if m["role"] == "assistant"])


if __name__ == "__main__":
    run(cli)
