"""Supervision of a conversation: its token ids, and the labels with the loss mask.

It follows LLaMA-Factory 0.9.5 (data/processor). Question and answer of each turn are tokenised separately.
Answers carry loss, with their end of turn. Both are cut to `cutoff_len`.
tests/integration/test_supervision.py compares the two.
"""

from collections.abc import Callable
from typing import NamedTuple

from tuneyard.core.errors import ContentError
from tuneyard.core.llamafactory.prompt import (
    Ids,
    Messages,
    Render,
    Tokenizer,
    TrainedHistory,
    llamafactory_messages,
    llamafactory_template,
)
from tuneyard.core.records import ANSWERS

IGNORED = -100  # PyTorch's cross-entropy leaves these labels out


class EncodedConversation(NamedTuple):
    """Question and answer of every turn as ids. `stop` follows the last answer and is not in the history."""

    pairs: list[tuple[Ids, Ids]]
    stop: int | None = None


class SupervisedText(NamedTuple):
    """Ids and labels of one record. Masked labels are `IGNORED`; `length` counts tokens before the cut.

    `images` are the files of the placeholders in the ids.
    """

    ids: Ids
    labels: list[int]
    length: int
    images: tuple[str, ...] = ()

    @property
    def cut(self) -> bool:
        """True if tokens were cut off."""
        return self.length > len(self.ids)

    @property
    def learned(self) -> list[int]:
        """Positions of the loss tokens. The first token has no token before it and carries no loss."""
        return [position for position, label in enumerate(self.labels) if position and label != IGNORED]


EncodeConversation = Callable[[Messages], EncodedConversation]  # of messages that end with an answer


def chat_turns(tokenizer: Tokenizer, render: Render, messages: Messages) -> EncodedConversation:
    """Turns of messages as a `chat_renderer` writes them. `ContentError` if an answer changes its prompt."""
    pairs, before = [], ""
    for position, message in enumerate(messages):
        if message["role"] in ANSWERS:
            prompt = render(messages[:position], True)
            with_answer = render(messages[: position + 1], False)
            question = tokenizer(_after(before, prompt), add_special_tokens=False)
            answer = tokenizer(_after(prompt, with_answer), add_special_tokens=False)
            pairs.append((list(question["input_ids"]), list(answer["input_ids"])))
            before = with_answer
    return EncodedConversation(pairs)


def llamafactory_turns(
    tokenizer: Tokenizer, name: str, think: bool = False, history: TrainedHistory | None = None
) -> EncodeConversation:
    """Converter by LLaMA-Factory's template `name`: messages → turns. The import takes about 10 s.

    Earlier turns are written as in the training with this `history`, otherwise as the last one.
    """
    template, adapted_tokenizer = llamafactory_template(tokenizer, name, think)

    def turns(messages: Messages) -> EncodedConversation:
        turn_messages, system, tools = llamafactory_messages(messages)
        stop = adapted_tokenizer.eos_token_id if template.efficient_eos else None
        if history is not None:
            return EncodedConversation(history.pairs(template, adapted_tokenizer, messages), stop)
        return EncodedConversation(
            template.encode_multiturn(adapted_tokenizer, turn_messages, system, tools), stop
        )

    return turns


def supervise(turns: EncodedConversation, cutoff: int) -> SupervisedText:
    """Join turns to ids and labels of at most `cutoff` tokens, as LLaMA-Factory does."""
    ids: Ids = []
    labels: list[int] = []
    end = [] if turns.stop is None else [turns.stop]
    for source, target in turns.pairs:
        room = cutoff - len(ids) - len(end)
        if room <= 0:
            break
        source_length, target_length = _fit(len(source), len(target), room)
        stop_of_last_turn = end if ids else []
        labels += [*stop_of_last_turn, *[IGNORED] * source_length][:source_length] + target[:target_length]
        ids += source[:source_length] + target[:target_length]
    length = sum(len(source) + len(target) for source, target in turns.pairs) + len(end)
    return SupervisedText(ids + end, labels + end, length)


def supervise_text(tokenizer: Tokenizer, text: str, cutoff: int) -> SupervisedText:
    """Ids and labels of a pretraining text cut to `cutoff` tokens. Every token and the end carry loss."""
    begin = tokenizer.bos_token if getattr(tokenizer, "add_bos_token", False) else ""
    whole = f"{begin}{text}{tokenizer.eos_token or ''}"
    ids = list(tokenizer(whole, add_special_tokens=False)["input_ids"])
    return SupervisedText(ids[:cutoff], ids[:cutoff], len(ids))


def _fit(source: int, target: int, room: int) -> tuple[int, int]:
    """Lengths of question and answer after the cut to `room`: the shorter one whole, otherwise by share."""
    if target * 2 < room:
        most = room
    elif source * 2 < room:
        most = room - source
    else:
        most = int(room * (target / max(source + target, 1)))
    kept = min(target, most)
    return min(source, max(room - kept, 0)), kept


def _after(begin: str, text: str) -> str:
    if not text.startswith(begin):
        raise ContentError(
            "the chat template writes a turn otherwise once it is answered, so that its loss cannot be "
            "told; name LLaMA-Factory's template with --template NAME"
        )
    return text[len(begin) :]
