"""Greedy answers, several prompts at a time, and sampled ones."""

import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from core.errors import ContentError
from core.prompt import Encode
from eval.backends.score import plan_batches
from eval.backends.scorers import Messages, Plan, refuse
from eval.backends.stream import Sampling

if TYPE_CHECKING:
    from eval.backends.load import Model


@dataclass(frozen=True, slots=True)
class LocalGenerator:
    """A model in this process as a Generator: how it reads a conversation, and tokens per batch."""

    model: "Model"
    encode: Encode
    budget: int
    sampling: Mapping[str, float] | None = None
    """How tokens are drawn, in the words of transformers' `generate`; None: the likeliest is taken."""

    def plan(self, talks: Mapping[int, Messages], max_new_tokens: int) -> Plan:
        """Return batches of rows, longest first, and why the others do not fit the context."""
        prompts = {row: self.encode(talk) for row, talk in talks.items()}
        refused = refuse(prompts, max_new_tokens, self.model.context)
        lengths = {row: len(ids) + max_new_tokens for row, ids in prompts.items() if row not in refused}
        # one by one where they are drawn: an answer then depends on its own prompt alone
        return plan_batches(lengths, self.budget if self.sampling is None else 1), refused

    def generate(self, talks: Sequence[Messages], max_new_tokens: int) -> list[str]:
        """Return the answer to each conversation."""
        prompts = [self.encode(talk) for talk in talks]
        if self.sampling is None:
            return generate(self.model, prompts, max_new_tokens)
        return [draw(self.model, prompt, max_new_tokens, self.sampling) for prompt in prompts]


def draw(model: "Model", prompt: Sequence[int], max_new_tokens: int, sampling: Mapping[str, float]) -> str:
    """Return a sampled answer to a prompt (ids): the same in every run, whatever was drawn before."""
    import torch

    torch.manual_seed(zlib.crc32(" ".join(map(str, prompt)).encode()))
    return generate(model, [prompt], max_new_tokens, sampling)[0]


def generate(
    model: "Model",
    prompts: Sequence[Sequence[int]],
    max_new_tokens: int,
    sampling: Mapping[str, float] | None = None,
) -> list[str]:
    """Return the model's answer to each prompt (ids), greedy without `sampling`, special tokens left out.

    Prompts are padded on the left, so that every answer begins right after its prompt. `ContentError` if
    the model's logits are no numbers.
    """
    import torch

    def check(_: "torch.Tensor", logits: "torch.Tensor") -> "torch.Tensor":
        if logits.isnan().any():
            raise ContentError(
                "the model gives nan as a logit: its weights or the adapter's overflow; try --dtype fp32"
            )
        return logits

    width = max(map(len, prompts))
    pad = model.net.generation_config.pad_token_id or 0
    ids = torch.tensor([[pad] * (width - len(p)) + list(p) for p in prompts], device=model.device)
    mask = torch.tensor([[0] * (width - len(p)) + [1] * len(p) for p in prompts], device=model.device)
    with torch.inference_mode():
        out = model.net.generate(
            input_ids=ids,
            attention_mask=mask,
            logits_processor=[check],
            **Sampling(max_new_tokens, sampling or {}).arguments(),
        )
    answers: list[str] = model.tokenizer.batch_decode(out[:, width:], skip_special_tokens=True)
    return answers
