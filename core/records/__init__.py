"""The reader of records: from a record and its dataset's registry entry to messages, answers and media.

It reads records as LLaMA-Factory 0.9.5 does (data/parser.py, data/converter.py). It follows the documented
format and not that code, so that `data verify` can compare the two. tests/integration/test_records.py
compares them on a dataset of each kind.
"""

import json
from collections.abc import Mapping
from typing import NamedTuple

from tuneyard.core.errors import ContentError, show_value, unexpected, wrong_value
from tuneyard.core.files import are_texts, strings
from tuneyard.core.language.message import _, counted, joined, relative
from tuneyard.core.records.calls import RESULTS, WrongValueError, call_text, parse_calls

ALPACA = {"prompt": "instruction", "query": "input", "response": "output"}
SHAREGPT = {"messages": "conversations"}
SHAREGPT_TAGS = {
    "role_tag": "from",
    "content_tag": "value",
    "user_tag": "human",
    "assistant_tag": "gpt",
    "observation_tag": "observation",
    "function_tag": "function_call",
    "system_tag": "system",
}
OPENAI_TAGS = SHAREGPT_TAGS | {
    "role_tag": "role",
    "content_tag": "content",
    "user_tag": "user",
    "assistant_tag": "assistant",
}
PLACEHOLDERS = {"images": "<image>", "videos": "<video>", "audios": "<audio>"}
"""Placeholder in a text for each file of these columns, as in LLaMA-Factory."""
PAIR = ("chosen", "rejected")
KTO_TAG = "kto_tag"
"""The registry key of the column that says whether an answer is desirable."""
EXTRAS = ("history", "system", "tools", *PLACEHOLDERS, *PAIR, KTO_TAG)
"""The parts that LLaMA-Factory reads only if an entry maps them."""
ROLES = ("user", "assistant", "observation", "function", "system")
QUESTIONS = ("user", "observation")
ANSWERS = ("assistant", "function")
"""Roles of messages that a model writes."""
BARE = ("system", "history", "tools", *PLACEHOLDERS, KTO_TAG)
"""The parts of a record without a registry entry, besides its messages or its question and answer."""
BARE_MESSAGES = ("messages", "text")
"""Columns with OpenAI's messages in a record without a registry entry."""
BARE_QUESTIONS = ({"prompt": "question", "response": "answer"}, {"prompt": "prompt", "response": "response"})
OPENAI = "openai"
OPENAI_SYSTEM = "detailed thinking off"
"""LLaMA-Factory's `formatting: openai` writes this into the system text of rows without tools."""
BARE_OPENAI = "messages"
"""Formatting of OpenAI's messages without a registry entry: as `openai`, without words of LLaMA-Factory's."""

Record = Mapping[str, object]
Entry = Mapping[str, object]
"""An entry of dataset_info.json, to read."""


class ChatMessage(NamedTuple):
    """One message of a conversation.

    - `role`: user, assistant, system, observation (a tool's result). Tool calls are `function` in records, by
      LLaMA-Factory's name, and `call` in the rows of a compile.
    - `number`: its number in the row or the record, from 1; 0 if it has a column of its own.
    - `images`: the paths of the images in its content, one for each `<image>` in the text (in a compile).
    """

    role: str
    text: str
    number: int = 0
    images: tuple[str, ...] = ()


class RecordFormat(NamedTuple):
    """Format of a dataset's records: its registry entry with LLaMA-Factory's defaults.

    `columns` maps the parts of a record (`prompt`, `messages`, `chosen`, …) to its columns. `tags` name the
    keys and the roles of messages. Neither contains unset values.
    """

    formatting: str
    columns: Mapping[str, str]
    tags: Mapping[str, str]
    ranking: bool = False

    @property
    def text_only(self) -> bool:
        """True for texts without answers: data for pretraining, or an entry that lacks `response`."""
        return self.formatting == "alpaca" and "response" not in self.columns and not self.ranking


class Example(NamedTuple):
    """One record: the `messages` before its answers, without the system text, and the answers.

    `answers` has one answer, a chosen and a rejected one, or none. `desirable` is the record's KTO tag (None
    without one). `media` has the paths of files by registry key (`images`, …). `fault` is the reason for
    which LLaMA-Factory drops the record, "" if it trains on it.
    """

    messages: list[ChatMessage]
    answers: list[ChatMessage]
    system: str = ""
    tools: str = ""  # as JSON
    media: Mapping[str, list[object]] = {}
    desirable: bool | None = None
    fault: str = ""

    @property
    def trained_messages(self) -> list[ChatMessage]:
        """All messages as LLaMA-Factory trains them: next to an answer with a KTO tag it puts an empty one.

        The empty answer comes last if the other one is desirable.
        """
        if self.desirable is None:
            return self.messages + self.answers
        empty = ChatMessage("assistant", "")
        if self.desirable:
            return [*self.messages, *self.answers, empty]
        return [*self.messages, empty, *self.answers]

    @property
    def paths(self) -> list[str]:
        """The paths of all media: images, then videos, then audios."""
        return [str(path) for paths in self.media.values() for path in paths]


def format_of_entry(entry: Entry) -> RecordFormat:
    """Read an entry as LLaMA-Factory does, right or wrong: naming `columns` unsets each other part."""
    columns = strings(entry["columns"]) if "columns" in entry else {**ALPACA, **SHAREGPT}
    tags = strings(entry["tags"]) if "tags" in entry else SHAREGPT_TAGS
    return RecordFormat(str(entry.get("formatting", "alpaca")), columns, tags, entry.get("ranking") is True)


def format_of_record(record: Record) -> RecordFormat:
    """Find the format of a record without a registry entry by its keys."""
    columns = {name: name for name in BARE}
    replies = [record.get(registry_key) for registry_key in PAIR]
    ranking = are_texts(replies) or all(isinstance(reply, dict) for reply in replies)
    if ranking:
        columns |= {registry_key: registry_key for registry_key in PAIR}
    for name in BARE_MESSAGES:
        if isinstance(record.get(name), list):
            return RecordFormat(BARE_OPENAI, {**columns, "messages": name}, OPENAI_TAGS, ranking)
    if isinstance(record.get("conversations"), list):
        return RecordFormat("sharegpt", {**columns, **SHAREGPT}, SHAREGPT_TAGS, ranking)
    if isinstance(record.get("text"), str):
        return RecordFormat("alpaca", {"prompt": "text"}, {})
    question = ALPACA
    if ALPACA["prompt"] not in record:
        answers = {names["response"] for names in (ALPACA, *BARE_QUESTIONS)} & record.keys()
        for names in BARE_QUESTIONS:
            if names["prompt"] in record and answers <= {names["response"]}:
                question = names
                break
    return RecordFormat("alpaca", {**columns, **question}, {}, ranking)


def format_of(record: Record, entry: Entry) -> RecordFormat:
    """The format of a record by its registry entry, or by its own keys if the entry is {}."""
    if entry:
        return format_of_entry(entry)
    return format_of_record(record)


def has_media(entry: Entry) -> bool:
    """True if the rows of a dataset may have images, videos or audios."""
    return not PLACEHOLDERS.keys().isdisjoint(strings(entry.get("columns")))


def read_example(record: Record, entry: Entry, place: str) -> Example:
    """Read a record by its registry entry, or by its own keys if the entry is {}. Errors as of `read_at`."""
    return RecordReader(format_of(record, entry)).read_at(record, place)


def entry_fix(record: Record) -> str:
    """How an entry of dataset_info.json names the columns of records, "" if their format is unknown."""
    record_format = format_of_record(record)
    columns = {
        registry_key: column for registry_key, column in record_format.columns.items() if column in record
    }
    entry: dict[str, object] = {"columns": columns}
    if record_format.tags:
        entry = {"formatting": "sharegpt", **entry, "tags": record_format.tags}
    elif not {"prompt", "response"} <= columns.keys():
        return ""
    return _("add {columns} to the entry", columns=json.dumps(entry)[1:-1])


class RecordReader:
    """Reads the records of one dataset. `ContentError` for values that cannot be read, without a place."""

    def __init__(self, record_format: RecordFormat) -> None:
        self.format = record_format
        self.columns = record_format.columns
        self.tags = record_format.tags
        self.reads_calls = record_format.formatting in (OPENAI, BARE_OPENAI)
        self.roles = {self.tags[tag]: role for role in ROLES if (tag := f"{role}_tag") in self.tags}
        if record_format.formatting == BARE_OPENAI:
            self.roles["tool"] = "observation"

    def read(self, record: Record) -> Example:
        """Read one record."""
        if self.format.formatting == "alpaca":
            example = self._read_alpaca(record)
        else:
            example = self._read_messages(record)
        kto_tag = self._value(record, KTO_TAG)
        tools = self._value(record, "tools") or ""
        if not isinstance(tools, str):
            tools = json.dumps(tools, ensure_ascii=False, default=str)
        media = {}
        for kind in PLACEHOLDERS:
            paths = self._value(record, kind)
            if isinstance(paths, list):
                _refuse_mixed_media(self.columns[kind], paths)
                media[kind] = paths
            elif paths:
                media[kind] = [paths]
        desirable = kto_tag if isinstance(kto_tag, bool) else None
        return example._replace(desirable=desirable, tools=tools, media=media)

    def read_at(self, record: Record, place: str) -> Example:
        """Read one record, of which `ContentError` names the `place`.

        An alpaca record without the column of its prompt is refused: LLaMA-Factory reads an empty prompt.
        """
        column = self.columns.get("prompt")
        try:
            if self.format.formatting == "alpaca" and column not in record:
                raise ContentError(
                    _(
                        "no column {column!r} (found: {record}): map it in `columns` of the entry, or "
                        "compile the file: tuneyard data init FILE",
                        column=column or "prompt",
                        record=joined(record) or _("none"),
                    )
                )
            return self.read(record)
        except ContentError as error:
            raise ContentError(_("{place}: {error}", place=relative(place), error=error)) from error

    def _read_alpaca(self, record: Record) -> Example:
        messages: list[ChatMessage] = []
        history = self._value(record, "history")
        if isinstance(history, list):  # LLaMA-Factory ignores any other value
            for pair in history:
                if not (isinstance(pair, list) and len(pair) == 2 and are_texts(pair)):
                    raise wrong_value(self.columns["history"], pair, _("[question, answer]"))
                messages += [ChatMessage("user", pair[0]), ChatMessage("assistant", pair[1])]
        prompt = self._text(record, "prompt")
        query = self._text(record, "query")
        if prompt and query:
            prompt = f"{prompt}\n{query}"
        messages.append(ChatMessage("user", prompt or query))
        answers: list[ChatMessage] = []
        fault = ""
        registry_keys: tuple[str, ...] = ("response",)
        if self.format.ranking:
            registry_keys = PAIR
        elif self.format.text_only:
            registry_keys = ()
        for registry_key in registry_keys:
            column = self.columns.get(registry_key, registry_key)
            answer = record.get(column)
            if isinstance(answer, str):
                answers.append(ChatMessage("assistant", answer))
                continue
            state = _("missing")
            if column in record:
                state = _("found {value}", value=show_value(answer))
            fault = _(
                "{column}: {state}, expected text: a row without a text to answer is dropped",
                column=column,
                state=state,
            )
            if answer is not None:
                raise ContentError(fault)
        return Example(messages, answers, self._text(record, "system"), fault=fault)

    def _read_messages(self, record: Record) -> Example:
        column = self.columns.get("messages", "")
        if not column:
            raise ContentError(
                _('the entry names no column of messages (E402): add "messages": its column to `columns`')
            )
        values = record.get(column)
        if not isinstance(values, list):
            raise wrong_value(column, values, _("a list of messages"))
        messages = [self._message(value, column, number) for number, value in enumerate(values, 1)]
        system = self._text(record, "system")
        if messages and messages[0].role == "system":
            system = messages[0].text
            messages = messages[1:]
        if self.reads_calls:
            messages = _with_joined_results(messages)
        if self.format.formatting == OPENAI and messages and messages[-1].role == "observation":
            messages = messages[:-1]  # LLaMA-Factory loses results that no message follows
        fault = self._fault_of(messages)
        answers = []
        if self.format.ranking and not fault:
            answers = [self._reply(record, registry_key) for registry_key in PAIR]
        elif not self.format.ranking and messages and messages[-1].role in ANSWERS:
            answers = [messages[-1]]
            messages = messages[:-1]
        if self.format.formatting == OPENAI:
            system = _openai_system(system, bool(self._value(record, "tools")))
        if fault:
            fault = _("{column}: {fault}", column=column, fault=fault)
        return Example(messages, answers, system, fault=fault)

    def _message(self, value: object, column: str, number: int = 0) -> ChatMessage:
        """One message of a column, with its `number` from 1 in a list of messages."""
        if not isinstance(value, dict):
            raise wrong_value(_message_place(column, number), value, _("a message"))
        role_key = self.tags.get("role_tag", "")
        role = self.roles.get(str(value.get(role_key)), "")
        if not role:
            expected = ", ".join(self.roles)
            tag = show_value(value.get(role_key))
            if role_key not in value and OPENAI_TAGS["role_tag"] in value:
                tags = json.dumps(OPENAI_TAGS)
                raise ContentError(
                    _(
                        '{place}: no {role_key!r}; add "tags": {tags} to the entry',
                        place=_message_place(column, number),
                        role_key=role_key,
                        tags=tags,
                    )
                )
            fix = ""
            for usual_tags in (OPENAI_TAGS, SHAREGPT_TAGS):
                for name, usual_tag in usual_tags.items():
                    if usual_tag == value.get(role_key) and name not in ("role_tag", "content_tag"):
                        fix = _(
                            '; add "{name}": {value} to `tags` of the entry',
                            name=name,
                            value=json.dumps(usual_tag),
                        )
            raise ContentError(
                _(
                    "{place}: {role_key} {tag}, expected one of {expected}{fix}",
                    place=_message_place(column, number),
                    role_key=role_key,
                    tag=tag,
                    expected=expected,
                    fix=fix,
                )
            )
        content_key = self.tags.get("content_tag", "")
        text = value.get(content_key)
        if self.reads_calls and role in ANSWERS and value.get("tool_calls"):
            try:
                return ChatMessage("function", self._calls(value["tool_calls"], text), number)
            except (WrongValueError, TypeError, KeyError) as error:
                place = _message_place(column, number)
                raise ContentError(_("{place}: tool_calls: {error}", place=place, error=error)) from error
        if not isinstance(text, str):
            raise unexpected(_message_place(column, number), content_key, text, _("text"))
        return ChatMessage(role, text, number)

    def _calls(self, calls: object, text: object) -> str:
        """The text of a message with OpenAI's calls. LLaMA-Factory writes the calls alone, unparsed."""
        if self.format.formatting == BARE_OPENAI:
            return call_text(parse_calls(calls), text if isinstance(text, str) else "")
        functions = [call["function"] for call in calls] if isinstance(calls, list) else calls
        return json.dumps(functions, ensure_ascii=False)

    def _fault_of(self, messages: list[ChatMessage]) -> str:
        """The reason for which LLaMA-Factory drops a conversation, "" if there is none.

        `messages` lack the system message.
        """
        for position, message in enumerate(messages):
            expected = ANSWERS if position % 2 else QUESTIONS
            if message.role not in expected:
                tag = show_value(self.tags.get(f"{message.role}_tag"))
                tag_names = [f"{name}_tag" for name in expected]
                tags = [show_value(self.tags[name]) for name in tag_names if name in self.tags]
                return _(
                    "turn {number} is {role}, expected {roles}: questions and answers alternate",
                    number=message.number,
                    role=tag,
                    roles=joined(tags, _(" or ")),
                )
        if not messages:
            return _("found no turns, expected a question")
        if self.format.ranking and len(messages) % 2 == 0:
            return _(
                "found {turns}, expected an odd number: the last one is the question to both answers",
                turns=counted(len(messages), "turn", "turns"),
            )
        if not self.format.ranking and len(messages) % 2:
            return _(
                "found {turns}, expected an even number: an answer to each question",
                turns=counted(len(messages), "turn", "turns"),
            )
        return ""

    def _reply(self, record: Record, registry_key: str) -> ChatMessage:
        """One of the two answers to a conversation, which are messages in columns of their own."""
        column = self.columns.get(registry_key, registry_key)
        reply = record.get(column)
        if not isinstance(reply, dict):
            raise wrong_value(column, reply, _("a turn with a text"))
        message = self._message(reply, column)
        if message.role not in ANSWERS:
            raise ContentError(
                _(
                    "{column}: found a turn of the {role}, expected an answer",
                    column=column,
                    role=message.role,
                )
            )
        return message

    def _value(self, record: Record, registry_key: str) -> object:
        """The value of a part, None if the entry does not name its column or the record lacks it."""
        column = self.columns.get(registry_key)
        return record.get(column) if column else None

    def _text(self, record: Record, registry_key: str) -> str:
        """The text of a part, "" if the record lacks it. `ContentError` for any other value."""
        value = self._value(record, registry_key)
        if value is None:
            return ""
        if not isinstance(value, str):
            raise wrong_value(self.columns[registry_key], value, _("text"))
        return value


def _message_place(column: str, number: int) -> str:
    """Where a message is: its column, and its number in a list of messages (0: the column has one)."""
    if not number:
        return column
    return _("{column}: turn {number}", column=column, number=number)


def _refuse_mixed_media(column: str, media: list[object]) -> None:
    """Raise `ContentError` for media at which LLaMA-Factory's converter stops.

    It puts media_dir before all of them if the first one is a path or a list of frames
    (`_find_medias` in data/converter.py).
    """
    first = media[0] if media else None
    if isinstance(first, str):
        for path in media:
            if not isinstance(path, str):
                raise wrong_value(column, path, _("a path, as the first one is"))
    elif isinstance(first, list):
        for frames in media:
            if not (isinstance(frames, list) and are_texts(frames)):
                raise wrong_value(column, frames, _("a list of the paths of frames"))


def _with_joined_results(messages: list[ChatMessage]) -> list[ChatMessage]:
    """Join results of tools that follow one another, as LLaMA-Factory does for `formatting: openai`.

    A joined message keeps the number of its first one.
    """
    kept: list[ChatMessage] = []
    for message in messages:
        if kept and message.role == "observation" == kept[-1].role:
            kept[-1] = kept[-1]._replace(text=f"{kept[-1].text}{RESULTS}{message.text}")
        else:
            kept.append(message)
    return kept


def _openai_system(system: str, has_tools: bool) -> str:
    """The system text with the words that LLaMA-Factory adds for `formatting: openai`."""
    if has_tools:
        return f"{system}\n" if system else ""
    if not system:
        return OPENAI_SYSTEM
    if OPENAI_SYSTEM in system or "detailed thinking on" in system:
        return system
    return f"{system}\n{OPENAI_SYSTEM}"
