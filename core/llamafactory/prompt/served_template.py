"""A model's own chat template, as a server renders it for a conversation in LLaMA-Factory's roles."""

import json
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from tuneyard.core.errors import ContentError, LimitError
from tuneyard.core.files import JsonObject
from tuneyard.core.llamafactory.prompt import Messages, openai_messages
from tuneyard.core.llamafactory.prompt.templates import limit_transformers

CALL_ID = "call{:05}"
"""Nine letters and digits, which the chat templates of Mistral demand."""
THINKING = (False, True)


class TemplateRefusalError(ContentError):
    """A chat template refuses a conversation, such as one with a system text, or takes too long."""


class ServedTemplate(NamedTuple):
    """A model's chat template, and the special tokens that it is rendered with.

    LLaMA-Factory may replace both in the tokenizer of the training.
    """

    text: str
    special_tokens: Mapping[str, Any]

    @classmethod
    def of(cls, tokenizer: Any) -> "ServedTemplate | None":
        """Read it before a template changes the tokenizer. None for a model without one."""
        if not isinstance(tokenizer.chat_template, str):
            return None
        return cls(tokenizer.chat_template, dict(tokenizer.special_tokens_map))

    def prompts(self, tokenizer: Any, messages: Messages) -> Iterator[str]:
        """Write the text before the next answer, with thinking off and on.

        The first message has the `tools` if there are any. `TemplateRefusalError` if it refuses the messages.
        """
        for thinks in THINKING:
            plain, tools = openai_messages(messages)
            _number_calls(plain)
            options: JsonObject = {**self.special_tokens, "enable_thinking": thinks}
            if tools:
                options["tools"] = tools
            try:
                yield self._render(tokenizer, plain, options)
            except TemplateRefusalError:
                if not _with_arguments_as_text(plain):
                    raise
                yield self._render(tokenizer, plain, options)

    def _render(self, tokenizer: Any, messages: list[JsonObject], options: JsonObject) -> str:
        from jinja2 import TemplateError

        try:
            limit_transformers()
            return str(
                tokenizer.apply_chat_template(
                    messages,
                    chat_template=self.text,
                    tokenize=False,
                    add_generation_prompt=True,
                    **options,
                )
            )
        except (
            TemplateError, TypeError, ArithmeticError, LookupError, ValueError, LimitError
        ) as error:  # fmt: skip  # of its code
            raise TemplateRefusalError(str(error)) from error


def _number_calls(messages: list[JsonObject]) -> None:
    """Give calls and their results the same ids, in their order."""
    call_ids: list[str] = []
    for message in messages:
        for call in message.get("tool_calls", ()):
            call["id"] = CALL_ID.format(len(call_ids))
            call_ids.append(call["id"])
    results = [message for message in messages if message["role"] == "tool"]
    for call_id, result in zip(call_ids, results, strict=False):
        result["tool_call_id"] = call_id


def _with_arguments_as_text(messages: list[JsonObject]) -> bool:
    """Write the arguments of calls as JSON text, as DeepSeek's chat templates expect. False without calls."""
    has_calls = False
    for message in messages:
        for call in message.get("tool_calls", ()):
            arguments = json.dumps(call["function"]["arguments"], ensure_ascii=False)
            call["function"] = {**call["function"], "arguments": arguments}
            has_calls = True
    return has_calls
