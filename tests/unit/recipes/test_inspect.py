"""What is asked of a tokenizer, without LLaMA-Factory."""

import pytest
from jinja2 import Template

from core import patterns
from core.errors import ContentError
from recipes.inspect import CHAT, _chat_ids


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
