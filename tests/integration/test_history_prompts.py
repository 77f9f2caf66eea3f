"""Prompts of `eval` and `prove` have earlier turns as LLaMA-Factory's processor trained them."""

import json
from pathlib import Path
from typing import Any

import pytest

from tests.integration import chat_templates
from tests.integration.test_history_match import PROBES, loaded, opened, tokenizer, trained_turns
from tests.messages import printed
from tuneyard.core.llamafactory.prompt import TrainedHistory, llamafactory_encoder
from tuneyard.core.llamafactory.prompt.supervision import llamafactory_turns
from tuneyard.eval.data.prompts import choose_prompting, other_prompt
from tuneyard.eval.prove.histories import PromptWays

pytestmark = pytest.mark.slow
__all__ = ["tokenizer"]  # a fixture
PLAIN = ("two turns", "four turns", "thoughts", "a thought first", "a thought last")
SETTINGS: list[dict[str, object]] = [
    {},
    {"mask_history": True},
    {"mask_history": True, "preserve_thinking": True},
    {"enable_thinking": False},
    {"enable_thinking": None},
]


def messages(talk: str) -> list[dict]:
    """A conversation of PROBES without its last answer."""
    return [message for message, _ in PROBES[talk]][:-1]


def adapter(folder: Path, tokenizer: Any, **settings: object) -> Path:
    """An adapter's folder with its recipe, tokenizer and chat template."""
    folder.mkdir(parents=True)
    tokenizer.save_pretrained(folder)
    (folder / "training_args.yaml").write_text(json.dumps({"stage": "sft", **settings}))
    (folder / "chat_template.jinja").write_text(chat_templates.QWEN3)
    return folder


@pytest.mark.parametrize("settings", SETTINGS, ids=str)
@pytest.mark.parametrize("talk", PLAIN)
@pytest.mark.parametrize("template", ["qwen3", "qwen3_nothink", "deepseekr1", "glm4_moe", "mimo_v2"])
def test_earlier_turns_are_prompted_as_llamafactorys_processor_trained_them(
    tokenizer, template, talk, settings
):
    data = opened(tokenizer, chat_templates.QWEN3, template, "sft", **settings)
    *_, (_, prompt, answer) = trained_turns(data, loaded([PROBES[talk]], "", "")[0])
    history = TrainedHistory.of({"stage": "sft", **settings})
    encode = llamafactory_encoder(tokenizer, template, think=True, history=history)
    decode = data.module["tokenizer"].decode  # it has the tokens that the template adds
    text = decode(encode(messages(talk)))
    assert text.startswith(prompt.partition("And 13?")[0])
    assert (prompt + answer).startswith(text) or settings.get("enable_thinking", True) is not True
    turns = llamafactory_turns(tokenizer, template, think=True, history=history)
    whole = [*messages(talk), PROBES[talk][-1][0]]
    earlier = [token for question, reply in turns(whole).pairs[:-1] for token in (*question, *reply)]
    assert text.startswith(decode(earlier))


@pytest.mark.parametrize(("stage", "preserves"), [("dpo", False), ("dpo", True), ("kto", False)])
def test_earlier_turns_of_a_preference_training(tokenizer, stage, preserves):
    data = opened(tokenizer, chat_templates.QWEN3, "qwen3", "sft", preserve_thinking=preserves)
    row = [message for message, _ in PROBES["thoughts"]]
    expected, _ = data.template.encode_oneturn(data.module["tokenizer"], row, None, None)
    history = TrainedHistory.of({"stage": stage, "preserve_thinking": preserves})
    encode = llamafactory_encoder(tokenizer, "qwen3", think=True, history=history)
    assert encode(messages("thoughts")) == list(expected)


def test_an_adapter_that_was_trained_after_other_turns_is_named_with_the_turn(tokenizer, tmp_path):
    folder = adapter(tmp_path / "kept", tokenizer, template="qwen3")
    prompting = choose_prompting(tokenizer, [folder], None)
    warning = other_prompt(tokenizer, folder, prompting, None, [messages("thoughts")])
    printed(warning, folder, "turn 2", "<think>\\nIt ends", "--template qwen3")
    named = choose_prompting(tokenizer, [folder], "qwen3")
    assert "<think>\nIt ends with 2." in tokenizer.decode(named.encode(messages("thoughts")))
    assert named.keeps_thoughts and not prompting.keeps_thoughts
    assert other_prompt(tokenizer, folder, prompting, None, [messages("one turn")]) is None
    masked = adapter(tmp_path / "masked", tokenizer, template="qwen3", mask_history=True)
    prompting = choose_prompting(tokenizer, [masked], None)
    assert other_prompt(tokenizer, masked, prompting, None, [messages("thoughts")]) is None


@pytest.mark.parametrize(
    ("chat", "turn"), [("LLAMA31", "turn 2"), ("GLM4", "turn 2"), ("LLAMA3", "turn 2"), ("HERMES", "")]
)
def test_a_training_without_a_template_is_compared_by_llamafactorys_reading(tokenizer, tmp_path, chat, turn):
    """LLaMA-Factory writes the begin of the text before each question, if the chat template has one."""
    folder = adapter(tmp_path / "run", tokenizer)
    (folder / "chat_template.jinja").write_text(getattr(chat_templates, chat))
    prompting = choose_prompting(tokenizer, [folder], None)
    assert other_prompt(tokenizer, folder, prompting, None, [messages("one turn")]) is None
    warning = other_prompt(tokenizer, folder, prompting, None, [messages("two turns")])
    assert bool(warning) == bool(turn)
    if warning:
        printed(warning, folder, turn)


@pytest.mark.parametrize(
    ("talks", "settings", "fix"),
    [
        (["thoughts", "two turns"], {}, "Both are equal after a training with mask_history: true."),
        (["two turns"], {}, "Both are equal after a training with mask_history: true."),
        (["thoughts", "two turns"], {"mask_history": True}, ""),
        (["one turn"], {}, ""),
    ],
)
def test_the_cause_of_other_prompts_names_the_turn_and_a_setting(tokenizer, talks, settings, fix):
    data = opened(tokenizer, chat_templates.QWEN3, "qwen3", "sft")
    history = TrainedHistory.of({"stage": "sft", **settings})
    served = data.module["tokenizer"]
    encoders = {
        "training": llamafactory_encoder(served, "qwen3", history=history),
        "chat template": choose_prompting(served, (), None).encode,
    }
    ways = PromptWays(encoders, served, "qwen3", history)
    prompts = [messages(talk) for talk in talks]
    rows = [
        row for row, talk in enumerate(prompts) if len({tuple(way(talk)) for way in encoders.values()}) > 1
    ]
    assert bool(rows) == bool(fix)
    if fix:
        cause = ways.cause("chat template", prompts, rows, served.decode)
        assert cause.sentence.startswith("Turn 2 of row 0 is trained after") and cause.sentence.endswith(fix)
