"""Scoring a dataset: by the probabilities of labels, or by generating an answer.

All batches are planned beforehand, longest first, within a budget of tokens; of each row of a batch what is
known of its answer is returned. Labels take one forward pass per prompt and label beginning: the beginning
that all prompts share is computed once, and the head is applied to the positions that matter alone: with the
whole vocabulary there, so that the probabilities are true ones.
"""

import contextlib
import copy
import itertools
import math
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from tuneyard.core.errors import ContentError, RequestError
from tuneyard.core.prompt import Message
from tuneyard.eval.backends.load import Model

if TYPE_CHECKING:
    import torch

Ids = Sequence[int]
Prompts = Mapping[int, Ids]  # by row
Messages = list[Message]
Plan = tuple[list[list[int]], dict[int, str]]
"""The rows in batches, and why the others cannot be prompted, by row."""
Fields = dict[str, Any]
DIGITS = 6  # of a log-probability in the files: fp32 holds no more
SHORTEST_PREFIX = 8  # below this, continuing from a cache costs more than it saves


def shared_prefix(prompts: Collection[Ids]) -> int:
    """Return how many ids all prompts begin with, at least one left over for each; 0 if too few to gain."""
    low, high = min(map(tuple, prompts)), max(map(tuple, prompts))
    same = itertools.takewhile(lambda pair: pair[0] == pair[1], zip(low, high, strict=False))
    length = min(min(map(len, prompts)) - 1, sum(1 for _ in same))
    return length if length >= SHORTEST_PREFIX and len(prompts) > 1 else 0


def plan_batches(lengths: Mapping[int, int], budget: int) -> list[list[int]]:
    """Return the rows of `lengths` in batches, longest first, rows × longest within `budget`."""
    order = sorted(lengths, key=lambda row: (-lengths[row], row))
    batches = []
    while order:
        count = max(1, budget // max(1, lengths[order[0]]))
        batches.append(order[:count])
        order = order[count:]
    return batches


def beginnings(spellings: Sequence[Ids]) -> list[tuple[int, ...]]:
    """Return the label beginnings that need a pass of their own: each spelling but its last token,
    without those that another begins with (its pass reads their position too)."""
    all_of_them = {tuple(s[:-1]) for s in spellings}
    return sorted(x for x in all_of_them if not any(y != x and y[: len(x)] == x for y in all_of_them))


class LogProbabilities:
    """Scores spellings (token ids, none empty) after each prompt; made anew whenever the weights change."""

    def __init__(
        self,
        model: Model,
        prompts: Mapping[int, Ids],
        spellings: Sequence[Ids],
        images: Mapping[int, Sequence[str]] | None = None,
    ) -> None:
        """Prepare; `images` are the files that a row's prompt has placeholders for."""
        self.model, self.prompts, self.spellings, self.images = model, prompts, spellings, images or {}
        self.beginnings = beginnings(spellings)
        self.shared = 0 if model.alone else shared_prefix(prompts.values())
        self.cache = self._shared_cache()

    def batches(self, budget: int) -> list[list[int]]:
        """Return the plan over all rows: it depends on nothing but prompts, spellings and the budget."""
        extra = max(map(len, self.spellings)) - 1 - shared_prefix(self.prompts.values())
        return plan_batches({row: len(ids) + extra for row, ids in self.prompts.items()}, budget)

    def score(self, batch: Sequence[int]) -> "torch.Tensor":
        """Return fp32 log-probabilities [rows of the batch, spellings] on the CPU."""
        import torch

        scores = torch.zeros(len(batch), len(self.spellings))
        done: set[int] = set()
        with torch.inference_mode():
            for begin in self.beginnings:
                ready = [
                    s for s, ids in enumerate(self.spellings)
                    if s not in done and tuple(ids[:-1]) == begin[: len(ids) - 1]
                ]  # fmt: skip
                depth = max(len(self.spellings[s]) for s in ready)
                logits = self._logits(batch, begin[: depth - 1])
                for s in ready:
                    ids = self.spellings[s]
                    scores[:, s] = logits[:, range(len(ids)), ids].sum(1).cpu()
                done.update(ready)
        return scores

    def _logits(self, batch: Sequence[int], begin: tuple[int, ...]) -> "torch.Tensor":
        """Return log-probabilities [rows, len(begin) + 1, vocabulary] from the prompt's last token on."""
        import torch

        rows = [[*self.prompts[i][self.shared :], *begin] for i in batch]
        width = max(map(len, rows))
        # Padding on the right is never seen by the tokens before it: no mask is needed.
        ids = torch.tensor([row + [0] * (width - len(row)) for row in rows], device=self.model.device)
        last = torch.tensor([len(row) - 1 - len(begin) for row in rows])
        wanted = (last[:, None] + torch.arange(len(begin) + 1)).to(self.model.device)
        each = torch.arange(len(rows), device=self.model.device)[:, None]
        vision, kept = self.model.vision, {}
        seen = vision.inputs(rows[0], self.images.get(batch[0], ())) if vision else {}  # a row is alone
        if self.cache is not None:
            kept["past_key_values"] = copy.deepcopy(self.cache)
            kept["past_key_values"].batch_repeat_interleave(len(rows))
        with head_only_at(self.model.net, each, wanted):
            logits = self.model.net(input_ids=ids, use_cache=bool(kept), **kept, **seen).logits
        scores: torch.Tensor = logits.view(*wanted.shape, -1).float().log_softmax(-1)
        return scores

    def _shared_cache(self) -> Any:
        import torch
        from transformers.cache_utils import DynamicLayer

        if not self.shared:
            return None
        begin = list(next(iter(self.prompts.values())))[: self.shared]
        ids = torch.tensor([begin], device=self.model.device)
        with torch.inference_mode(), head_only_at(self.model.net, ids.new_zeros(1), ids.new_zeros(1)):
            cache = self.model.net(input_ids=ids, use_cache=True).past_key_values
        if all(type(layer) is DynamicLayer for layer in cache.layers):
            return cache
        self.shared = 0  # windows and recurrent states cannot be continued by rows of other lengths
        return None


@contextlib.contextmanager
def head_only_at(net: Any, rows: "torch.Tensor", positions: "torch.Tensor") -> Iterator[None]:
    """Let the head see k states alone, [k, hidden], at `rows` and `positions`, which broadcast to k."""

    def pick(_: object, inputs: "tuple[torch.Tensor, ...]") -> "torch.Tensor":
        return inputs[0][rows, positions].reshape(-1, inputs[0].shape[-1]).contiguous()

    handle = net.get_output_embeddings().register_forward_pre_hook(pick)
    try:
        yield
    finally:
        handle.remove()


@dataclass(frozen=True, slots=True)
class Scorer:
    """How a set is asked: in which batches of rows, why some rows cannot be, and what comes of a batch:
    `model_output` and what else is known of each row."""

    batches: list[list[int]]
    refused: dict[int, str]
    score: Callable[[Sequence[int]], list[Fields]]


def choosing(
    model: Model,
    prompts: Prompts,
    spellings: Mapping[str, Sequence[str]],
    budget: int,
    images: Mapping[int, Sequence[str]] | None = None,
) -> Scorer:
    """Return what compares the labels, each by the texts that count as it, after the prompts by row.

    Of each row the likeliest label, all log-probabilities and the label mass; `ContentError` for nan.
    """
    columns, tokens = tokenise(model, spellings)
    refused = refuse(prompts, max(map(len, tokens)) - 1, model.context)
    fitting = {row: ids for row, ids in prompts.items() if row not in refused}
    scorer = LogProbabilities(model, fitting, tokens, images)

    def score(batch: Sequence[int]) -> list[Fields]:
        scores = scorer.score(batch).double()
        for row, logs in zip(batch, scores.tolist(), strict=True):
            if not all(map(math.isfinite, logs)):
                raise ContentError(
                    f"row {row}: the model gives {logs[0]} as a log-probability: its weights or the "
                    "adapter's overflow; try --dtype fp32"
                )
        sums = {label: scores[:, own].logsumexp(1).tolist() for label, own in columns.items()}
        found = []
        for n in range(len(batch)):
            choices = {label: own[n] for label, own in sums.items()}
            best = max(choices, key=choices.__getitem__)
            rounded = {label: round(value, DIGITS) for label, value in choices.items()}
            mass = round(sum(map(math.exp, choices.values())), DIGITS)
            found.append(
                {"model_output": best, "predicted_output": best, "choices": rounded, "label_mass": mass}
            )
        return found

    return Scorer(scorer.batches(budget), refused, score)


class Generator(Protocol):
    """Who generates answers to conversations: the model in this process, or one behind a server."""

    def plan(self, talks: Mapping[int, Messages], longest: int, /) -> Plan:
        """Return the rows in batches, and why the others cannot be asked."""

    def generate(self, talks: Sequence[Messages], max_new_tokens: int) -> list[str]:
        """Return the greedy answer to each conversation, whose last turn is the user's."""


def generating(generator: Generator, talks: Mapping[int, Messages], max_new_tokens: int) -> Scorer:
    """Return what generates an answer to each conversation: the whole text, a thought included."""

    def score(batch: Sequence[int]) -> list[Fields]:
        texts = generator.generate([talks[row] for row in batch], max_new_tokens)
        return [{"model_output": text} for text in texts]

    return Scorer(*generator.plan(talks, max_new_tokens), score)


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


def score_all(scorer: Scorer, about: str) -> dict[int, Fields]:
    """Return what is known of every row that can be asked, in their order; a bar says what it is `about`."""
    from tqdm import tqdm

    found: dict[int, Fields] = {}
    for batch in tqdm(scorer.batches, desc=about, delay=2, leave=False):
        found.update(zip(batch, score_in_halves(scorer, batch), strict=True))
    return dict(sorted(found.items()))


def refuse(prompts: Prompts, answer: int, context: int) -> dict[int, str]:
    """Say why, of prompts that leave less than `answer` tokens of the context; `ContentError` if all do."""
    refused = {
        row: f"a prompt of {len(ids)} tokens and {answer} for the answer, a context of {context}"
        for row, ids in prompts.items()
        if len(ids) + answer > context
    }
    if len(refused) == len(prompts):
        raise ContentError(f"no prompt fits: {next(iter(refused.values()))}")
    return refused


def tokenise(
    model: Model, spellings: Mapping[str, Sequence[str]]
) -> tuple[dict[str, list[int]], list[list[int]]]:
    """Return each label's columns among all spellings, and their ids; `RequestError` for a shared one."""
    owners: dict[tuple[int, ...], str] = {}
    for label, texts in spellings.items():
        for text in texts:
            ids = tuple(model.tokenizer(text, add_special_tokens=False)["input_ids"])
            if owners.setdefault(ids, label) != label:
                raise RequestError(
                    f"{label!r} and {owners[ids]!r} share the spelling {text!r}: --variants none"
                )
    # a spelling that begins another is never less likely: all are followed by each token that ends an answer
    if any(one != other and other[: len(one)] == one for one in owners for other in owners):
        ends = model.net.generation_config.eos_token_id or []
        owners = {(*ids, end): label for ids, label in owners.items() for end in ends} or owners
    columns = {label: [i for i, owner in enumerate(owners.values()) if owner == label] for label in spellings}
    return columns, [list(ids) for ids in owners]
