"""The chat template of a folder that has several: `default` is taken, and without one nothing is guessed."""

from pathlib import Path

import pytest

from testing.tiny import CHATML, make_weightless, write_adapter
from tests.json_files import write_json
from tests.messages import raises
from tuneyard.core.errors import ContentError
from tuneyard.core.llamafactory.prompt import find_chat_template
from tuneyard.eval.data.prompts import choose_prompting

TALK = [{"role": "user", "content": "Q"}]


def listed(folder: Path, **templates: str) -> None:
    named = [{"name": name, "template": text} for name, text in templates.items()]
    write_json(folder / "tokenizer_config.json", {"chat_template": named})


def in_a_folder(folder: Path, **templates: str) -> None:
    (folder / "additional_chat_templates").mkdir()
    for name, text in templates.items():
        (folder / f"additional_chat_templates/{name}.jinja").write_text(text)


@pytest.mark.parametrize("save", [listed, in_a_folder])
def test_default_is_taken_of_several(tmp_path, save) -> None:
    save(tmp_path, tool_use="T", default="D", rag="R")
    assert find_chat_template(tmp_path).text == "D"
    (tmp_path / "chat_template.jinja").write_text("newest")
    assert find_chat_template(tmp_path).text == "newest"


@pytest.mark.parametrize("save", [listed, in_a_folder])
def test_several_without_default_are_refused_by_name(tmp_path, save) -> None:
    save(tmp_path, tool_use="T", rag="R")
    with raises(ContentError, tmp_path, "tool_use", "rag", "default"):
        find_chat_template(tmp_path)


@pytest.mark.parametrize("broken", [[1], [{"name": "default"}], [{"name": "default", "template": 3}]])
def test_a_list_without_a_text_is_refused(tmp_path, broken) -> None:
    write_json(tmp_path / "tokenizer_config.json", {"chat_template": broken})
    with raises(ContentError, tmp_path / "tokenizer_config.json", "default"):
        find_chat_template(tmp_path)


def test_a_base_with_several_templates_is_prompted_with_default(tmp_path) -> None:
    from transformers import AutoTokenizer

    base = make_weightless(tmp_path / "base")
    tokenizer = AutoTokenizer.from_pretrained(base)
    expected = tokenizer.apply_chat_template(TALK, add_generation_prompt=True, tokenize=False)
    tokenizer.chat_template = {"tool_use": "T", "default": CHATML}
    assert tokenizer.decode(choose_prompting(tokenizer, (), None).encode(TALK)) == expected
    tokenizer.chat_template = {"tool_use": "T"}
    with raises(ContentError, base, "tool_use", "default"):
        choose_prompting(tokenizer, (), None)
    adapter = write_adapter(tmp_path / "saved")
    (adapter / "chat_template.jinja").write_text(CHATML)
    assert tokenizer.decode(choose_prompting(tokenizer, [adapter], None).encode(TALK)) == expected
