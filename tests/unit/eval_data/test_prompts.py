"""Whether an adapter is prompted as it was trained, as far as its folder tells."""

import json
from pathlib import Path

import pytest

from testing.tiny import CHATML
from tests.messages import printed, raises
from tuneyard.core.errors import ContentError
from tuneyard.eval.data.prompts import choose_prompting, other_prompt

OTHER = "{% for m in messages %}{{ m['content'] }} {% endfor %}"


def trained(folder: Path, where: str, **settings: str) -> Path:
    """A run's folder, or a checkpoint in it, with the recipe where one of our tools or theirs leaves it."""
    checkpoint = folder / "checkpoint-3"
    checkpoint.mkdir(parents=True)
    text = json.dumps({"inputs": {"settings": settings}} if where == "training.json" else settings)
    (folder / where).write_text(text)
    return checkpoint


@pytest.fixture
def tokenizer(model):
    return model.tokenizer


@pytest.mark.parametrize("where", ["training.json", "recipe.yaml", "training_args.yaml"])
def test_an_adapter_asked_as_it_was_trained_is_no_news(tokenizer, tmp_path, where) -> None:
    folder = trained(tmp_path / "run", where, stage="sft")
    assert other_prompt(tokenizer, folder, choose_prompting(tokenizer, [folder], None), None) is None
    assert (
        other_prompt(tokenizer, tmp_path, choose_prompting(tokenizer, [], None), "qwen") is None
    )  # no recipe


@pytest.mark.parametrize("where", ["training.json", "recipe.yaml", "training_args.yaml"])
def test_another_prompt_than_in_training_is_told(tokenizer, tmp_path, where) -> None:
    folder = trained(tmp_path / "run", where, stage="sft")
    (tmp_path / "chat_template.jinja").write_text(OTHER)
    asked = choose_prompting(tokenizer, [tmp_path], None)
    told = other_prompt(tokenizer, folder, asked, "other")
    printed(told, folder, tmp_path, "--template")


@pytest.mark.slow  # imports LLaMA-Factory
def test_the_template_that_a_recipe_names_is_compared_by_its_ids(tokenizer, tmp_path) -> None:
    folder = trained(tmp_path / "run", "training.json", template="chatml")
    (folder / "chat_template.jinja").write_text(CHATML)  # which has a system text of its own
    asked = choose_prompting(tokenizer, [folder], None)
    assert other_prompt(tokenizer, folder, asked, None).endswith(": --template chatml prompts with it")
    bare = "{{ '<|im_start|>' + m['role'] + '\\n' + m['content'] + '<|im_end|>\\n' }}"
    ask = "{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"
    (folder / "chat_template.jinja").write_text(f"{{% for m in messages %}}{bare}{{% endfor %}}{ask}")
    assert other_prompt(tokenizer, folder, choose_prompting(tokenizer, [folder], None), None) is None


def test_a_broken_recipe_is_named(tokenizer, tmp_path) -> None:
    (tmp_path / "recipe.yaml").write_text("a: [1")
    with raises(ContentError, "recipe.yaml:2", "YAML"):
        other_prompt(tokenizer, tmp_path, choose_prompting(tokenizer, [], None), None)
