"""Greedy answers, several prompts at a time."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from core.errors import ContentError
from core.prompt import Encode
from eval.model.ask import Talk, refuse
from eval.model.score import plan_batches

if TYPE_CHECKING:
    from eval.model.load import Model


@dataclass(frozen=True, slots=True)
class Local:
    """A model in this process as a Speaker: how it reads a conversation, and tokens per batch."""

    model: "Model"
    encode: Encode
    budget: int

    def plan(self, talks: Mapping[int, Talk], max_new_tokens: int) -> tuple[list[list[int]], dict[int, str]]:
        """Return batches of rows, longest first, and why the others do not fit the context."""
        prompts = {row: self.encode(talk) for row, talk in talks.items()}
        refused = refuse(prompts, max_new_tokens, self.model.context)
        lengths = {row: len(ids) + max_new_tokens for row, ids in prompts.items() if row not in refused}
        return plan_batches(lengths, self.budget), refused

    def say(self, talks: Sequence[Talk], max_new_tokens: int) -> list[str]:
        """Return the greedy answer to each conversation."""
        return generate(self.model, [self.encode(talk) for talk in talks], max_new_tokens)


def generate(model: "Model", prompts: Sequence[Sequence[int]], max_new_tokens: int) -> list[str]:
    """Return the model's greedy answer to each prompt (ids), special tokens left out.

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
            do_sample=False,
            max_new_tokens=max_new_tokens,
            logits_processor=[check],
        )
    answers: list[str] = model.tokenizer.batch_decode(out[:, width:], skip_special_tokens=True)
    return answers
