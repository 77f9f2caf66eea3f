"""Tokenizer, template and end tokens of a training are read once, for fuse, export, serve and eval alike."""

from pathlib import Path

import pytest

from tests.json_files import write_json
from tests.messages import raises
from tuneyard.core.errors import ContentError, LimitError
from tuneyard.core.llamafactory.prompt.rendering import template_renderer
from tuneyard.core.llamafactory.prompt.trained_files import read_trained

TURNS = "{% for m in messages %}<U>{{ m['content'] }}<E>{% endfor %}"
MARKED = (
    "{% for m in messages %}{% if m['role'] == 'assistant' %}{% generation %}{{ m['content'] }}<E>"
    "{% endgeneration %}{% else %}<U>{{ m['content'] }}{% endif %}{% endfor %}"
)


def save_tokenizer(folder: Path, *added: str, **settings: object) -> None:
    """Write a tokenizer of two words, with added tokens from id 2 on."""
    tokens = [{"id": number, "content": text, "special": True} for number, text in enumerate(added, start=2)]
    write_json(
        folder / "tokenizer.json",
        {"model": {"type": "BPE", "vocab": {"a": 0, "b": 1}, "merges": []}, "added_tokens": tokens},
    )
    write_json(folder / "tokenizer_config.json", settings)


@pytest.fixture
def base(tmp_path: Path) -> Path:
    """A base that ends at <eos> (id 2) and has <U>, <E> and <other>."""
    folder = tmp_path / "base"
    folder.mkdir()
    save_tokenizer(folder, "<eos>", "<U>", "<E>", "<other>", eos_token="<eos>", bos_token="<other>")
    write_json(folder / "config.json", {"eos_token_id": 2})
    return folder


@pytest.fixture
def adapter(tmp_path: Path) -> Path:
    folder = tmp_path / "adapter"
    folder.mkdir()
    return folder


@pytest.mark.parametrize(
    ("template", "ends"),
    [
        (TURNS, (2, 4)),
        (MARKED, (2, 4)),
        (TURNS.replace("<E>", "\n<other><E>"), (2, 5)),
        (TURNS.replace("<E>", ""), (2,)),  # the end token alone follows
        ("{{ 1", (2,)),  # damaged: told where a prompt is written
        ("{{ raise_exception('no') }}", (2,)),
    ],
)
def test_an_answer_ends_at_the_token_that_the_template_writes_after_it(base, adapter, template, ends) -> None:
    (adapter / "chat_template.jinja").write_text(template)
    assert read_trained(adapter, base).ends == ends


def test_settings_alone_change_the_special_tokens_of_the_base(base, adapter) -> None:
    write_json(adapter / "tokenizer_config.json", {"eos_token": {"content": "<E>"}})
    trained = read_trained(adapter, base)
    assert trained.folder == base and trained.special == {"eos_token": "<E>", "bos_token": "<other>"}
    assert trained.ends == (4, 2)
    write_json(adapter / "tokenizer_config.json", {"eos_token": "<none>"})
    with raises(ContentError, adapter / "tokenizer_config.json", "<none>", "tokenizer.json"):
        read_trained(adapter, base)


def test_a_whole_tokenizer_goes_before_the_bases(base, adapter) -> None:
    save_tokenizer(adapter, "<eos>", "<E>", eos_token="<E>")
    (base / "chat_template.jinja").write_text(TURNS)
    trained = read_trained(adapter, base)
    assert trained.folder == adapter and trained.special == {"eos_token": "<E>"}
    assert trained.template_text == TURNS and trained.ends == (3, 2)


def test_ends_of_the_adapters_own_generation_config_count(base, adapter) -> None:
    write_json(adapter / "generation_config.json", {"eos_token_id": [5, 3]})
    assert read_trained(adapter, base).ends == (2, 5, 3)


def test_a_template_without_an_end_is_stopped_with_its_place(base, adapter, monkeypatch) -> None:
    monkeypatch.setattr("tuneyard.core.errors.TIME_LIMIT", 0.1)
    loops = "{% for i in range(99999) %}{% for j in range(99999) %}{% endfor %}{% endfor %}"
    (adapter / "chat_template.jinja").write_text(loops)
    with raises(LimitError, adapter / "chat_template.jinja"):
        read_trained(adapter, base)


def test_a_template_is_rendered_as_transformers_does() -> None:
    from transformers.utils.chat_template_utils import render_jinja_template

    talk = [{"role": "user", "content": "<é>"}, {"role": "assistant", "content": "ja"}]
    template = MARKED + "{{ messages | tojson }}{{ messages[0] | tojson(indent=2) }}"
    (expected,), _ = render_jinja_template([talk], chat_template=template)
    assert template_renderer(template, {})(talk, False) == expected
