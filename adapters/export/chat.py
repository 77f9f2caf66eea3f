"""A Jinja chat template as what it puts around each message, found by rendering and checked on probes.

Most chat templates wrap: a fixed text before and after each message by its role, an opening for the answer, a
system message where none is given. One that does more (trims texts, numbers turns) fails on a probe: refused.
"""

import itertools
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from core.errors import ContentError, show_value
from core.patterns import bounded
from core.prompt import Message, Render

MARK = "\u2042{}\u2042"  # a text that is in no template
TEXTS = ("yes", " two \n\nlines \n", "<b>{{ x }}</b> \"q\" 'a' 文本", "7")


@dataclass(frozen=True, slots=True)
class Wrapping:
    """What stands around messages: `around` by role before and after, `answer` opens the answer.

    `default` is the system text of a conversation without one; `start` comes once before all messages.
    """

    start: str
    around: dict[str, tuple[str, str]]
    answer: str
    default: str | None

    def render(self, messages: list[Message]) -> str:
        """Return the prompt of a conversation, as the template would."""
        if self.default is not None and messages[0]["role"] != "system":
            messages = [{"role": "system", "content": self.default}, *messages]
        parts = [f"{self.around[m['role']][0]}{m['content']}{self.around[m['role']][1]}" for m in messages]
        return self.start + "".join(parts) + self.answer


def renderer(template: str, special: dict[str, str]) -> Render:
    """Return a Jinja template's rendering in a sandbox, set up as transformers does.

    `special` are the texts of `bos_token` and its like. Thinking is switched off, as `eval` does.
    """
    from jinja2 import TemplateError, TemplateSyntaxError
    from jinja2.ext import loopcontrols
    from jinja2.sandbox import ImmutableSandboxedEnvironment

    def refuse(message: str) -> None:
        raise TemplateError(message)

    environment = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=[loopcontrols]
    )
    environment.globals["raise_exception"] = refuse
    try:
        compiled = environment.from_string(template)
    except TemplateSyntaxError as error:
        raise ContentError(f"the chat template is damaged: line {error.lineno}: {error.message}") from error

    def render(messages: list[Message], opened: bool) -> str:
        try:
            with bounded("the chat template"):
                return compiled.render(
                    messages=messages, add_generation_prompt=opened, enable_thinking=False, **special
                )
        except (TemplateError, TypeError) as error:
            roles = ", ".join(m["role"] for m in messages)
            raise ContentError(f"the chat template refuses messages of {roles}: {error}") from error

    return render


def find_wrapping(render: Render) -> Wrapping:
    """Return what a template puts around messages; `ContentError` where that is not all that it does."""
    wrapping = _guess(render)
    for messages in _probes():
        found, expected = wrapping.render(messages), render(messages, True)
        if found != expected:
            raise ContentError(
                "the chat template does more than wrap each message (it trims texts, or treats some turns "
                "otherwise), so no TEMPLATE can be written that is exact; write one by hand. For messages of "
                f"{', '.join(m['role'] for m in messages)} it gives {show_value(expected)}, a wrapping "
                f"{show_value(found)}"
            )
    return wrapping


def thinks(render: Render, wrapping: Wrapping) -> bool:
    """Return whether the template takes the thoughts out of earlier answers, which a wrapping keeps."""
    messages = _conversation(["user", "assistant", "user"], ["a", "<think>\nb\n</think>\n\nc", "d"])
    return render(messages, True) != wrapping.render(messages)


def _guess(render: Render) -> Wrapping:
    """Read the texts around marked messages; where the guess is wrong, the probes will tell."""

    def around(*roles: str, opened: bool = False) -> list[str]:
        """Return the texts before, between and after the messages of a conversation."""
        marks = [MARK.format(i) for i in range(len(roles))]
        text = render(_conversation(roles, marks), opened)
        found = re.fullmatch("(.*?)".join(["", *map(re.escape, marks), ""]), text, re.DOTALL)
        if found is None:
            raise ContentError(
                "the chat template leaves messages out or changes them; no TEMPLATE can say that"
            )
        return list(found.groups())

    user_after = around("user")[1]
    answer = around("user", opened=True)[1].removeprefix(user_after)
    assistant_after = around("user", "assistant")[2]
    turns = around("user", "assistant", "user")
    user_before = turns[2].removeprefix(assistant_after)
    before, between, _ = around("system", "user")
    system_after, without = between.removesuffix(user_before), turns[0].removesuffix(user_before)
    start, default = without, None
    if len(without) > len(before) and without.startswith(before) and without.endswith(system_after):
        start, default = (
            "",
            without[len(before) : len(without) - len(system_after)],
        )  # a system text of its own
    roles = {
        "system": (before.removeprefix(start), system_after),
        "user": (user_before, user_after),
        "assistant": (turns[1].removeprefix(user_after), assistant_after),
    }
    return Wrapping(start, roles, answer, default)


def _conversation(roles: Sequence[str], texts: Sequence[str]) -> list[Message]:
    return [{"role": role, "content": text} for role, text in zip(roles, texts, strict=False)]


def _probes() -> Iterator[list[Message]]:
    """Yield conversations with and without a system message, of one to five turns, with awkward texts."""
    turns = ["user", "assistant", "user", "assistant", "user"]
    for system, count, first in itertools.product(([], ["system"]), (1, 3, 5), range(len(TEXTS))):
        yield _conversation([*system, *turns[:count]], [*TEXTS[first:], *TEXTS, *TEXTS])
