"""Conversations (ShareGPT, OpenAI messages): reading, checks, and the answers that are learned."""

import re
from collections import Counter
from collections.abc import Container, Iterable, Mapping
from itertools import dropwhile, takewhile
from typing import Any, cast

from tuneyard.compiler.chat.message_forms import (
    ASSISTANT,
    CALL,
    IMAGES,
    OBSERVATION,
    ROLES,
    SYSTEM,
    USER,
    common_messages,
    is_flagged_thought,
    role_and_content,
    speaker,
    thought_flags,
)
from tuneyard.compiler.columns.loss_flags import MessageKeys, refuse_flagged
from tuneyard.compiler.rows import Fields, are_objects
from tuneyard.compiler.spec.column_types import Clean, ColumnReader, ColumnType, Row, Schema, Values
from tuneyard.compiler.spec.model import Output, Spec
from tuneyard.core.datasets import filled
from tuneyard.core.datasets.answer_flags import adds_content
from tuneyard.core.datasets.column_meanings import REASONING, meaning
from tuneyard.core.errors import show_value, show_values
from tuneyard.core.language.message import _, counted
from tuneyard.core.records import PAIR, ChatMessage
from tuneyard.core.records.calls import (
    RESULTS,
    WrongValueError,
    call_text,
    function_text,
    only_thought,
    parse_calls,
    thought,
    unusable,
)

OPENAI = {
    USER: USER,
    ASSISTANT: ASSISTANT,
    SYSTEM: SYSTEM,
    OBSERVATION: OBSERVATION,
    CALL: "function_call",
}
ROLE_NAMES: dict[str, Schema] = {
    "roles": {
        "description": "who speaks in these turns, by names of roles that have no other meaning",
        "type": "object",
        "minProperties": 1,
        "additionalProperties": {"enum": ["user", "assistant", "system", "function_call", "observation"]},
    }
}
"""The option that says who speaks under names that `ROLES` lacks."""
SHAREGPT = OPENAI | {USER: "human", ASSISTANT: "gpt"}
CALL_MARKUP = re.compile(r"tool_call|<function|python_tag|^Action:", re.IGNORECASE | re.MULTILINE)
"""Markup of tool calls in the text of an answer."""


_REASONING_PART = re.compile("reason|think|thought", re.IGNORECASE)
_PICTURE_PART = re.compile("image|picture|photo|video|audio|sound", re.IGNORECASE)
"""What a part of a message is, by its type or its key."""


Conversation = list[ChatMessage]
"""The messages of a row, in their order."""


def keeps(output: Output, *roles: str) -> bool:
    """True if an output can hold messages of these speakers."""
    return output.format in ("sharegpt", "messages") or output.roles.keys() >= set(roles)


def files_without(spec: Spec, *roles: str) -> str:
    """The files of the outputs that cannot contain messages of these speakers, as a text."""
    return ", ".join(output.file for output in spec.outputs if not keeps(output, *roles))


def read_messages(
    value: list[Fields],
    keys: MessageKeys,
    without_tools: str = "",
    *,
    asks: bool = False,
    options: Container[str] = (),
) -> Conversation:
    """Read the messages of one row in order; `WrongValueError` names the message that is wrong.

    - `keys`: the keys of messages that the spec leaves out on purpose.
    - `without_tools`: the outputs that cannot contain tool calls and their results.
    - `asks`: the last message is the user's, since the answer is in another column.
    - `options`: those of the column. `unasked` and `unanswered` are ends that are left out, with `calls` a
      text next to a call is kept.

    Successive results become one message, and reasoning under its own key becomes a thought before its
    message. As LLaMA-Factory's converters require, user (or observation) and assistant (or call) alternate
    after an optional system message, and the assistant has the last message.
    """
    messages = [_message(number, item, keys, "calls" in options) for number, item in enumerate(value, 1)]
    _order_results(value, messages)
    system = [message for message in messages[:1] if message.role == SYSTEM]
    kept = messages[len(system) :]
    if "unasked" in options:
        kept = list(dropwhile(lambda message: message.role == ASSISTANT, kept))
    while "unanswered" in options and not asks and kept and kept[-1].role == USER:
        kept.pop()
    conversation: Conversation = []
    for message in kept:
        if message.role in (CALL, OBSERVATION) and without_tools:
            raise WrongValueError(
                _(
                    "turn {number}: found the {role} of a tool, which this output would make plain text "
                    "({files}); write sharegpt or messages",
                    number=message.number,
                    role=message.role,
                    files=without_tools,
                )
            )
        if conversation and message.role == OBSERVATION == conversation[-1].role:
            conversation[-1] = conversation[-1]._replace(
                text=f"{conversation[-1].text}{RESULTS}{message.text}"
            )
            continue
        _refuse_order(message, conversation)
        conversation.append(message)
    if not conversation:
        raise WrongValueError(_("found no question with its answer, expected a conversation"))
    if asks and len(conversation) % 2 == 0:
        raise WrongValueError(
            _("the last turn is the assistant's, but the answer is in another column; expected the user's")
        )
    if not asks and len(conversation) % 2:
        fault = _(
            "the last turn is the {role}'s: nothing to learn; expected an assistant's",
            role=conversation[-1].role,
        )
        if conversation[-1].role == USER and len(conversation) > 1:
            fault = _("{message} (`unanswered: drop` at the column leaves it out)", message=fault)
        raise WrongValueError(fault)
    return [*system, *conversation]


def read_answer(item: Fields, keys: MessageKeys) -> str:
    """The text of a single message; `WrongValueError` unless it is the assistant's."""
    message = _message(1, item, keys, False)
    refuse_images([message])
    if message.role != ASSISTANT:
        raise WrongValueError(_("found {role}, expected an answer of the assistant", role=message.role))
    return message.text


def _refuse_order(message: ChatMessage, before: Conversation) -> None:
    """Refuse a message of the wrong side, a call without its result and a result without its call."""
    expected = (ASSISTANT, CALL) if len(before) % 2 else (USER, OBSERVATION)
    last = before[-1] if before else None
    if message.role not in expected:
        fix = _("turns alternate")
        if last and last.role == message.role:
            fix = _("turns alternate: join both turns into one, or leave one out")
        if not before and message.role == ASSISTANT:
            fix = _("`unasked: drop` at the column leaves out what comes before the user")
        raise WrongValueError(
            _(
                "turn {number}: found {role}, expected {expected} ({fix})",
                number=message.number,
                role=message.role,
                expected=expected[0],
                fix=fix,
            )
        )
    if last and last.role == CALL and message.role == USER:
        raise WrongValueError(
            _("turn {number}: found user, expected the result of the call before it", number=message.number)
        )
    if message.role == OBSERVATION and not (last and (last.role == CALL or CALL_MARKUP.search(last.text))):
        raise WrongValueError(
            _("turn {number}: found the result of a tool, and no call before it", number=message.number)
        )


def _order_results(value: list[Fields], messages: Conversation) -> None:
    """Sort results by the ids of OpenAI's calls, which no record keeps. Refuse results of other calls.

    Another number of results than of calls is trained unchanged.
    """
    for number, item in enumerate(value):
        calls = item.get("tool_calls") if messages[number].role == CALL else None
        if not isinstance(calls, list):
            continue
        after = list(takewhile(lambda message: message.role == OBSERVATION, messages[number + 1 :]))
        call_ids = [call.get("id") for call in calls]
        result_ids = [value[message.number - 1].get("tool_call_id") for message in after]
        if len(result_ids) != len(call_ids) or not all(result_ids + call_ids):
            continue
        if Counter(map(str, result_ids)) != Counter(map(str, call_ids)):
            results = show_values(result_ids)
            expected = show_values(call_ids)
            raise WrongValueError(
                _(
                    "turn {number}: found the results {results}, expected {expected}",
                    number=number + 1,
                    results=results,
                    expected=expected,
                )
            )
        text_by_id = {str(name): message.text for name, message in zip(result_ids, after, strict=True)}
        if len(text_by_id) == len(call_ids):
            for position, (name, message) in enumerate(zip(call_ids, after, strict=True), number + 1):
                messages[position] = message._replace(text=text_by_id[str(name)])


def _message(number: int, item: Fields, keys: MessageKeys, keeps_text_with_calls: bool) -> ChatMessage:
    try:
        role, text = _role_and_text(item, keys, keeps_text_with_calls)
        return ChatMessage(role, text, number, tuple(cast("list[str]", item.get(IMAGES, ()))))
    except WrongValueError as error:
        raise WrongValueError(_("turn {number}: {error}", number=number, error=error)) from error


def unread_keys(value: object) -> set[str]:
    """The filled keys of messages that are not read. `value`: a list of messages, or a single one."""
    messages = value if isinstance(value, list) else [value]
    unread: set[str] = set()
    for message in messages:
        if isinstance(message, dict) and len(message) > 2:
            read = _read_keys(message)
            unread.update(key for key, each in message.items() if key not in read and filled([each]))
    return unread


def _read_keys(message: Fields) -> set[str]:
    """The keys of a message that are read."""
    name, content = role_and_content(message)
    role = speaker(message)
    read = {name, content, IMAGES}
    if role == ASSISTANT:
        read.add("tool_calls")
    if role == OBSERVATION:
        read.add("tool_call_id")
    if role in (ASSISTANT, CALL):
        read.update(_reasons(message), thought_flags(message))
    elif not is_flagged_thought(message):  # `thought: false` in each row of a table
        read.update(thought_flags(message))
    return read


def _role_and_text(item: Fields, keys: MessageKeys, keeps_text_with_calls: bool) -> tuple[str, str]:
    """The speaker and the text of a message; `WrongValueError` if another part of it would be lost."""
    name, key = role_and_content(item)
    role = ROLES.get(str(item.get(name)).lower())
    if role is None:
        raise WrongValueError(
            _(
                "found the role {role}, expected one of {roles} (`roles:` at the column maps other names)",
                role=show_value(item.get(name)),
                roles=", ".join(ROLES),
            )
        )
    calls = item.get("tool_calls") if role == ASSISTANT else None
    before = ""
    if len(item) > 2:
        if role in (ASSISTANT, CALL):
            before = thought("\n".join(dict.fromkeys(_reasons(item).values())))
        _refuse_loss(item, keys, beside="tool_calls" if calls else key)
    text = _content(item.get(key), key, bool(calls))
    if before and "<think>" in text:
        raise WrongValueError(
            _("found reasoning both in {key!r} and beside it, expected it in one place", key=key)
        )
    if not calls:
        if role == CALL:
            text = function_text(text)
        return role, before + text
    if text.strip() and not only_thought(text) and not keeps_text_with_calls:
        raise WrongValueError(
            _(
                "{key} beside tool_calls would be lost; `calls: text` at the spec's column of "
                "turns keeps both",
                key=key,
            )
        )
    return CALL, call_text(parse_calls(calls), before + text)


def refuse_images(messages: Iterable[ChatMessage]) -> None:
    """Refuse messages with images in their content; `WrongValueError` names the first."""
    for message in messages:
        if message.images:
            image = show_value(message.images[0])
            raise WrongValueError(
                _(
                    "turn {number}: found the image {image}, which no column takes; spec media reads images",
                    number=message.number,
                    image=image,
                )
            )


def _reasons(item: Fields) -> dict[str, str]:
    """The reasoning next to a message's text, by key. Some servers fill two keys with the same text."""
    reasons: dict[str, str] = {}
    flags = thought_flags(item)
    for key, text in item.items():
        if isinstance(text, str) and text and meaning(key) == REASONING and key not in flags:
            first = next(iter(reasons.values()), text)
            if text == first:
                reasons[key] = text
    return reasons


def _content(content: object, key: str, called: bool) -> str:
    """The text of a message's content. `common_messages` joined its parts already if it knows them all."""
    if isinstance(content, str):
        return content
    if content is None and called:
        return ""
    if are_objects(content):
        types = ", ".join(dict.fromkeys(str(part.get("type") or next(iter(part), "")) for part in content))
        fix = _('write its text as {{"type": "text", "text": …}}, or leave its row out')
        if _REASONING_PART.search(types):
            fix = _("write the reasoning under `reasoning_content` next to the text, or leave that part out")
        elif _PICTURE_PART.search(types):
            fix = _(
                'write a picture as {{"type": "image", "image": PATH}} (spec media), or leave its row out'
            )
        raise WrongValueError(
            _("found parts ({types}), expected text in {key!r}; {fix}", types=types, key=key, fix=fix)
        )
    raise unusable(content, _("text in {key!r}", key=key))


def _refuse_loss(item: Fields, keys: MessageKeys, beside: str) -> None:
    """Refuse a message with unread keys that change its meaning. `beside`: the key of its content."""
    read = _read_keys(item)
    lost = []
    for key, value in item.items():
        is_content = adds_content(key, value) or (key == "refusal" and value)
        if is_content and key not in read and not keys.is_ignored(key):
            lost.append(key)
    if lost:
        raise WrongValueError(
            _(
                "{lost} beside {role} would be lost; put it into the text or leave it out",
                lost=", ".join(lost),
                role=beside,
            )
        )


def cleaned(conversation: Conversation, clean: Clean) -> Conversation:
    """Apply `clean:` to all messages except tool calls and results."""
    cleaned_messages = []
    for message in conversation:
        if message.role in (USER, ASSISTANT, SYSTEM):
            message = message._replace(text=clean(message.text))
        cleaned_messages.append(message)
    return cleaned_messages


def answers_learned(spec: Spec, output: Output, conversation: Conversation) -> list[int]:
    """The numbers of the messages in a conversation that are learned from one output of a spec.

    Of LLaMA-Factory 0.9.5: data/processor/supervised.py learns every answer and call, feedback.py (KTO) the
    last one, pairwise.py none of the messages before the two answers. Pretraining learns each message in the
    text.
    """
    if not spec.writes_conversation(output):
        return []
    answers = [message for message in conversation if message.role in (ASSISTANT, CALL)]
    if output.format == "text":
        answers = [message for message in answers if message.role in output.roles]
    elif output.format == "alpaca" and output.turns == "first":
        answers = answers[:1]
    numbers = [message.number for message in answers]
    for column in spec.columns:
        numbers = column.type.answers_learned(numbers)
    return numbers


SHORTENED = "shortened"
UNANSWERED = "with turns of the user after the last answer"
UNASKED = "with turns of the assistant before the user's first one"
WITHOUT_SYSTEM = "without their system text"


class TurnsReader(ColumnReader):
    """Reads the messages of one file's rows.

    - `without_tools`: the files of the outputs that cannot contain calls and results.
    - `leaving_system_out`: the files of the outputs without a system text, or with another one.
    - `shortens`: true if an output has the first exchange alone.

    The tally counts those of which one exchange alone is kept, those whose first or last messages are left
    out, and those whose system message an output leaves out because the spec says so.
    """

    def prepare(self) -> None:
        """Find out what the outputs leave out."""
        spec = self.spec
        self.pair = spec.named(*PAIR)
        self.without_tools = files_without(spec, CALL, OBSERVATION)
        self.leaving_system_out = ", ".join(
            each.file for each in spec.outputs if not keeps(each, SYSTEM) or spec.has_own_system(each)
        )
        self.shortens = any(each.format == "alpaca" and each.turns == "first" for each in spec.outputs)
        self.checks_rows = "system" in spec.types and not spec.ignores_system
        self.reads_images = bool(spec.named("images"))
        self.completions = [column.name for column in spec.columns if column.type.joins_conversation()]

    def unfold(self, values: Values) -> Values:
        """Bring conversations into OpenAI's form. A text next to a completion is the user's message."""
        roles = self.column.options.get("roles", {})
        conversations = [common_messages(value, roles) for value in values]
        if self._has_completion():
            conversations = [
                [{"role": USER, "content": conversation}] if isinstance(conversation, str) else conversation
                for conversation in conversations
            ]
        return conversations

    def read(self, value: list[Fields]) -> Conversation:
        """The messages of one row, without the answer that is chosen. `WrongValueError` if a part is lost."""
        keys = MessageKeys(self.spec, self.source)
        prompt_messages = value
        if self.pair and self.source == self.file.sources.get(self.pair[0]):  # which ends with the answer
            prompt_messages = value[:-1]
        asks = bool(self.pair) or self._has_completion()
        conversation = read_messages(
            prompt_messages, keys, self.without_tools, asks=asks, options=self.column.options
        )
        has_system = conversation[0].role == SYSTEM
        self.noted[UNASKED] += conversation[has_system].number > 1 + has_system
        self.noted[UNANSWERED] += not asks and conversation[-1].number < len(prompt_messages)
        flags_by_message = keys.flags_in(prompt_messages)
        if flags_by_message:
            self._refuse_flagged(flags_by_message, conversation, keys)
        if not self.reads_images:
            refuse_images(conversation)
        if has_system and conversation[0].text.strip() and self.leaving_system_out:
            if not self.spec.ignores_system:
                self._refuse_lost_system()
            self.noted[WITHOUT_SYSTEM] += 1
        self.noted[SHORTENED] += self.shortens and len(conversation) - has_system > 2
        return cleaned(conversation, self.file.clean) if self.spec.clean else conversation

    def _has_completion(self) -> bool:
        """True if the file has the answer in another column."""
        return any(name in self.file.sources for name in self.completions)

    def _refuse_flagged(
        self, flags_by_message: dict[int, Fields], conversation: Conversation, keys: MessageKeys
    ) -> None:
        """Refuse a row if an output would teach an answer that is marked as not to be learned."""
        answers = set()
        for output in self.spec.outputs:
            answers.update(answers_learned(self.spec, output, conversation))
        refuse_flagged(flags_by_message, sorted(answers), keys)

    def _refuse_lost_system(self) -> None:
        """Refuse a row with a system message, since an output has no system text, or another one."""
        without_system = files_without(self.spec, SYSTEM)
        if without_system:
            raise WrongValueError(
                _(
                    "turn 1: found a system text, which this output would leave out ({files}); "
                    "write sharegpt or messages, or leave it out by `ignore: [system]`",
                    files=without_system,
                )
            )
        raise WrongValueError(
            _(
                "turn 1: found a system text, and this output has a `system` of its own ({files}); "
                "leave that out, or the turn by `ignore: [system]`",
                files=self.leaving_system_out,
            )
        )

    def check_row(self, row: Row) -> Fields:
        """Refuse a row with two different system texts: a message and a column."""
        first, text = row[self.column.name][0], row["system"]
        if first.role == SYSTEM and text and str(text).strip() not in ("", first.text.strip()):
            raise WrongValueError(
                _(
                    "found two system texts, {turn} as a turn and {column} beside the turns; expected one",
                    turn=show_value(first.text),
                    column=show_value(text),
                )
            )
        return {}

    def notes(self) -> list[str]:
        """How many conversations are shortened, lose their last messages, and lose their system text."""
        why = _("the mixture has its own") if self.spec.has_one_system else _("`ignore: [system]`")
        messages = {
            SHORTENED: _("the first exchange alone is written (`turns: history` keeps the others)"),
            UNANSWERED: _("what the user says after the last answer is left out (`unanswered: drop`)"),
            UNASKED: _("what the assistant says before the user is left out (`unasked: drop`)"),
            WITHOUT_SYSTEM: _(
                "{files} leaves the system turn out ({why})",
                files=self.leaving_system_out,
                why=why,
            ),
        }
        lines: list[str] = []
        for key, message in messages.items():
            if self.noted[key]:
                conversations = counted(self.noted[key], "conversation", "conversations")
                lines.append(_("{conversations}: {message}", conversations=conversations, message=message))
        return lines


class TurnsType(ColumnType):
    """Conversations."""

    def may_be_messages(self, options: Mapping[str, Any]) -> bool:
        """Every value is messages."""
        del options
        return True

    def is_conversation(self) -> bool:
        """Outputs take their texts from it."""
        return True


TURNS = TurnsType(
    "turns",
    {"description": _("a list of turns"), "type": "array", "minItems": 1, "items": {"type": "object"}},
    options={
        "calls": {
            "description": "text beside a call of a tool in these turns: `text` keeps it before the call. "
            "Without it such a text is an error",
            "const": "text",
        },
        "unanswered": {
            "description": "turns of the user after the last answer: `drop` leaves them out. Without it they "
            "are an error",
            "const": "drop",
        },
        "unasked": {
            "description": "turns of the assistant before the user's first one, as a greeting: `drop` leaves "
            "them out. Without it they are an error",
            "const": "drop",
        },
        **ROLE_NAMES,
    },
    has_answer=True,
    shapes=(
        "turns",
        "turns in rows",
        "chats of people",
        "exchanges",
        "trees of messages",
        "messages of threads",
    ),
    leaf_types=("turns",),
    reader=TurnsReader,
)
