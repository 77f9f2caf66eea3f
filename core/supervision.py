"""What training teaches from a conversation: token ids, and which of them carry loss.

As LLaMA-Factory 0.9.5 (data/processor): question and answer of each turn are tokenised by themselves, answers
carry loss with their end of turn, both are cut to `cutoff_len` (tests/integration/test_supervision.py).
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from tuneyard.core.errors import ContentError
from tuneyard.core.prompt import ANSWERS, Message, Render, llamafactory_messages, llamafactory_template

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

IGNORED = -100  # PyTorch's cross-entropy leaves these labels out


@dataclass(frozen=True, slots=True)
class Turns:
    """Question and answer of every turn as ids; `stop` is taught after an answer and not in the history."""

    pairs: list[tuple[list[int], list[int]]]
    stop: int | None = None


@dataclass(frozen=True, slots=True)
class SupervisedText:
    """Ids and labels of one record, `IGNORED` where nothing is learned; `length` before the cut.

    `images` are the files that the ids have placeholders for.
    """

    ids: list[int]
    labels: list[int]
    length: int
    images: tuple[str, ...] = ()

    @property
    def cut(self) -> bool:
        """Whether tokens were cut off."""
        return self.length > len(self.ids)

    @property
    def learned(self) -> list[int]:
        """The positions whose token is predicted from those before it and carries loss."""
        return [i for i, label in enumerate(self.labels) if i and label != IGNORED]


ToTurns = Callable[[list[Message]], Turns]  # of messages that end with an answer


def chat_turns(tokenizer: "PreTrainedTokenizerBase", render: Render) -> ToTurns:
    """Return messages → turns by a renderer; `ContentError` where an answer changes what was asked."""

    def turns(messages: list[Message]) -> Turns:
        pairs, before = [], ""
        for place, message in enumerate(messages):
            if message["role"] in ANSWERS:
                asked = render(messages[:place], True)
                answered = render(messages[: place + 1], False)
                pieces = (_after(before, asked), _after(asked, answered))
                source, target = (tokenizer(text, add_special_tokens=False)["input_ids"] for text in pieces)
                pairs.append((list(source), list(target)))
                before = answered
        return Turns(pairs)

    return turns


def llamafactory_turns(tokenizer: "PreTrainedTokenizerBase", name: str, think: bool = False) -> ToTurns:
    """Return messages → turns by LLaMA-Factory's own template `name` (imports it: about 10 s)."""
    template, own = llamafactory_template(tokenizer, name, think)

    def turns(messages: list[Message]) -> Turns:
        talk, system, tools = llamafactory_messages(messages)
        stop = own.eos_token_id if template.efficient_eos else None
        return Turns(template.encode_multiturn(own, talk, system, tools), stop)

    return turns


def supervise(turns: Turns, cutoff: int) -> SupervisedText:
    """Return what is learned of the turns within `cutoff` tokens."""
    ids: list[int] = []
    labels: list[int] = []
    end = [] if turns.stop is None else [turns.stop]
    for source, target in turns.pairs:
        room = cutoff - len(ids) - len(end)
        if room <= 0:
            break
        asked, answered = _fit(len(source), len(target), room)
        ended = end if ids else []
        labels += [*ended, *[IGNORED] * asked][:asked] + target[:answered]
        ids += source[:asked] + target[:answered]
    length = sum(len(source) + len(target) for source, target in turns.pairs) + len(end)
    return SupervisedText(ids + end, labels + end, length)


def supervise_text(tokenizer: "PreTrainedTokenizerBase", text: str, cutoff: int) -> SupervisedText:
    """Return what pretraining learns of a text within `cutoff` tokens: all of it, and where it ends."""
    begin = tokenizer.bos_token if getattr(tokenizer, "add_bos_token", False) else ""
    whole = f"{begin}{text}{tokenizer.eos_token or ''}"
    ids = list(tokenizer(whole, add_special_tokens=False)["input_ids"])
    return SupervisedText(ids[:cutoff], ids[:cutoff], len(ids))


def _fit(source: int, target: int, room: int) -> tuple[int, int]:
    """Return how many tokens of question and answer stay: the shorter one whole, else both by share."""
    most = int(room * (target / max(source + target, 1)))
    if target * 2 < room or source * 2 < room:
        most = room if target * 2 < room else room - source
    kept = min(target, most)
    return min(source, max(room - kept, 0)), kept


def _after(begin: str, text: str) -> str:
    if not text.startswith(begin):
        raise ContentError(
            "the chat template writes a turn otherwise once it is answered, so that its loss cannot be "
            "told; name LLaMA-Factory's template with --template NAME"
        )
    return text[len(begin) :]
