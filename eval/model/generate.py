"""Greedy answers, several prompts at a time."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from eval.model.load import Model


def generate(model: "Model", prompts: Sequence[Sequence[int]], max_new_tokens: int) -> list[str]:
    """Return the model's greedy answer to each prompt (ids), special tokens left out.

    Prompts are padded on the left, so that every answer begins right after its prompt.
    """
    import torch

    width = max(map(len, prompts))
    pad = model.net.generation_config.pad_token_id or 0
    ids = torch.tensor([[pad] * (width - len(p)) + list(p) for p in prompts], device=model.device)
    mask = torch.tensor([[0] * (width - len(p)) + [1] * len(p) for p in prompts], device=model.device)
    with torch.inference_mode():
        out = model.net.generate(
            input_ids=ids, attention_mask=mask, do_sample=False, max_new_tokens=max_new_tokens
        )
    answers: list[str] = model.tokenizer.batch_decode(out[:, width:], skip_special_tokens=True)
    return answers
