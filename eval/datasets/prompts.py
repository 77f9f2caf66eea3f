"""Which prompt a model is given: the one its adapter was trained with.

`--template NAME` renders LLaMA-Factory's template; else the chat template saved beside the adapter,
else the base tokenizer's, else plain text.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from core.errors import RequestError
from core.prompt import (
    Encode,
    Message,
    chat_encoder,
    chat_renderer,
    llamafactory_encoder,
    saved_chat_template,
)
from core.supervision import ToTurns, Turns, chat_turns, llamafactory_turns

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

PLAIN = "plain text (no chat template)"
WITHOUT_BOS = f"{PLAIN} without the tokenizer's BOS"
AFTER_BOS = f"{PLAIN} after BOS"


@dataclass(frozen=True, slots=True)
class Prompting:
    """How messages become ids, to be asked or to be learned from, where that comes from, and a hash of it."""

    encode: Encode
    turns: ToTurns
    source: str
    digest: str


def choose_prompting(
    tokenizer: "PreTrainedTokenizerBase",
    adapters: Sequence[Path],
    template: str | None,
    think: bool = False,
    bos: bool = False,
) -> Prompting:
    """Return the prompting of a model with some adapter folders (none for the base itself).

    Plain text begins with the tokenizer's BOS if `bos`. `RequestError` if there is none, LLaMA-Factory has no
    template of that name, or the adapters have different ones.
    """
    if template:
        encode = llamafactory_encoder(tokenizer, template, think)
        turns = llamafactory_turns(tokenizer, template, think)
        return Prompting(encode, turns, f"LLaMA-Factory template {template}", _hash(template))
    own = tokenizer.chat_template if isinstance(tokenizer.chat_template, str) else None
    beside = {folder: saved_chat_template(folder) for folder in adapters}
    if len({saved or own for saved in beside.values()}) > 1:
        named = ", ".join(map(str, adapters))
        raise RequestError(f"{named} were trained with different chat templates: name one with --template")
    source = "chat template of the tokenizer" if own else WITHOUT_BOS if _adds_bos(tokenizer) else PLAIN
    text = own
    for folder, saved in beside.items():
        if saved:
            source, text = f"chat template of {folder}", saved
    turns = chat_turns(tokenizer, chat_renderer(tokenizer, text, think))
    prompting = Prompting(chat_encoder(tokenizer, text, think), turns, source, _hash(text or ""))
    return _after_bos(tokenizer, prompting) if bos and text is None else prompting


def _adds_bos(tokenizer: "PreTrainedTokenizerBase") -> bool:
    bos = tokenizer.bos_token_id
    return bos is not None and tokenizer("a")["input_ids"][0] == bos


def _after_bos(tokenizer: "PreTrainedTokenizerBase", plain: Prompting) -> Prompting:
    bos = tokenizer.bos_token_id
    if bos is None:
        raise RequestError("--bos: this tokenizer has no BOS token: leave it out")

    def turns(messages: list[Message]) -> Turns:
        told = plain.turns(messages)
        (source, target), *others = told.pairs
        return replace(told, pairs=[([bos, *source], target), *others])

    digest = _hash(str(tokenizer.bos_token))
    return Prompting(lambda messages: [bos, *plain.encode(messages)], turns, AFTER_BOS, digest)


def _hash(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
