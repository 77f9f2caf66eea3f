"""Log-probabilities of fixed answers after each prompt: one forward pass per prompt and label beginning.

The batches are planned over all prompts beforehand (longest first, within a budget of tokens), the
beginning that all prompts share is computed once, and the head is applied to the positions that
matter alone: with the whole vocabulary there, so that the probabilities are true ones.
"""

import contextlib
import copy
import itertools
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch

    from eval.backends.load import Model

Ids = Sequence[int]
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


@dataclass(frozen=True, slots=True)
class SpellingTask:
    """Prompts by row, and the spellings (token ids, none empty) to be scored after each of them.

    `images` are the files that a row's prompt has placeholders for.
    """

    prompts: Mapping[int, Ids]
    spellings: Sequence[Ids]
    images: Mapping[int, Sequence[str]] = field(default_factory=dict)

    def batches(self, budget: int) -> list[list[int]]:
        """Return the plan over all rows: it depends on nothing but the task and the budget."""
        extra = max(map(len, self.spellings)) - 1 - shared_prefix(self.prompts.values())
        return plan_batches({row: len(ids) + extra for row, ids in self.prompts.items()}, budget)


class LogProbabilities:
    """Scores batches of a task with a model; made anew whenever the model's weights change."""

    def __init__(self, model: "Model", task: SpellingTask) -> None:
        self.model = model
        self.task = task
        self.beginnings = beginnings(task.spellings)
        self.shared = 0 if model.alone else shared_prefix(task.prompts.values())
        self.cache = self._shared_cache()

    def score(self, batch: Sequence[int]) -> "torch.Tensor":
        """Return fp32 log-probabilities [rows of the batch, spellings] on the CPU."""
        import torch

        scores = torch.zeros(len(batch), len(self.task.spellings))
        done: set[int] = set()
        with torch.inference_mode():
            for begin in self.beginnings:
                ready = [
                    s for s, ids in enumerate(self.task.spellings)
                    if s not in done and tuple(ids[:-1]) == begin[: len(ids) - 1]
                ]  # fmt: skip
                depth = max(len(self.task.spellings[s]) for s in ready)
                logits = self._logits(batch, begin[: depth - 1])
                for s in ready:
                    ids = self.task.spellings[s]
                    scores[:, s] = logits[:, range(len(ids)), ids].sum(1).cpu()
                done.update(ready)
        return scores

    def _logits(self, batch: Sequence[int], begin: tuple[int, ...]) -> "torch.Tensor":
        """Return log-probabilities [rows, len(begin) + 1, vocabulary] from the prompt's last token on."""
        import torch

        rows = [[*self.task.prompts[i][self.shared :], *begin] for i in batch]
        width = max(map(len, rows))
        # Padding on the right is never seen by the tokens before it: no mask is needed.
        ids = torch.tensor([row + [0] * (width - len(row)) for row in rows], device=self.model.device)
        last = torch.tensor([len(row) - 1 - len(begin) for row in rows])
        wanted = (last[:, None] + torch.arange(len(begin) + 1)).to(self.model.device)
        each = torch.arange(len(rows), device=self.model.device)[:, None]
        vision, kept = self.model.vision, {}
        seen = vision.inputs(rows[0], self.task.images.get(batch[0], ())) if vision else {}  # a row is alone
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
        ids = torch.tensor(
            [list(next(iter(self.task.prompts.values())))[: self.shared]], device=self.model.device
        )
        with torch.inference_mode(), head_only_at(self.model.net, ids.new_zeros(1), ids.new_zeros(1)):
            cache = self.model.net(input_ids=ids, use_cache=True).past_key_values
        if all(type(layer) is DynamicLayer for layer in cache.layers):
            return cache
        self.shared = 0  # windows and recurrent states cannot be continued by rows of other lengths
        return None


@contextlib.contextmanager
def head_only_at(net: Any, rows: "torch.Tensor", positions: "torch.Tensor") -> Iterator[None]:
    """Let the head see k states alone, as one contiguous block [k, hidden].

    `rows` and `positions` say which, as indices that broadcast to k. What a model does to its logits
    afterwards (caps, scales) still happens, whatever its architecture.
    """

    def pick(_: object, inputs: "tuple[torch.Tensor, ...]") -> "torch.Tensor":
        return inputs[0][rows, positions].reshape(-1, inputs[0].shape[-1]).contiguous()

    handle = net.get_output_embeddings().register_forward_pre_hook(pick)
    try:
        yield
    finally:
        handle.remove()
