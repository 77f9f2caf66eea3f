"""A column with the answer that ends the messages of its row: TRL's `prompt` and `completion`.

The answer may be tool calls as JSON (`tool_calls: true`), as in APIGen's `query`, `tools` and `answers`.
"""

from collections.abc import Mapping
from typing import Any

from tuneyard.compiler.chat.message_forms import CALL
from tuneyard.compiler.columns.pair import REPLY, Reply, ReplyReader
from tuneyard.compiler.columns.turns import ROLE_NAMES, Conversation, files_without
from tuneyard.compiler.rows import Fields
from tuneyard.compiler.spec.column_types import Column, ColumnType, Row
from tuneyard.compiler.spec.model import Spec
from tuneyard.core.language.message import _
from tuneyard.core.records import ChatMessage
from tuneyard.core.records.calls import WrongValueError, call_text, parse_calls


class CompletionReader(ReplyReader):
    """Reads the answer, and puts it after the messages."""

    checks_rows = True

    def prepare(self) -> None:
        """Find the outputs that cannot contain calls."""
        self.without_calls = files_without(self.spec, CALL)

    def read(self, value: object) -> Reply:
        """The answer; it has no text if the file has no such column."""
        if not self.source:
            return Reply([], "")
        if "tool_calls" in self.column.options:
            if self.without_calls:
                raise WrongValueError(
                    _(
                        "found calls of tools, which {files} would hold as text; write sharegpt or messages",
                        files=self.without_calls,
                    )
                )
            return Reply([], call_text(parse_calls(value)), CALL)
        reply = super().read(value)
        if reply.before:
            raise WrongValueError(
                _("found {turns} turns, expected the answer alone", turns=len(reply.before) + 1)
            )
        return reply

    def check_row(self, row: Row) -> Fields:
        """The messages with the answer after them."""
        reply: Reply = row[self.column.name]
        if not self.source:
            return {}
        messages = self.spec.conversation_column
        conversation: Conversation = row[messages]
        return {messages: [*conversation, ChatMessage(reply.role, reply.text, conversation[-1].number + 1)]}


class CompletionType(ColumnType):
    """It is no column of a record: the answer becomes a message."""

    def may_be_messages(self, options: Mapping[str, Any]) -> bool:
        """True unless it is calls of tools."""
        return "tool_calls" not in options

    def joins_conversation(self) -> bool:
        """The answer is the last message."""
        return True

    def check(self, column: Column, spec: Spec) -> None:
        """Refuse it without messages."""
        if not spec.conversation_column:
            raise ValueError(
                _("column {name}: a completion ends turns, and no column has `is: turns`", name=column.name)
            )


COMPLETION = CompletionType(
    "completion",
    {"description": _("an answer: text, a message, or calls of tools"), **REPLY},
    options={
        "tool_calls": {
            "description": "the answer is calls of tools, as a list or as JSON text",
            "const": True,
        },
        **ROLE_NAMES,
    },
    default="",
    shapes=("question answered by calls",),
    reader=CompletionReader,
)
