"""Preference pairs: two answers to one prompt (`ranking` in LLaMA-Factory 0.9.5, stages rm and dpo)."""

from collections.abc import Mapping
from typing import Any, NamedTuple

from tuneyard.compiler.chat.message_forms import ASSISTANT, common_messages
from tuneyard.compiler.columns.best import BY_NUMBER, best_of
from tuneyard.compiler.columns.loss_flags import MessageKeys, refuse_flagged
from tuneyard.compiler.columns.turns import (
    OPENAI,
    ROLE_NAMES,
    SHAREGPT,
    Conversation,
    cleaned,
    read_answer,
    read_messages,
    refuse_images,
)
from tuneyard.compiler.rows import Fields
from tuneyard.compiler.rows.problem_codes import NO_PREFERENCE
from tuneyard.compiler.spec.column_types import Beside, Column, ColumnReader, ColumnType, Row, Values
from tuneyard.compiler.spec.model import Spec
from tuneyard.core.errors import show_value
from tuneyard.core.language.message import _
from tuneyard.core.records import PAIR
from tuneyard.core.records.calls import WrongValueError, unusable


class Reply(NamedTuple):
    """An answer, and the messages before it if it stood at the end of a whole conversation."""

    before: Conversation
    text: str
    role: str = ASSISTANT


class ReplyReader(ColumnReader):
    """Reads one of the two answers: a text, a message, messages that end with it, or rated answers."""

    def prepare(self) -> None:
        """Check the pair once, with its second answer."""
        self.checks_rows = self.column.type is REJECTED

    def unfold(self, values: Values) -> Values:
        """Bring messages into OpenAI's form."""
        return [common_messages(value, self.column.options.get("roles", {}), whole=False) for value in values]

    def read(self, value: Any) -> Reply:
        """The cleaned answer; of rated ones the best, for `rejected` the worst."""
        if "best" in self.column.options:
            return Reply([], best_of(self, value, lowest=self.column.type is REJECTED, in_pair=True))
        keys, clean = MessageKeys(self.spec, self.source), self.file.clean
        if isinstance(value, dict):
            value = [value]
        if isinstance(value, list):
            refuse_flagged(keys.flags_in(value), [len(value)], keys)
        if isinstance(value, str):
            reply = Reply([], value)
        elif len(value) == 1:
            reply = Reply([], read_answer(value[0], keys))
        else:
            *before, last = read_messages(value, keys)
            refuse_images((*before, last))
            reply = Reply(cleaned(before, clean), last.text)
            if last.role != ASSISTANT:
                raise WrongValueError(
                    _("the last turn is a {role}, which a pair would make plain text", role=last.role)
                )
        if not reply.text.strip():
            raise unusable(reply.text, _("an answer that is not blank"))
        return reply._replace(text=clean(reply.text))

    def check_row(self, row: Row) -> Fields:
        """The texts of both answers; `WrongValueError` unless they differ and have one prompt."""
        spec = self.spec
        names = spec.named(*PAIR)
        chosen, rejected = row[names[0]], row[names[1]]
        if chosen.text == rejected.text:
            raise WrongValueError(_("chosen and rejected are the same: {text}", text=show_value(chosen.text)))
        before_chosen = _texts_of(chosen.before)
        if before_chosen != _texts_of(rejected.before):
            raise WrongValueError(
                _("chosen and rejected do not answer the same prompt: the turns before them differ")
            )
        prompt = _texts_of(row[spec.conversation_column]) if spec.conversation_column else []
        if before_chosen and before_chosen != prompt:
            raise WrongValueError(
                _(
                    "the turns before chosen are not those of the prompt: found {turn}; "
                    "expected the same (`--column turns=chosen` takes the prompt from there)",
                    turn=show_value(before_chosen[-1][1]),
                )
            )
        return {names[0]: chosen.text, names[1]: rejected.text}


def _texts_of(messages: Conversation) -> list[tuple[str, str]]:
    """The role and the text of each message, without its number."""
    return [(message.role, message.text) for message in messages]


class ReplyType(ColumnType):
    """One of the two answers."""

    def may_be_messages(self, options: Mapping[str, Any]) -> bool:
        """True unless it is a list of rated answers, of which one is taken."""
        return "best" not in options

    def is_pair(self) -> bool:
        """Both answers stand in place of `response`."""
        return True

    def answers_learned(self, numbers: list[int]) -> list[int]:
        """No message before the two answers (data/processor/pairwise.py)."""
        del numbers
        return []

    def written(self, values: Values, output_format: str) -> Values:
        """Texts in alpaca, messages of the assistant in a conversation."""
        if output_format == "sharegpt":
            return [{"from": SHAREGPT[ASSISTANT], "value": text} for text in values]
        if output_format == "messages":
            return [{"role": OPENAI[ASSISTANT], "content": text} for text in values]
        return values

    def check(self, column: Column, spec: Spec) -> None:
        """Refuse one answer without the other, and a pair next to an answer of a template."""
        super().check(column, spec)
        if [len(spec.named(answer)) for answer in PAIR] != [1, 1] or spec.has_answer_template:
            raise ValueError(
                _("chosen and rejected: expected a column of each, in place of `output` and `assistant`")
            )


REPLY = {"type": ["string", "object", "array"], "minItems": 1, "items": {"type": "object"}}
"""The JSON Schema of an answer, which is a text, a message or messages."""


def _reply_type(name: str) -> ReplyType:
    return ReplyType(
        name,
        {"description": _("an answer: text, a message, or messages that end with it"), **REPLY},
        options={**BY_NUMBER, **ROLE_NAMES},
        code=NO_PREFERENCE,
        is_text=True,
        registry_key=name,
        shapes=("pair of answers",),
        beside=Beside((name,), needs=PAIR),
        reader=ReplyReader,
    )


CHOSEN, REJECTED = map(_reply_type, PAIR)
