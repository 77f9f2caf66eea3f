"""Which of LLaMA-Factory's templates fit which model, by tiny tokenizers with the tokens of real ones."""

import copy
from pathlib import Path
from typing import Any

import pytest

from testing.tiny import CHATML, make_base, make_llama3, make_tiny
from tuneyard.core.llamafactory.loader import RecipeData, import_offline
from tuneyard.core.llamafactory.prompt.template_match import ChatFormat, TemplateFinding, template_findings

pytestmark = pytest.mark.slow
# As Zephyr's: the marks of turns are plain text to its tokenizer.
ZEPHYR = (
    "{% for m in messages %}{{ '<|' + m['role'] + '|>\n' + m['content'] + eos_token }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|assistant|>\n' }}{% endif %}"
)
NO_SYSTEM = (
    "{% if messages[0]['role'] == 'system' %}{{ raise_exception('no system text') }}{% endif %}" + CHATML
)


@pytest.fixture(scope="module")
def tokenizers(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    import_offline()
    from transformers import AutoTokenizer

    folder: Path = tmp_path_factory.mktemp("tokenizers")
    made = {
        "chatml": AutoTokenizer.from_pretrained(make_tiny(folder / "chatml")),
        "llama3": AutoTokenizer.from_pretrained(make_llama3(folder / "llama3")),
        "base": AutoTokenizer.from_pretrained(make_base(folder / "base")),
    }
    for name, chat_template in {"zephyr": ZEPHYR, "no-system": NO_SYSTEM}.items():
        made[name] = copy.deepcopy(made["chatml"])
        made[name].chat_template = chat_template
    made["bare-base"] = copy.deepcopy(made["base"])  # without ChatML's tokens
    made["bare-base"].eos_token = "<|endoftext|>"
    made["other-end"] = copy.deepcopy(made["chatml"])  # answers end with <|endoftext|>
    made["other-end"].chat_template = CHATML.replace(
        "m['content'] + '<|im_end|>",
        "m['content'] + ('<|endoftext|>' if m.role == 'assistant' else '<|im_end|>') + '",
    )
    made["other-end"].eos_token = "<|endoftext|>"
    return made


def findings(tokenizer: Any, name: str | None, **options: bool) -> list[TemplateFinding]:
    """Judge a template as `with_matching_template` does, on a copy of the tokenizer."""
    from llamafactory.data import template as templates

    tokenizer = copy.deepcopy(tokenizer)
    chat = ChatFormat.of(tokenizer)
    template = copy.copy(templates.TEMPLATES[name or "empty"])
    if hasattr(template, "enable_thinking"):
        template.enable_thinking = True  # whatever a test before has told the shared one
    if name is None and tokenizer.chat_template:
        template = templates.parse_template(tokenizer)
    template.fix_special_tokens(tokenizer)
    return template_findings(template, name, tokenizer, chat, **options)


@pytest.mark.parametrize(
    ("model", "template", "codes"),
    [
        ("chatml", None, []),
        ("chatml", "mimo", []),  # with the very default system text
        ("chatml", "qwen", ["N352"]),
        ("chatml", "chatml", ["N352"]),
        ("chatml", "qwen3", ["N352"]),  # which thinks
        ("chatml", "alpaca", ["W352"]),
        ("chatml", "default", ["W352"]),
        ("chatml", "vicuna", ["W352"]),
        ("chatml", "llama2", ["W352"]),
        ("chatml", "llama3", ["E325"]),
        ("chatml", "gemma", ["E325"]),
        ("chatml", "chatglm3", ["E325"]),
        ("chatml", "zephyr", ["E325"]),
        ("llama3", None, []),
        ("llama3", "llama3", []),
        ("llama3", "alpaca", ["W352"]),
        ("zephyr", "zephyr", ["N352"]),
        ("no-system", "mimo", []),
        ("other-end", "mimo", ["E326"]),
        ("base", None, []),
        ("base", "alpaca", []),
        ("base", "chatml", []),
        ("base", "llama2", []),
        ("base", "chatglm3", ["E325"]),  # [gMASK] would be None among the ids
        ("base", "llama3", ["E325"]),  # <|eot_id|> would be a new token, beyond the embedding
        ("base", "zephyr", []),  # plain text, as Zephyr itself was trained on a base model
    ],
)
def test_what_is_found(tokenizers, model, template, codes):
    found = findings(tokenizers[model], template)
    assert [finding.code for finding in found] == codes, found


def test_tokens_that_a_resized_vocabulary_learns_are_no_error(tokenizers):
    """Without it they are one: `test_what_is_found`."""
    assert findings(tokenizers["base"], "llama3", resizes=True) == []


def test_a_default_system_text_stays_in_its_recipe(tokenizers):
    """LLaMA-Factory writes it into the template that all recipes of a process share."""
    from types import SimpleNamespace

    from llamafactory.data.template import TEMPLATES

    before = TEMPLATES["qwen"].default_system
    settings = {
        "train_on_prompt": False,
        "tool_format": None,
        "enable_thinking": None,
        "preserve_thinking": None,
    }
    arguments = SimpleNamespace(template="qwen", default_system="Be terse.", **settings)
    data = RecipeData(None, arguments, None, None, module={"tokenizer": copy.deepcopy(tokenizers["chatml"])})
    assert data.with_template().template.default_system == "Be terse."
    assert TEMPLATES["qwen"].default_system == before
