"""Flags on the messages of a source column, which a spec may ignore: `weight: 0` at an answer is E113."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from tuneyard.compiler.rows import Fields
from tuneyard.compiler.spec.column_types import CodedError
from tuneyard.compiler.spec.file import where_to_write
from tuneyard.compiler.spec.model import Spec
from tuneyard.core.datasets.answer_flags import masks
from tuneyard.core.errors import show_value
from tuneyard.core.errors.problem_codes import ProblemCode
from tuneyard.core.language.message import _, ngettext

MASKED_ANSWER = ProblemCode(
    "E113",
    _("an answer that is marked as not to be learned"),
    _("Leave the row out, or end it before that answer."),
    _(
        "LLaMA-Factory ignores marks such as `weight: 0`. For the last answer alone, "
        "write `mask_history: true` in the recipe."
    ),
)


class MessageKeys(NamedTuple):
    """How a spec treats the keys of the messages in one source column."""

    spec: Spec
    source: str

    def is_ignored(self, key: str) -> bool:
        """True if `ignore` names a key: as `weight`, `messages.weight` or `messages`."""
        head = self.source.partition(".")[0]
        names = (key, self.source, f"{self.source}.{key}", head)
        return any(name.lower() in self.spec.ignore for name in names)

    def flags_in(self, messages: list[Fields]) -> dict[int, Fields]:
        """The flags that keep messages, or parts of them, out of the loss, by the number of the message."""
        flags_by_message: dict[int, Fields] = {}
        for number, message in enumerate(messages, 1):
            for key, value in message.items() if len(message) > 2 else ():
                if masks(key, value) and not self.is_ignored(key):
                    flags_by_message.setdefault(number, {})[key] = value
        return flags_by_message


def refuse_flagged(flags_by_message: Mapping[int, Fields], answers: Sequence[int], keys: MessageKeys) -> None:
    """Raise E113 if an answer that would be learned carries a flag.

    - `flags_by_message`: the masking flags by the number of their message.
    - `answers`: the numbers of the messages that would be learned.
    """
    flagged_answers = [number for number in answers if number in flags_by_message]
    if not flagged_answers:
        return
    listed = ", ".join(
        f"{key}: {show_value(value)}" for key, value in flags_by_message[flagged_answers[0]].items()
    )
    names = dict.fromkeys(key for number in flagged_answers for key in flags_by_message[number])
    numbers = ", ".join(map(str, flagged_answers))
    message = ngettext(
        "turn {numbers}: marked with {flags}, and LLaMA-Factory would learn the whole answer",
        "turns {numbers}: marked with {flags}, and LLaMA-Factory would learn the whole answer",
        len(flagged_answers),
        numbers=numbers,
        flags=listed,
    )
    fix = _(
        "leave the row out (`--on-error reject`), or the mark by `ignore: [{names}]` {where}",
        names=", ".join(names),
        where=where_to_write(keys.spec.name),
    )
    raise CodedError(MASKED_ANSWER, message, fix=fix)
