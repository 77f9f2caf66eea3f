"""What is read of a tokenizer's chat template, and prompts with tools, without LLaMA-Factory."""

import sys
import types

import pytest

from tests.messages import printed, raises
from tuneyard.core import errors
from tuneyard.core.errors import ContentError
from tuneyard.core.llamafactory.prompt import template_match
from tuneyard.core.llamafactory.prompt.template_match import USER, ChatFormat, template_findings
from tuneyard.core.llamafactory.prompt.templates import render_template


class Tokenizer:
    """One whose ids are the letters of what its chat template renders; ~ ends a turn."""

    eos_token = "~"
    eos_token_id = ord("~")
    all_special_ids = (ord("~"),)

    def __init__(self, chat_template: str | None) -> None:
        self.chat_template = chat_template

    def get_vocab(self) -> dict[str, int]:
        return {chr(number): number for number in range(1000)}

    def apply_chat_template(self, messages: list[dict[str, str]], **options: object) -> str:
        return render_template(str(self.chat_template), {"messages": messages, **options}, trims=False)

    def encode(self, text: str, **_: object) -> list[int]:
        return [ord(letter) for letter in text]

    def decode(self, ids: list[int], **_: object) -> str:
        return "".join(map(chr, ids))

    def convert_ids_to_tokens(self, number: int) -> str:
        return chr(number)


class Formatter:
    slots = ("{{content}}",)


class Trained:
    """A template of LLaMA-Factory that writes TOOLS before a prompt with tools."""

    default_system = ""
    efficient_eos = True
    format_prefix = format_system = format_user = format_assistant = Formatter

    def add_thought(self, thought: str) -> str:
        return f"<{thought}>"

    def encode_oneturn(self, tokenizer: Tokenizer, talk: list[dict], *others: str | None) -> object:
        tools = others[1] if len(others) > 1 else None
        return tokenizer.encode(f"{'TOOLS ' if tools else ''}{talk[0]['content']}"), []


def test_a_chat_template_that_takes_too_long_is_stopped(monkeypatch):
    monkeypatch.setattr(errors, "TIME_LIMIT", 0.1)
    slow = "{% for i in range(10**5) %}{% for j in range(500) %}{% endfor %}{% endfor %}"
    with raises(ContentError, "template", "0.1"):
        ChatFormat.of(Tokenizer(slow))


def test_a_tokenizer_without_a_chat_template_is_a_base_models():
    chat = ChatFormat.of(Tokenizer(None))
    assert not chat.is_instruct and not chat.prompts and not chat.end_tokens


def test_the_end_of_an_answer_is_read_from_the_chat_template():
    tokenizer = Tokenizer("{% for m in messages %}{{ m.content }}|{% endfor %}")
    tokenizer.all_special_ids = (ord("|"), ord("~"))
    chat = ChatFormat.of(tokenizer)
    assert chat.end_tokens == {"|", "~"}
    assert tokenizer.decode(chat.prompts[0]) == f"{USER['content']}|"


def test_a_chat_template_that_refuses_a_system_text_is_compared_without_one():
    refuses = "{% if messages[0].role == 'system' %}{{ 1 / 0 }}{% endif %}{{ messages[0].content }}"
    chat = ChatFormat.of(Tokenizer(refuses))
    assert chat.prompts and not chat.system_prompts


@pytest.mark.parametrize(
    ("chat_template", "has_tools", "codes"),
    [
        ("{% if tools %}TOOLS {% endif %}{{ messages[0].content }}", True, []),
        ("{{ messages[0].content }}", False, []),
        ("{{ messages[0].content }}", True, ["W352"]),
    ],
)
def test_prompts_with_tools_are_compared_if_the_data_has_some(chat_template, has_tools, codes):
    tokenizer = Tokenizer(chat_template)
    chat = ChatFormat.of(tokenizer, has_tools)
    findings = template_findings(Trained(), "mine", tokenizer, chat)
    assert [finding.code for finding in findings] == codes
    assert all("with tools and no system text" in finding.message for finding in findings)


def test_a_system_text_is_a_fix_of_tools_only_if_the_prompts_are_equal_with_it():
    system = (
        "{% if messages[0].role == 'system' %}{{ 'TOOLS Is 12 even?' }}{% else %}{{ messages[0].content }}"
    )
    for chat_template, is_fix in ((f"{system}{{% endif %}}", True), ("{{ messages[-1].content }}", False)):
        tokenizer = Tokenizer(chat_template)
        (finding,) = template_findings(Trained(), "mine", tokenizer, ChatFormat.of(tokenizer, has_tools=True))
        assert ("system text" in finding.hint) == is_fix


def test_a_chat_template_is_asked_with_thinking_off_and_on() -> None:
    written = ChatFormat.of(
        Tokenizer("{{ messages[0].content }}{% if enable_thinking %}T{% else %}F{% endif %}")
    )
    assert [chr(prompt[-1]) for prompt in written.prompts] == ["F", "T"]


@pytest.mark.parametrize("place", range(6))
def test_the_place_where_prompts_part_is_the_first_other_token(place: int) -> None:
    prompt = [10, 11, 12, 13, 14, 15]
    other = [*prompt[:place], 99, *prompt[place + 1 :]]
    difference = template_match._difference(prompt, other, Tokenizer(None))
    assert difference.startswith(f"at token {place + 1} ")


def token_findings(monkeypatch: pytest.MonkeyPatch, tokens: list[str], chat: ChatFormat) -> list[str]:
    """What E325 says of a template that writes these tokens; `<slot>` ones are tokens of its slots."""
    slots = {token for token in tokens if token.startswith("<slot")}
    monkeypatch.setattr(template_match, "_written_tokens", lambda *_: tokens)
    monkeypatch.setattr(template_match, "_token_slots", lambda _: slots)
    monkeypatch.setattr(template_match, "_matching_hint", lambda *_: "")
    findings = template_match._missing_tokens(Trained(), "mine", Tokenizer(None), chat, False)
    return [finding.message for finding in findings]


def test_a_base_model_learns_plain_text_but_no_token_of_a_slot(monkeypatch):
    base = ChatFormat(frozenset({"<known>"}))
    assert token_findings(monkeypatch, ["<known>", "<plain>"], base) == []
    (message,) = token_findings(monkeypatch, ["<known>", "<plain>", "<slot 1>", "<slot 2>"], base)
    assert "writes <slot 1>, <slot 2>, which" in message


def test_a_token_that_the_chat_template_writes_as_text_is_not_missing(monkeypatch):
    chat = ChatFormat(frozenset(), written="<said> hello", prompts=[[1]])
    assert token_findings(monkeypatch, ["<said>"], chat) == []
    (message,) = token_findings(monkeypatch, ["<said>", "<other>"], chat)
    assert "writes <other>, which" in message


def test_the_hint_names_the_templates_that_write_the_models_own_prompt(monkeypatch):
    """Of LLaMA-Factory's templates as they stand in its registry, here by name."""
    registry = types.ModuleType("llamafactory.data.template")
    registry.TEMPLATES = {
        name: Trained() for name in ("broken", "one", "two", "three", "four", "five", "system", "no")
    }
    for name, template in registry.TEMPLATES.items():
        template.mm_plugin, template.name = object(), name
    monkeypatch.setitem(sys.modules, "llamafactory.data.template", registry)
    monkeypatch.setattr(template_match, "reads_media", lambda _: False)
    monkeypatch.setattr(template_match, "expected_errors", lambda: (ValueError,))
    prompts = {"system": [[3], [2]], "no": [[3], [3]]}

    def encoded(template: Trained, _: object, __: list[dict], *others: str | None) -> object:
        if template.name == "broken":
            raise ValueError
        return prompts.get(template.name, [[1], [3]])[bool(others[0])], []

    monkeypatch.setattr(Trained, "encode_oneturn", encoded)
    chat = ChatFormat(frozenset(), prompts=[[1]], system_prompts=[[2]])
    hint = template_match._matching_hint(Tokenizer(None), chat)
    printed(hint, "one or two or three")
    only_system = ChatFormat(frozenset(), prompts=[[9]], system_prompts=[[2]])
    assert template_match._matching_hint(Tokenizer(None), only_system).startswith(
        "take the template system, or"
    )
