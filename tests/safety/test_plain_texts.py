"""Texts that look like markers stay texts, and odd names leave pictures whole: SECURITY.md, "Texts"."""

import xml.etree.ElementTree as ET
from pathlib import Path

import pytest
from matplotlib.figure import Figure

from tests.unit.recipes.make import write_recipe
from tuneyard.compiler.chat.message_forms import common_messages, is_transcript
from tuneyard.core.drawing.plots import figure_bytes
from tuneyard.recipes.machine.hardware import Machine
from tuneyard.recipes.recipe import read_recipe
from tuneyard.recipes.rules.setting_rules import problems_of

TEXTS = (
    "<|im_start|>assistant is the marker of ChatML.",
    "<|im_start|>tool_call begins a call",
    "<|user|> marks what a user writes, <|assistant|> the answer",
    "<|start_header_id|>user, then <|end_header_id|>",
    "<|im_start|>",
    "<|system|>: a token",
)


@pytest.mark.parametrize("text", TEXTS)
@pytest.mark.parametrize("whole", [False, True])
def test_a_text_about_markers_is_no_conversation(text: str, whole: bool) -> None:
    assert not is_transcript(text)
    assert common_messages(text, {}, whole=whole) == text


@pytest.mark.parametrize(
    "text",
    [
        "<|im_start|>user\nhi<|im_end|>\n<|im_start|>assistant\nyes<|im_end|>\n",
        "<|im_start|>user \r\nhi<|im_end|>\r\n<|im_start|>assistant\r\nyes<|im_end|>",
        "<|user|>\nhi</s>\n<|assistant|>\nyes</s>",
        "<|begin_of_text|><|start_header_id|>user<|end_header_id|>\n\nhi<|eot_id|>"
        "<|start_header_id|>assistant<|end_header_id|>\n\nyes<|eot_id|>",
        "<s>[INST] hi [/INST] yes</s>",
    ],
)
def test_conversations_in_the_templates_are_still_read(text: str) -> None:
    turns = common_messages(text, {})
    assert isinstance(turns, list)
    assert [(turn["role"], turn["content"].strip()) for turn in turns] == [
        ("user", "hi"),
        ("assistant", "yes"),
    ]


def test_a_system_text_of_llama_2_is_still_read() -> None:
    turns = common_messages("<s>[INST] <<SYS>> Be brief. <</SYS>> hi [/INST] yes</s>", {})
    assert isinstance(turns, list)
    contents = [(turn["role"], turn["content"].strip()) for turn in turns]
    assert contents == [("system", "Be brief."), ("user", "hi"), ("assistant", "yes")]


@pytest.mark.parametrize("name", ["a\x01b", "a\x1b[31mb", "a\x0b\x0c", "a\ufffeb", "a<b>&c", "模\x02型"])
def test_a_name_with_control_characters_leaves_the_svg_well_formed(name: str) -> None:
    figure = Figure(figsize=(2, 2))
    axes = figure.add_subplot()
    axes.set_title(name)
    axes.set_xticks([0, 1], [name, "b"])
    root = ET.fromstring(figure_bytes(figure, "svg"))
    assert any("b" in (text or "") for text in root.itertext())


@pytest.mark.timeout(30)
@pytest.mark.parametrize("form", ["svg", "png"])
def test_a_name_of_100_000_letters_is_cut_on_a_plot(form: str) -> None:
    """Laying out its letters took 75 s."""
    figure = Figure(figsize=(2, 2))
    axes = figure.add_subplot()
    axes.set_title("a" * 100_000)
    axes.set_xticks([0, 1], ["b" * 100_000, "c"])
    content = figure_bytes(figure, form)
    assert form == "png" or (b"a" * 600 in content and b"b" * 700 not in content)


@pytest.mark.parametrize("value", [[], [[]], {}, ["a"], {"a": 1}])
@pytest.mark.parametrize("key", ["template", "stage", "finetuning_type", "lr_scheduler_type", "optim"])
def test_a_setting_that_is_no_text_is_a_problem_and_no_traceback(
    tmp_path: Path, key: str, value: object
) -> None:
    recipe = read_recipe(write_recipe(tmp_path, **{key: value}))
    assert any(problem.field == key for problem in problems_of(recipe, Machine(())))
