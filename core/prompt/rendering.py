"""Render a chat template without a tokenizer to load, as transformers does."""

import datetime
import json
from collections.abc import Mapping
from types import SimpleNamespace
from typing import Any

from tuneyard.core.errors import ContentError
from tuneyard.core.prompt import Message, Render, chat_renderer


def template_renderer(
    template: str, special: Mapping[str, str], think: bool = False, day: datetime.date | None = None
) -> Render:
    """Compile a Jinja template in a sandbox with the settings of transformers, to render as `eval` does.

    `special` has the texts of `bos_token` and other special tokens. Many folders have no tokenizer to load.
    `day` is that of `chat_renderer`.
    """
    from jinja2 import TemplateError, TemplateSyntaxError, nodes
    from jinja2.ext import Extension, loopcontrols
    from jinja2.parser import Parser
    from jinja2.sandbox import ImmutableSandboxedEnvironment as Environment

    class Generation(Extension):
        """The block `generation`, with which templates mark answers for a loss mask: its text alone."""

        tags = {"generation"}  # noqa: RUF012  as jinja2 declares it

        def parse(self, parser: Parser) -> list[nodes.Node]:
            next(parser.stream)
            return parser.parse_statements(("name:endgeneration",), drop_needle=True)

    def refuse(message: str) -> None:
        raise TemplateError(message)

    def tojson(value: object, ensure_ascii: bool = False, **options: Any) -> str:
        return json.dumps(value, ensure_ascii=ensure_ascii, **options)

    environment = Environment(trim_blocks=True, lstrip_blocks=True, extensions=[Generation, loopcontrols])
    environment.globals["raise_exception"] = refuse
    environment.filters["tojson"] = tojson
    try:
        compiled = environment.from_string(template)
    except TemplateSyntaxError as error:
        raise ContentError(f"the chat template is damaged: line {error.lineno}: {error.message}") from error

    def apply(messages: list[Message], **names: Any) -> str:
        return compiled.render({"tools": None, "documents": None, **special, **names}, messages=messages)

    return chat_renderer(SimpleNamespace(apply_chat_template=apply), template, think, day)
