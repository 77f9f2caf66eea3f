"""What is asked of a tokenizer, without LLaMA-Factory."""

import pytest
from jinja2 import Template

from core import patterns
from core.errors import ContentError
from recipes.inspect import CHAT, TOOL, _chat_ids, _template_difference


class Tokenizer:
    """One whose ids are the letters of what its chat template renders."""

    def __init__(self, chat_template: str | None) -> None:
        self.chat_template = chat_template

    def apply_chat_template(self, messages: list[dict[str, str]], **_: object) -> list[int]:
        return [ord(letter) for letter in Template(self.chat_template).render(messages=messages)]


def test_a_chat_template_that_takes_too_long_is_stopped(monkeypatch):
    monkeypatch.setattr(patterns, "SECONDS", 0.1)
    slow = "{% for i in range(10**5) %}{% for j in range(500) %}{% endfor %}{% endfor %}"
    with pytest.raises(ContentError, match=r"the tokenizer's chat template: stopped after 0\.1 s"):
        _chat_ids(Tokenizer(slow))
    said = "".join(map(chr, _chat_ids(Tokenizer("{{ messages[0].content }}")) or []))
    assert said == CHAT[0]["content"]
    assert _chat_ids(Tokenizer(None)) is None


def test_prompts_with_tools_are_compared_where_the_data_has_some():
    class Trained:
        def encode_oneturn(self, _: object, talk: list[dict], *beside: str | None) -> object:
            return [ord(letter) for letter in f"{'TOOLS ' if beside[1] else ''}{talk[0]['content']}"], []

    class Letters(Tokenizer):
        def apply_chat_template(self, messages: list[dict[str, str]], **given: object) -> list[int]:
            text = Template(self.chat_template).render(messages=messages, tools=given["tools"])
            return [ord(letter) for letter in text]

        def decode(self, ids: list[int]) -> str:
            return "".join(map(chr, ids))

    knows, plain = (
        Letters("{% if tools %}TOOLS {% endif %}{{ messages[0].content }}"),
        Letters("{{ messages[0].content }}"),
    )
    for tokenizer, tool, found in (
        (knows, TOOL, ""),
        (plain, None, ""),
        (plain, TOOL, "with tools and no system text, at"),
    ):
        difference = _template_difference(Trained(), tokenizer, _chat_ids(tokenizer, tool), tool)
        assert difference.startswith(found) and bool(difference) == bool(found)
