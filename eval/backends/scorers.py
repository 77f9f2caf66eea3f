"""Scoring a dataset: by the probabilities of labels, or by generating an answer.

All batches are planned beforehand, longest first, within a budget of tokens. Labels take one forward pass for
each prompt and label beginning. The beginning that all prompts share is computed once. The head is applied
only to the positions that matter, over the whole vocabulary, so that the probabilities are true ones.
"""

import contextlib
import copy
import math
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from tuneyard.core.errors import ContentError, RequestError
from tuneyard.core.prompt import Message
from tuneyard.eval.backends.load import Model

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedTokenizerBase

Ids = Sequence[int]
Prompts = Mapping[int, Ids]
"""Token ids by row."""
Messages = list[Message]
Plan = tuple[list[list[int]], dict[int, str]]
"""The rows in batches, and by row the reasons why the others cannot be prompted."""
Fields = dict[str, Any]
"""Fields of predictions.jsonl that a scorer gives for a row."""
DIGITS = 6  # of a log-probability in the files: fp32 has no more
SHORTEST_PREFIX = 8  # below this, continuing from a cache costs more than it saves


def shared_prefix(prompts: Collection[Ids]) -> int:
    """Count the ids that all prompts begin with, leaving at least one of each; 0 if too few to gain."""
    if len(prompts) < 2:
        return 0
    first, last = min(map(tuple, prompts)), max(map(tuple, prompts))
    length = 0
    for one, other in zip(first, last, strict=False):
        if one != other:
            break
        length += 1
    length = min(length, min(map(len, prompts)) - 1)
    return length if length >= SHORTEST_PREFIX else 0


def plan_batches(lengths: Mapping[int, int], budget: int) -> list[list[int]]:
    """Put the rows of `lengths` into batches, longest first, so that rows × longest is within `budget`."""
    order = sorted(lengths, key=lambda row: (-lengths[row], row))
    batches = []
    while order:
        count = max(1, budget // max(1, lengths[order[0]]))
        batches.append(order[:count])
        order = order[count:]
    return batches


def beginnings(spellings: Sequence[Ids]) -> list[tuple[int, ...]]:
    """Label beginnings that need a forward pass: each spelling without its last token.

    A beginning of a longer one needs no pass: the longer one's pass gives its position too.
    """
    candidates = {tuple(spelling[:-1]) for spelling in spellings}
    needed = []
    for begin in sorted(candidates):
        longer = [other for other in candidates if other != begin and other[: len(begin)] == begin]
        if not longer:
            needed.append(begin)
    return needed


class LogProbabilities:
    """Log-probabilities of spellings (token ids, none empty) after each prompt.

    The states of the shared beginning belong to the weights at the first `score`: make a new object, or call
    `release`, when the weights change.
    """

    def __init__(
        self,
        model: Model,
        prompts: Mapping[int, Ids],
        spellings: Sequence[Ids],
        images: Mapping[int, Sequence[str]] | None = None,
    ) -> None:
        """`images` are the files of the placeholders in a row's prompt."""
        self.model, self.prompts, self.spellings, self.images = model, prompts, spellings, images or {}
        self.beginnings = beginnings(spellings)
        self.common = shared_prefix(prompts.values())
        self.prefix: tuple[int, Any] | None = None
        """Number of shared ids and their cached states, None before the first batch."""

    def batches(self, budget: int) -> list[list[int]]:
        """Plan all rows. The plan depends only on prompts, spellings and the budget."""
        extra = max(map(len, self.spellings)) - 1 - self.common
        return plan_batches({row: len(ids) + extra for row, ids in self.prompts.items()}, budget)

    def release(self) -> None:
        """Free the states of the shared beginning."""
        self.prefix = None

    def score(self, batch: Sequence[int]) -> "torch.Tensor":
        """Compute fp32 log-probabilities [rows of the batch, spellings] on the CPU."""
        import torch

        scores = torch.zeros(len(batch), len(self.spellings))
        done: set[int] = set()
        with torch.inference_mode():
            for begin in self.beginnings:
                ready = []
                for place, ids in enumerate(self.spellings):
                    if place not in done and tuple(ids[:-1]) == begin[: len(ids) - 1]:
                        ready.append(place)
                depth = max(len(self.spellings[place]) for place in ready)
                logits = self._logits(batch, begin[: depth - 1])
                for place in ready:
                    ids = self.spellings[place]
                    scores[:, place] = logits[:, range(len(ids)), ids].sum(1).cpu()
                done.update(ready)
        return scores

    def _logits(self, batch: Sequence[int], begin: tuple[int, ...]) -> "torch.Tensor":
        """Log-probabilities [rows, len(begin) + 1, vocabulary] from the prompt's last token on."""
        import torch

        if self.prefix is None:
            self.prefix = self._shared_prefix()
        shared, cache = self.prefix
        device = self.model.device
        rows = [[*self.prompts[row][shared:], *begin] for row in batch]
        width = max(map(len, rows))
        # The tokens of a row never see the padding on its right: no mask is needed.
        ids = torch.tensor([row + [0] * (width - len(row)) for row in rows], device=device)
        last = torch.tensor([len(row) - 1 - len(begin) for row in rows])
        positions = (last[:, None] + torch.arange(len(begin) + 1)).to(device)
        each_row = torch.arange(len(rows), device=device)[:, None]
        inputs: dict[str, Any] = {}
        if self.model.vision:  # the row is alone in its batch
            inputs = self.model.vision.inputs(rows[0], self.images.get(batch[0], ()))
        if cache is not None:
            inputs["past_key_values"] = copy.deepcopy(cache)
            inputs["past_key_values"].batch_repeat_interleave(len(rows))
        with head_only_at(self.model.net, each_row, positions):
            logits = self.model.net(input_ids=ids, use_cache=cache is not None, **inputs).logits
        scores: torch.Tensor = logits.view(*positions.shape, -1).float().log_softmax(-1)
        return scores

    def _shared_prefix(self) -> tuple[int, Any]:
        """Number of shared ids and their cached states; 0 and None if rows cannot continue from a cache."""
        import torch
        from transformers.cache_utils import DynamicLayer

        if self.model.alone or not self.common:
            return 0, None
        begin = list(next(iter(self.prompts.values())))[: self.common]
        ids = torch.tensor([begin], device=self.model.device)
        with torch.inference_mode(), head_only_at(self.model.net, ids.new_zeros(1), ids.new_zeros(1)):
            cache = self.model.net(input_ids=ids, use_cache=True).past_key_values
        if all(type(layer) is DynamicLayer for layer in cache.layers):
            return self.common, cache
        return 0, None  # windows and recurrent states cannot be continued by rows of other lengths


@contextlib.contextmanager
def head_only_at(net: Any, rows: "torch.Tensor", positions: "torch.Tensor") -> Iterator[None]:
    """Apply the head to k states only, [k, hidden], at `rows` and `positions`, which broadcast to k."""

    def pick(_: object, inputs: "tuple[torch.Tensor, ...]") -> "torch.Tensor":
        return inputs[0][rows, positions].reshape(-1, inputs[0].shape[-1]).contiguous()

    handle = net.get_output_embeddings().register_forward_pre_hook(pick)
    try:
        yield
    finally:
        handle.remove()


@dataclass(frozen=True, slots=True)
class EngineRequest:
    """Token ids for vLLM: for the base or an adapter on it.

    With `tokens`, their log-probabilities as the next token are wanted; otherwise an answer of at most
    `max_tokens` tokens.
    """

    ids: tuple[int, ...]
    adapter: Path | None
    tokens: tuple[int, ...] = ()
    max_tokens: int = 1


@dataclass(frozen=True, slots=True)
class Scorer:
    """A planned dataset: batches of rows, and the function that scores a batch.

    `too_long` has the rows that do not fit the context, each with the reason. `score` gives each
    row's fields, such as `model_output`. It runs with the candidate's weights applied. `release`
    frees the states that it keeps between batches, by default none. `requests` lists what vLLM is to answer
    for a batch: it can answer those of several scorers together.
    """

    batches: list[list[int]]
    too_long: dict[int, str]
    score: Callable[[Sequence[int]], list[Fields]]
    release: Callable[[], None] = lambda: None
    requests: Callable[[Sequence[int]], Sequence[EngineRequest]] = lambda _: ()


def choosing(
    model: Model,
    prompts: Prompts,
    spellings: Mapping[str, Sequence[str]],
    budget: int,
    images: Mapping[int, Sequence[str]] | None = None,
) -> Scorer:
    """Scorer that compares labels after each prompt, each label by all its spellings.

    A row's fields are the most likely label, all log-probabilities and the label mass. `ContentError` for
    nan.
    """
    columns, tokens = tokenise(model.tokenizer, model.net.generation_config.eos_token_id or [], spellings)
    too_long = prompts_too_long(prompts, max(map(len, tokens)) - 1, model.context)
    fitting = {row: ids for row, ids in prompts.items() if row not in too_long}
    probabilities = LogProbabilities(model, fitting, tokens, images)

    def score(batch: Sequence[int]) -> list[Fields]:
        scores = probabilities.score(batch).tolist()
        return [label_fields(row, columns, logs) for row, logs in zip(batch, scores, strict=True)]

    return Scorer(probabilities.batches(budget), too_long, score, probabilities.release)


def next_tokens(spellings: Sequence[Ids]) -> list[tuple[tuple[int, ...], list[int]]]:
    """Beginnings of spellings, each with the tokens that follow it in one."""
    following: dict[tuple[int, ...], dict[int, None]] = {}
    for spelling in spellings:
        for place, token in enumerate(spelling):
            following.setdefault(tuple(spelling[:place]), {})[token] = None
    return [(begin, list(tokens)) for begin, tokens in following.items()]


def sums_of_tokens(spellings: Sequence[Ids], logs: Mapping[tuple[int, ...], float]) -> list[float]:
    """Log-probability of each spelling from those of its tokens, by everything up to the token."""
    return [
        sum(logs[tuple(spelling[: place + 1])] for place in range(len(spelling))) for spelling in spellings
    ]


def label_fields(row: int, columns: Mapping[str, Sequence[int]], logs: Sequence[float]) -> Fields:
    """A row's fields from the log-probability of each spelling, of which a label's are in its `columns`.

    `ContentError` for nan or infinity.
    """
    if not all(map(math.isfinite, logs)):
        raise ContentError(
            f"row {row}: the model gives {logs[0]} as a log-probability: its weights or the "
            "adapter's overflow; try --dtype fp32"
        )
    sums = {label: log_sum([logs[place] for place in places]) for label, places in columns.items()}
    return chosen_fields(sums)


def log_sum(logs: Sequence[float]) -> float:
    """log Σ exp, -inf for none."""
    if not logs:
        return -math.inf
    largest = max(logs)
    return largest + math.log(math.fsum(math.exp(value - largest) for value in logs))


def chosen_fields(choices: Mapping[str, float]) -> Fields:
    """A row's fields from the log-probability of each label: the most likely one, all of them, the mass."""
    best = max(choices, key=choices.__getitem__)
    return {
        "model_output": best,
        "predicted_output": best,
        "choices": {label: round(value, DIGITS) for label, value in choices.items()},
        "label_mass": round(sum(map(math.exp, choices.values())), DIGITS),
    }


@dataclass(frozen=True, slots=True)
class TooLong:
    """A server's refusal of a conversation that its context does not hold, instead of an answer."""

    reason: str


class Generator(Protocol):
    """Generator of answers to conversations: the model in this process, vLLM or a server."""

    def plan(self, talks: Mapping[int, Messages], longest: int, /) -> Plan:
        """Put the rows into batches. Rows that do not fit get a reason."""

    def generate(self, talks: Sequence[Messages], max_new_tokens: int) -> Sequence[str | TooLong]:
        """Answer each conversation. The last turn of each is the user's."""


def generating(generator: Generator, talks: Mapping[int, Messages], max_new_tokens: int) -> Scorer:
    """Scorer that generates an answer to each conversation: the whole text, with the thought."""

    def score(batch: Sequence[int]) -> list[Fields]:
        answers = generator.generate([talks[row] for row in batch], max_new_tokens)
        fields: list[Fields] = []
        for answer in answers:
            if isinstance(answer, TooLong):
                fields.append({"too_long": answer.reason})
            else:
                fields.append({"model_output": answer})
        return fields

    return Scorer(*generator.plan(talks, max_new_tokens), score)


def score_in_halves(scorer: Scorer, batch: Sequence[int]) -> list[Fields]:
    """Score a batch; out of memory, score its halves. `RequestError` if a single row does not fit."""
    try:
        return scorer.score(batch)
    except RuntimeError as error:
        if type(error).__name__ != "OutOfMemoryError" and "can't allocate memory" not in str(error):
            raise
        if len(batch) == 1:
            raise RequestError(f"row {batch[0]}: out of memory with a single prompt") from error
    middle = len(batch) // 2
    return score_in_halves(scorer, batch[:middle]) + score_in_halves(scorer, batch[middle:])


def score_all(scorer: Scorer, about: str) -> dict[int, Fields]:
    """Score every row that fits, with a progress bar. Fields by row, in the order of rows."""
    from tqdm import tqdm

    fields: dict[int, Fields] = {}
    try:
        for batch in tqdm(scorer.batches, desc=about, delay=2, leave=False):
            fields.update(zip(batch, score_in_halves(scorer, batch), strict=True))
    finally:
        scorer.release()
    return dict(sorted(fields.items()))


def prompts_too_long(prompts: Prompts, answer: int, context: int) -> dict[int, str]:
    """Reasons by row for prompts that leave less than `answer` tokens; `ContentError` if no prompt fits."""
    too_long = {}
    for row, ids in prompts.items():
        if len(ids) + answer > context:
            too_long[row] = (
                f"a prompt of {len(ids)} tokens and {answer} for the answer, a context of {context}"
            )
    if len(too_long) == len(prompts):
        raise ContentError(f"no prompt fits: {next(iter(too_long.values()))}")
    return too_long


def tokenise(
    tokenizer: "PreTrainedTokenizerBase", ends: Sequence[int], spellings: Mapping[str, Sequence[str]]
) -> tuple[dict[str, list[int]], list[list[int]]]:
    """Tokenise all spellings; each label's places among them, and the ids. `ends` are the end tokens.

    `RequestError` if two labels share a spelling.
    """
    owners: dict[tuple[int, ...], str] = {}
    for label, texts in spellings.items():
        for text in texts:
            ids = tuple(tokenizer(text, add_special_tokens=False)["input_ids"])
            if owners.setdefault(ids, label) != label:
                raise RequestError(
                    f"{label!r} and {owners[ids]!r} share the spelling {text!r}: --variants none"
                )
    # A spelling is never less likely than a longer one that begins with it.
    # Then each spelling is scored together with the tokens that end an answer.
    if any(one != other and other[: len(one)] == one for one in owners for other in owners):
        ended = {}
        for ids, label in owners.items():
            for end in ends:
                ended[(*ids, end)] = label
        owners = ended or owners
    columns: dict[str, list[int]] = {label: [] for label in spellings}
    for place, label in enumerate(owners.values()):
        columns[label].append(place)
    return columns, [list(ids) for ids in owners]
