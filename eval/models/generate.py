"""Generate answers with a model in this process: a batch of prompts, or one answer token by token."""

import re
import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from tuneyard.core.errors import ContentError, RequestError
from tuneyard.core.language.message import _
from tuneyard.eval.models import Backend, Network

if TYPE_CHECKING:
    import torch


Sampling = Mapping[str, float]
"""How tokens are drawn: keyword arguments of transformers' `generate`."""
DRAWING = ("temperature", "top_p", "top_k", "min_p")
PRESETS = {
    "document": {"temperature": 0.8, "top_p": 0.9, "repetition_penalty": 1.3, "no_repeat_ngram_size": 3}
}
"""Settings of a chat by name; scoring with a preset draws as the model's own generation_config says.

`document`: the guide of the 7B QLoRA recipe for a chat, that of RTE and MNLI for scoring.
"""
PRESET_TOKENS = 512  # the longest answer with a preset
DECODING = {"skip_special_tokens": True, "clean_up_tokenization_spaces": False}
"""Answers have their own spaces: the clean-up of some tokenizers turns `a != b` into `a!= b`."""
WITH_SPECIAL_TOKENS = {**DECODING, "skip_special_tokens": False}
THOUGHT = re.compile(r"<think>.*?(?:</think>|\Z)", re.DOTALL)
STOP, LENGTH = "stop", "length"
BEGUN = re.compile(r"<(?:t(?:h(?:i(?:nk?)?)?)?)?\Z")  # a part of <think> at the end


@dataclass(frozen=True, slots=True)
class Generated:
    """An answer, and why it ended: `stop` (an end token or stop word), `length`, or a server's own word.

    `finish` is None if a server names no reason.
    """

    text: str
    finish: str | None


def choose_sampling(model: Network, preset: str | None, options: Mapping[str, float | None]) -> Sampling:
    """Settings of a chat. The user's options override those of the preset, or without one the model's."""
    defaults = PRESETS[preset] if preset else model.sampling
    overrides = {name: value for name, value in options.items() if value is not None}
    return {**defaults, **overrides}


def drawing(sampling: Sampling) -> dict[str, Any]:
    """Arguments of transformers' `generate` for some settings. Without a temperature it is greedy."""
    if sampling.get("temperature"):
        return {"do_sample": True, **sampling}
    penalties = {name: value for name, value in sampling.items() if name not in DRAWING}
    return {"do_sample": False, **penalties}


def draw(
    model: Network,
    prompt: Sequence[int],
    max_new_tokens: int,
    sampling: Sampling,
    seed: int | None = None,
) -> str:
    """Sample an answer to a prompt (ids). Every run gives the same answer, in any order of the prompts.

    torch's seed depends on the prompt and on `seed`.
    """
    import torch

    key = " ".join(map(str, prompt))
    if seed is not None:
        key = f"{key} seed {seed}"
    torch.manual_seed(zlib.crc32(key.encode()))
    return generate(model, [prompt], max_new_tokens, sampling)[0].text


def generate(
    model: Network,
    prompts: Sequence[Sequence[int]],
    max_new_tokens: int,
    sampling: Sampling | None = None,
) -> list[Generated]:
    """Answer prompts (ids) in one batch, padded left. Greedy without `sampling`; `ContentError` for nan."""
    import torch

    ends = list(model.ends)

    def check(_ids: "torch.Tensor", logits: "torch.Tensor") -> "torch.Tensor":
        if logits.isnan().any():
            raise ContentError(
                _("the model gives nan as a logit: its weights or the adapter's overflow; try --dtype fp32")
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
            max_new_tokens=max_new_tokens,
            eos_token_id=ends,
            **drawing(sampling or {}),
        )
    answers = []
    for tokens in out[:, width:].tolist():
        end_places = [place for place, token in enumerate(tokens) if token in ends]
        finish = LENGTH
        if end_places:
            finish, tokens = STOP, tokens[: end_places[0]]
        answers.append(Generated(decode_answer(model, tokens), finish))
    return answers


def decode_answer(backend: Backend, tokens: Sequence[int]) -> str:
    """The text of an answer's tokens, without the token that ends it."""
    decoding = WITH_SPECIAL_TOKENS if backend.special_tokens else DECODING
    text: str = backend.tokenizer.decode(tokens, **decoding)
    return text


def stream(
    model: Network,
    prompt: Sequence[int],
    max_new_tokens: int,
    sampling: Sampling,
    show: Callable[[str], None],
) -> None:
    """Generate an answer and pass each new piece of text to `show`.

    `RequestError` if out of memory, `ContentError` for nan.
    """
    import torch
    from transformers import TextStreamer

    class Pieces(TextStreamer):  # type: ignore[misc]  # transformers comes without types
        def on_finalized_text(self, text: str, stream_end: bool = False) -> None:  # noqa: ARG002
            show(text)

    ids = torch.tensor([list(prompt)], device=model.device)
    try:
        with torch.inference_mode():
            model.net.generate(
                input_ids=ids,
                attention_mask=torch.ones_like(ids),
                streamer=Pieces(model.tokenizer, skip_prompt=True, **DECODING),
                max_new_tokens=max_new_tokens,
                eos_token_id=list(model.ends),
                **drawing(sampling),
            )
    except torch.OutOfMemoryError as error:
        raise RequestError(_("out of memory with a prompt of {number} tokens", number=len(prompt))) from error
    except RuntimeError as error:
        if "probability tensor" not in str(error):
            raise
        raise ContentError(_("the model's probabilities are no numbers: try --dtype fp32")) from error


def without_thoughts(text: str, ended: bool = False) -> str:
    """Remove thoughts from an answer. Until it has `ended`, a possible beginning of `<think>` waits too.

    >>> without_thoughts("<think>easy</think>Yes <th")
    'Yes '
    """
    visible = THOUGHT.sub("", text)
    if not ended:
        visible = BEGUN.sub("", visible)
    return visible.lstrip()
