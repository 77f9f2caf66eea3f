"""What all backends share: planned batches (`BatchPlan`), and the arithmetic of labels.

A label is scored in one way everywhere: the tokens of its spellings, their log-probabilities, a sum.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

from tuneyard.core.errors import ContentError, RequestError
from tuneyard.core.language.message import _
from tuneyard.core.llamafactory.prompt import Encode, Messages, Tokenizer
from tuneyard.core.records.prediction_record import AnswerFields

if TYPE_CHECKING:
    from tuneyard.eval.models import Backend

Ids = Sequence[int]
Prompts = Mapping[int, Ids]
"""Token ids by row."""
Images = Mapping[int, Sequence[str]] | None
"""The files of the images in a row's prompt, by row. None: there are no images."""
Batches = list[list[int]]
"""Rows, batch by batch."""
Plan = tuple[Batches, dict[int, str]]
"""The rows in batches, and by row the reasons why the others cannot be prompted."""
Logs = dict[tuple[int, ...], float]
"""Log-probability of a token after a prompt, by all tokens from the prompt's end up to it."""
DIGITS = 6  # of a log-probability in the files: fp32 has no more


class Fields(AnswerFields, total=False):
    """Fields of predictions.jsonl that a model gives for a row, and those of token_losses.jsonl."""

    choices: dict[str, float]
    ids: Sequence[int]
    token_losses: Sequence[float | None]


class TooLong(NamedTuple):
    """The reason why a conversation has no answer: it does not fit the model's context."""

    reason: str


class Refused(NamedTuple):
    """The reason why a row has no answer: the server refused it."""

    reason: str


Read = Callable[[Sequence[int]], Sequence[Logs | Refused]]
"""Gives the log-probabilities of a batch's rows."""
Reading = tuple[Batches, Read]
"""The rows in batches, and the function that reads a batch."""


@dataclass(frozen=True, slots=True)
class BatchPlan:
    """A planned dataset: batches of rows, and the function that gives the fields of a batch's rows.

    `too_long` has the rows that do not fit the context, each with the reason. A row's fields are such as
    `model_output`. The candidate's adapters are applied before `score`.
    """

    batches: Batches
    too_long: Mapping[int, str]
    score: Callable[[Sequence[int]], list[Fields]]


def plan_batches(lengths: Mapping[int, int], budget: int) -> Batches:
    """Put the rows of `lengths` into batches, longest first, so that rows × longest is within `budget`."""
    order = sorted(lengths, key=lambda row: (-lengths[row], row))
    batches = []
    while order:
        count = max(1, budget // max(1, lengths[order[0]]))
        batches.append(order[:count])
        order = order[count:]
    return batches


def chunks(items: Sequence[int], count: int) -> Batches:
    """Items in their order, `count` at a time."""
    return [list(items[start : start + count]) for start in range(0, len(items), count)]


def next_tokens(spellings: Sequence[Ids]) -> list[tuple[tuple[int, ...], list[int]]]:
    """Beginnings of spellings, each with the tokens that follow it in one."""
    following: dict[tuple[int, ...], dict[int, None]] = {}
    for spelling in spellings:
        for place, token in enumerate(spelling):
            following.setdefault(tuple(spelling[:place]), {})[token] = None
    return [(begin, list(tokens)) for begin, tokens in following.items()]


def label_fields(
    labels: Mapping[str, Sequence[tuple[int, ...]]], read: Read, batch: Sequence[int]
) -> list[Fields]:
    """The fields of a batch's rows from the log-probabilities of the tokens of each label's spellings.

    They are the most likely label, the log-probability of each label, and the probability of all together.
    `ContentError` for nan or infinity.
    """
    import numpy as np

    fields: list[Fields] = []
    for row, logs in zip(batch, read(batch), strict=True):
        if isinstance(logs, Refused):
            fields.append({"refused": logs.reason})
            continue
        for value in logs.values():
            if not math.isfinite(value):
                raise ContentError(
                    _(
                        "row {row}: the model gives {value} as a log-probability: its weights or the "
                        "adapter's overflow; try --dtype fp32",
                        row=row,
                        value=value,
                    )
                )
        sums = {}
        for label, forms in labels.items():
            by_form = [sum(logs[ids[:end]] for end in range(1, len(ids) + 1)) for ids in forms]
            sums[label] = float(np.logaddexp.reduce(by_form))
        row_fields: Fields = {
            "model_output": max(sums, key=sums.__getitem__),
            "choices": {label: round(value, DIGITS) for label, value in sums.items()},
            "label_mass": round(sum(map(math.exp, sums.values())), DIGITS),
        }
        fields.append(row_fields)
    return fields


def generating(backend: "Backend", talks: Mapping[int, Messages], encode: Encode, longest: int) -> BatchPlan:
    """Batches that generates an answer to each conversation: the whole text, with the thought."""

    def score(batch: Sequence[int]) -> list[Fields]:
        fields: list[Fields] = []
        for answer in backend.chat({row: talks[row] for row in batch}, encode, longest):
            if isinstance(answer, TooLong):
                fields.append({"too_long": answer.reason})
            elif isinstance(answer, Refused):
                fields.append({"refused": answer.reason})
            else:
                fields.append({"model_output": answer})
        return fields

    return BatchPlan(*plan_answers(backend, talks, encode, longest), score)


def plan_answers(backend: "Backend", talks: Mapping[int, Messages], encode: Encode, longest: int) -> Plan:
    """Put conversations to answer into batches. Those that do not fit the context get a reason.

    A server that makes the prompts itself has no limit here: it refuses the long ones.
    """
    prompts = {row: encode(talk) for row, talk in talks.items()}
    too_long = prompts_too_long(prompts, longest, backend.context)
    lengths = {row: len(ids) + longest for row, ids in prompts.items() if row not in too_long}
    return backend.batches(lengths), too_long


def score_in_halves(batch_plan: BatchPlan, batch: Sequence[int]) -> list[Fields]:
    """Score a batch; out of memory, score its halves. `RequestError` if a single row does not fit."""
    try:
        return batch_plan.score(batch)
    except RuntimeError as error:
        if type(error).__name__ != "OutOfMemoryError" and "can't allocate memory" not in str(error):
            raise
        if len(batch) == 1:
            raise RequestError(_("row {row}: out of memory with a single prompt", row=batch[0])) from error
    middle = len(batch) // 2
    return score_in_halves(batch_plan, batch[:middle]) + score_in_halves(batch_plan, batch[middle:])


def score_all(batch_plan: BatchPlan, about: str) -> dict[int, Fields]:
    """Score every row that fits, with a progress bar. Fields by row, in the order of rows."""
    from tqdm import tqdm

    fields: dict[int, Fields] = {}
    for batch in tqdm(batch_plan.batches, desc=about, delay=2, leave=False):
        fields.update(zip(batch, score_in_halves(batch_plan, batch), strict=True))
    return dict(sorted(fields.items()))


def prompts_too_long(prompts: Prompts, answer: int, context: int) -> dict[int, str]:
    """Reasons by row for prompts that leave less than `answer` tokens; `ContentError` if no prompt fits."""
    too_long: dict[int, str] = {}
    for row, ids in prompts.items():
        if len(ids) + answer > context:
            too_long[row] = _(
                "a prompt of {number} tokens and {new} for the answer, a context of {context}",
                number=len(ids),
                new=answer,
                context=context,
            )
    if len(too_long) == len(prompts):
        raise ContentError(_("no prompt fits: {reason}", reason=next(iter(too_long.values()))))
    return too_long


def tokenise(
    tokenizer: Tokenizer, ends: Sequence[int], spellings: Mapping[str, Sequence[str]]
) -> dict[str, list[tuple[int, ...]]]:
    """Tokenise all spellings of each label. `ends` are the end tokens.

    `RequestError` if two labels share a spelling.
    """
    owners: dict[tuple[int, ...], str] = {}
    for label, texts in spellings.items():
        for text in texts:
            ids = tuple(tokenizer(text, add_special_tokens=False)["input_ids"])
            if owners.setdefault(ids, label) != label:
                raise RequestError(
                    _(
                        "{label!r} and {other!r} share the spelling {text!r}: write them alike in the data "
                        "if they mean the same, otherwise --variants none",
                        label=label,
                        other=owners[ids],
                        text=text,
                    )
                )
    # A spelling is never less likely than a longer one that begins with it.
    # Then each spelling is scored together with the tokens that end an answer.
    if any(one != other and other[: len(one)] == one for one in owners for other in owners):
        ended = {}
        for ids, label in owners.items():
            for end in ends:
                ended[(*ids, end)] = label
        owners = ended or owners
    labels: dict[str, list[tuple[int, ...]]] = {label: [] for label in spellings}
    for ids, label in owners.items():
        labels[label].append(ids)
    return labels
