"""Is every turn of a conversation trained after the text that the model's chat template writes before it?

A server writes the whole conversation anew at each turn. Its chat template may write an earlier answer in
another way than LLaMA-Factory's template in training: Qwen3's leaves earlier thoughts out, for example, and
the training keeps them. This file compares both turn by turn. `history_findings` does so with
the rows of a dataset.

A turn is a question and its answer. A call of a tool is an answer, its result the next question.
"""

from collections.abc import Mapping, Sequence
from itertools import takewhile
from operator import eq
from typing import Any, NamedTuple

from tuneyard.core.llamafactory.loader import RecipeData
from tuneyard.core.llamafactory.prompt import Ids, Messages
from tuneyard.core.llamafactory.prompt.served_template import TemplateRefusalError
from tuneyard.core.records import PLACEHOLDERS

MOST_TURNS = 4
"""Answers of a conversation that are compared, the first ones of a longer conversation."""
MOST_KINDS = 64
"""Conversations that are compared at most. Each is the first row of its kind."""
BATCH = 1000
AROUND = 20, 60
"""Characters of a text that are printed before and after the first difference."""
MEDIA = [f"_{kind}" for kind in PLACEHOLDERS]


class TrainedConversation(NamedTuple):
    """A conversation in LLaMA-Factory's roles that ends with an answer, and its `place`, such as `row 3`."""

    place: str
    messages: Messages
    system: str = ""
    tools: str = ""

    @property
    def has_tools(self) -> bool:
        """True if it has tools or calls."""
        return bool(self.tools) or any(message["role"] == "function" for message in self.messages)

    @property
    def turns(self) -> int:
        """The number of its answers."""
        return len(self.messages) // 2

    def before(self, turn: int) -> Messages:
        """What a server gets for the answer of a turn, counted from 1: the messages before it."""
        messages: Messages = list(self.messages[: 2 * turn - 1])
        if self.system:
            messages.insert(0, {"role": "system", "content": self.system})
        if self.tools:
            messages[0] = {**messages[0], "tools": self.tools}
        return messages


class TurnPrompt(NamedTuple):
    """What a training writes before the answer of a turn, counted from 1, and the answer."""

    turn: int
    prompt: str
    answer: str


class TurnDifference(NamedTuple):
    """The first turn that is served after another text than in training, with both texts around the place.

    `refusal` is the reason for which the chat template refuses the turn.
    """

    conversation: TrainedConversation
    turn: int
    trained: str = ""
    served: str = ""
    refusal: str = ""


def trained_prompts(data: RecipeData, conversation: TrainedConversation) -> list[TurnPrompt]:
    """The turns of a conversation that a training learns, as LLaMA-Factory's processors write them.

    With `mask_history`, and in the stages of preferences, it learns the last one alone.
    """
    tokenizer, messages = data.module["tokenizer"], conversation.messages
    system, tools = conversation.system or None, conversation.tools or None
    if data.stage != "sft":
        prompt, answer = data.template.encode_oneturn(tokenizer, messages, system, tools)
        return [TurnPrompt(conversation.turns, decoded(tokenizer, prompt), decoded(tokenizer, answer))]
    masked = bool(data.data_args.mask_history)
    discards = masked and not data.template.preserve_thinking
    pairs = data.template.encode_multiturn(tokenizer, messages, system, tools, discards)
    turns = []
    before: Ids = []
    for turn, (prompt, answer) in enumerate(pairs, 1):
        if not masked or turn == len(pairs):
            text = decoded(tokenizer, [*before, *prompt])
            turns.append(TurnPrompt(turn, text, decoded(tokenizer, answer)))
        before += [*prompt, *answer]
    return turns


def decoded(tokenizer: Any, ids: Sequence[int]) -> str:
    """The text of token ids, with special tokens, spaces as they are."""
    present = [token for token in ids if token is not None]  # None: a token of another model's template
    return str(tokenizer.decode(present, skip_special_tokens=False, clean_up_tokenization_spaces=False))


def is_continued(prompt: str, answer: str, served: str) -> bool:
    """True if an answer is served after the text after which it is trained.

    The served text may have the beginning of the answer, such as `<think>` of models that always think.
    """
    return served.startswith(prompt) and answer.startswith(served[len(prompt) :])


def first_difference(data: RecipeData, conversation: TrainedConversation) -> TurnDifference | None:
    """Find the first turn that is trained and served after different texts. None if there is none.

    A refusal of the chat template is a difference as well. Errors of LLaMA-Factory (`expected_errors`) on a
    conversation that it cannot write pass through.
    """
    tokenizer, served = data.module["tokenizer"], data.served
    if served is None:
        raise ValueError("a model without a chat template serves no conversations")
    for turn, prompt, answer in trained_prompts(data, conversation):
        try:
            texts = list(served.prompts(tokenizer, conversation.before(turn)))
        except TemplateRefusalError as error:
            return TurnDifference(conversation, turn, refusal=str(error))
        texts = [decoded(tokenizer, tokenizer.encode(text, add_special_tokens=False)) for text in texts]
        if any(is_continued(prompt, answer, text) for text in texts):
            continue
        places = {text: equal_length(prompt + answer, text) for text in texts}
        nearest = max(texts, key=places.__getitem__)
        place = min(places[nearest], len(prompt))
        return TurnDifference(conversation, turn, _around(prompt, place), _around(nearest, place))
    return None


def equal_length(one: Sequence[object], other: Sequence[object]) -> int:
    """The number of items, or of characters, that two sequences begin with alike."""
    return sum(takewhile(bool, map(eq, one, other)))


def _around(text: str, place: int) -> str:
    before, after = AROUND
    return text[max(0, place - before) : place + after]


def conversations_of(data: RecipeData, rows: Any, dataset: str) -> list[TrainedConversation]:
    """The first row of each kind among rows of LLaMA-Factory's loader.

    Rows are of a kind if they have thoughts, calls, tools, a system text, and white space around texts at the
    same turns. Rows with media are left out, and those that LLaMA-Factory drops.
    """
    thought_tokens = [token.strip() for token in data.template.thought_words]
    conversations: dict[object, TrainedConversation] = {}
    for start in range(0, len(rows), BATCH):
        batch = rows[start : start + BATCH]
        for number in range(len(batch["_prompt"])):
            place = f"row {start + number + 1} of {dataset}"
            conversation = _conversation(batch, number, place, has_answers=data.stage != "ppo")
            if conversation is None:
                continue
            kind = [bool(conversation.system), bool(conversation.tools)]
            for message in conversation.messages:
                kind.append(message["role"] == "function")
                kind.append(any(token in message["content"] for token in thought_tokens))
                kind.append(message["content"] != message["content"].strip())
            if len(conversations) < MOST_KINDS:
                conversations.setdefault(tuple(kind), conversation)
    return list(conversations.values())


def _conversation(
    batch: Mapping[str, Any], number: int, place: str, *, has_answers: bool
) -> TrainedConversation | None:
    """A row's first turns, None if LLaMA-Factory drops the row or it has media."""
    prompt, answers = batch["_prompt"][number], batch["_response"][number]
    if has_answers and (not answers or any(not isinstance(each["content"], str) for each in answers)):
        return None
    if len(prompt) % 2 != 1 or any(batch[kind][number] for kind in MEDIA):
        return None
    chosen = [answer for answer in answers if answer["content"]][:1]  # KTO: an empty one is beside it
    messages = [*prompt, *(chosen or [{"role": "assistant", "content": ""}])][: 2 * MOST_TURNS]
    texts = [message["content"] for message in messages]
    if any(not isinstance(text, str) for text in texts):
        return None
    if any(placeholder in text for text in texts for placeholder in PLACEHOLDERS.values()):
        return None
    plain = [{"role": message["role"], "content": message["content"]} for message in messages]
    return TrainedConversation(place, plain, batch["_system"][number] or "", batch["_tools"][number] or "")
