"""Scoring a dataset: by the probabilities of labels, or by generating an answer.

Both plan all batches beforehand and return, for each row of a batch, what is known of its answer.
"""

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Protocol

from core.errors import ContentError, RequestError
from core.prompt import Message
from eval.backends.score import Ids, LogProbabilities, SpellingTask

if TYPE_CHECKING:
    from eval.backends.load import Model

Prompts = Mapping[int, Ids]  # by row
Messages = list[Message]
Plan = tuple[list[list[int]], dict[int, str]]
"""The rows in batches, and why the others cannot be prompted, by row."""
Fields = dict[str, object]
DIGITS = 6  # of a log-probability in the files: fp32 holds no more


class Scorer(Protocol):
    """How a set is asked: in which batches of rows, which rows cannot be, and what comes of a batch."""

    batches: list[list[int]]
    refused: dict[int, str]

    def score(self, batch: Sequence[int]) -> list[Fields]:
        """Return `model_output` and what else is known of each row."""


class ChoiceScorer:
    """Compares the probabilities of the labels after the prompt, each summed over its spellings."""

    def __init__(
        self,
        model: "Model",
        prompts: Prompts,
        spellings: Mapping[str, Sequence[str]],
        budget: int,
        images: Mapping[int, Sequence[str]] | None = None,
    ) -> None:
        """Prepare to choose between labels, given with the texts that count as each; `images` by row."""
        self.columns, tokens = tokenise(model, spellings)
        self.refused = refuse(prompts, max(map(len, tokens)) - 1, model.context)
        fitting = {row: ids for row, ids in prompts.items() if row not in self.refused}
        task = SpellingTask(fitting, tokens, images or {})
        self.batches = task.batches(budget)
        self.scorer = LogProbabilities(model, task)

    def score(self, batch: Sequence[int]) -> list[Fields]:
        """Return the likeliest label with every label's log-probability and their sum, the label mass.

        `ContentError` if the model's probabilities are no numbers.
        """
        scores = self.scorer.score(batch).double().tolist()
        return [self._fields(row, logs) for row, logs in zip(batch, scores, strict=True)]

    def _fields(self, row: int, logs: list[float]) -> Fields:
        if not all(map(math.isfinite, logs)):
            raise ContentError(
                f"row {row}: the model gives {logs[0]} as a log-probability: its weights or the adapter's "
                "overflow; try --dtype fp32"
            )
        choices = {label: _log_sum([logs[i] for i in columns]) for label, columns in self.columns.items()}
        best = max(choices, key=choices.__getitem__)
        mass = sum(map(math.exp, choices.values()))
        rounded = {label: round(value, DIGITS) for label, value in choices.items()}
        return {
            "model_output": best,
            "predicted_output": best,
            "choices": rounded,
            "label_mass": round(mass, DIGITS),
        }


class Generator(Protocol):
    """Who generates answers to conversations: the model in this process, or one behind a server."""

    def plan(self, talks: Mapping[int, Messages], longest: int, /) -> Plan:
        """Return the rows in batches, and why the others cannot be asked."""

    def generate(self, talks: Sequence[Messages], max_new_tokens: int) -> list[str]:
        """Return the greedy answer to each conversation, whose last turn is the user's."""


class GenerationScorer:
    """Generates a greedy answer to each conversation."""

    def __init__(self, generator: Generator, talks: Mapping[int, Messages], max_new_tokens: int) -> None:
        """Prepare to generate at most `max_new_tokens` tokens for each conversation."""
        self.generator, self.talks, self.max_new_tokens = generator, talks, max_new_tokens
        self.batches, self.refused = generator.plan(talks, max_new_tokens)

    def score(self, batch: Sequence[int]) -> list[Fields]:
        """Return the whole generated text, a thought included, as `model_output`."""
        texts = self.generator.generate([self.talks[row] for row in batch], self.max_new_tokens)
        return [{"model_output": text} for text in texts]


def score_in_halves(scorer: Scorer, batch: Sequence[int]) -> list[Fields]:
    """Ask a batch, halved for as long as the memory does not hold it; `RequestError` for a single row."""
    try:
        return scorer.score(batch)
    except RuntimeError as error:
        if type(error).__name__ != "OutOfMemoryError" and "can't allocate memory" not in str(error):
            raise
        if len(batch) == 1:
            raise RequestError(f"row {batch[0]}: out of memory with a single prompt") from error
    middle = len(batch) // 2
    return score_in_halves(scorer, batch[:middle]) + score_in_halves(scorer, batch[middle:])


def refuse(prompts: Prompts, answer: int, context: int) -> dict[int, str]:
    """Return why, for each prompt that leaves less than `answer` tokens of the context: none is cut.

    `ContentError` if no prompt is left.
    """
    refused = {
        row: f"a prompt of {len(ids)} tokens and {answer} for the answer, a context of {context}"
        for row, ids in prompts.items()
        if len(ids) + answer > context
    }
    if len(refused) == len(prompts):
        raise ContentError(f"no prompt fits: {next(iter(refused.values()))}")
    return refused


def tokenise(
    model: "Model", spellings: Mapping[str, Sequence[str]]
) -> tuple[dict[str, list[int]], list[list[int]]]:
    """Return each label's columns among all spellings, and the spellings as ids, tokenised by themselves.

    That is how training tokenises an answer. Where one spelling begins another, which it would then never
    be less likely than, all are followed by each token that ends an answer. `RequestError` if two labels
    share a spelling.
    """
    owners: dict[tuple[int, ...], str] = {}
    for label, texts in spellings.items():
        for text in texts:
            ids = tuple(model.tokenizer(text, add_special_tokens=False)["input_ids"])
            if owners.setdefault(ids, label) != label:
                raise RequestError(
                    f"{label!r} and {owners[ids]!r} share the spelling {text!r}: --variants none"
                )
    if any(one != other and other[: len(one)] == one for one in owners for other in owners):
        ends = model.net.generation_config.eos_token_id or []
        owners = {(*ids, end): label for ids, label in owners.items() for end in ends} or owners
    columns = {label: [i for i, owner in enumerate(owners.values()) if owner == label] for label in spellings}
    return columns, [list(ids) for ids in owners]


def _log_sum(logs: Sequence[float]) -> float:
    top = max(logs)
    return top + math.log(sum(math.exp(value - top) for value in logs))
