"""Render a chat template without a tokenizer to load, as transformers does."""

import datetime
from collections.abc import Mapping
from types import SimpleNamespace
from typing import Any

from tuneyard.core.errors import ContentError
from tuneyard.core.language.message import _
from tuneyard.core.llamafactory.prompt import Message, Render, chat_renderer
from tuneyard.core.llamafactory.prompt.templates import compile_template, render_template


def template_renderer(
    template: str, special: Mapping[str, str], think: bool = False, day: datetime.date | None = None
) -> Render:
    """Compile a Jinja template in a sandbox with the settings of transformers, to render as `eval` does.

    `special` has the texts of `bos_token` and other special tokens. Many folders have no tokenizer to load.
    `day` is that of `chat_renderer`.
    """
    from jinja2 import TemplateError, TemplateSyntaxError

    try:
        compile_template(template)
    except TemplateSyntaxError as error:
        raise ContentError(
            _(
                "the chat template is damaged: line {number}: {message}",
                number=error.lineno,
                message=error.message,
            )
        ) from error
    except TemplateError as error:  # of Python's compiler
        raise ContentError(_("the chat template is damaged: {error}", error=error)) from error

    def apply(messages: list[Message], chat_template: str, tokenize: bool, **names: Any) -> str:  # noqa: ARG001  as a tokenizer
        return render_template(
            chat_template, {"tools": None, "documents": None, **special, **names, "messages": messages}
        )

    return chat_renderer(SimpleNamespace(apply_chat_template=apply), template, think, day)
