"""Which prompt a model is asked with: the one its adapter was trained with.

`--template NAME` renders LLaMA-Factory's template; else the chat template saved beside the adapter,
else the base tokenizer's, else plain text.
"""

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from core.prompt import Encode, chat_encoder, llamafactory_encoder, saved_chat_template

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


@dataclass(frozen=True, slots=True)
class Prompting:
    """How messages become ids, where that comes from, and a hash that says when it changes."""

    encode: Encode
    source: str
    digest: str


def choose_prompting(
    tokenizer: "PreTrainedTokenizerBase", adapter: Path | None, template: str | None, think: bool = False
) -> Prompting:
    """Return the prompting of a model with an adapter folder (None for the base itself).

    `RequestError` if LLaMA-Factory has no template of that name.
    """
    if template:
        return _named(
            llamafactory_encoder(tokenizer, template, think), f"LLaMA-Factory template {template}", template
        )
    beside = saved_chat_template(adapter) if adapter else None
    if adapter and beside:
        return _named(chat_encoder(tokenizer, beside, think), f"chat template of {adapter}", beside)
    own = tokenizer.chat_template
    if isinstance(own, str):
        return _named(chat_encoder(tokenizer, own, think), "chat template of the tokenizer", own)
    return _named(chat_encoder(tokenizer, None), "plain text (no chat template)", "")


def _named(encode: Encode, source: str, text: str) -> Prompting:
    return Prompting(encode, source, hashlib.sha256(text.encode()).hexdigest())
