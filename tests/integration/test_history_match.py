"""Earlier turns in training and in serving: LLaMA-Factory's processor against transformers' chat templates.

The expected first difference comes from ids and labels of LLaMA-Factory's processor, and from
`apply_chat_template` with messages that are written here in OpenAI's form.
"""

import copy
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest
from datasets import Dataset

from testing.tiny import make_tiny
from tests.integration import chat_templates
from tuneyard.core.llamafactory.loader import WHOLE, RecipeData, import_offline
from tuneyard.core.llamafactory.prompt.history_findings import history_findings

pytestmark = pytest.mark.slow
SETTINGS = {
    "train_on_prompt": False, "tool_format": None, "default_system": None, "enable_thinking": True,
    "preserve_thinking": False, "mask_history": False,
}  # fmt: skip
TOOL = {"name": "even", "description": "Is it?", "parameters": {"type": "object", "properties": {}}}
TOOLS = '[{"name": "even", "description": "Is it?", "parameters": {"type": "object", "properties": {}}}]'
THOUGHT = "<think>\nIt ends with 2.\n</think>\n\n"
CALL = '{"name": "even", "arguments": {"n": 12}}'
CALLED = [{"id": "call00000", "type": "function", "function": {"name": "even", "arguments": {"n": 12}}}]


def user(text: str) -> tuple[dict, dict]:
    """A question in LLaMA-Factory's form and in OpenAI's."""
    return ({"role": "user", "content": text},) * 2


def says(text: str) -> tuple[dict, dict]:
    """An answer in both forms."""
    return ({"role": "assistant", "content": text},) * 2


def calls(thought: str = "") -> tuple[dict, dict]:
    """A call in both forms."""
    called = {"role": "assistant", "content": thought.removesuffix("\n"), "tool_calls": CALLED}
    return {"role": "function", "content": thought + CALL}, called


RESULT = (
    {"role": "observation", "content": "true"},
    {"role": "tool", "content": "true", "tool_call_id": "call00000"},
)
PROBES = {
    "one turn": [user("Is 12 even?"), says("yes")],
    "two turns": [user("Is 12 even?"), says("yes"), user("And 13?"), says("no")],
    "four turns": [user("Is 12 even?"), says("yes"), user("And 13?"), says("no")] * 2,
    "thoughts": [user("Is 12 even?"), says(f"{THOUGHT}yes"), user("And 13?"), says(f"{THOUGHT}no")],
    "a thought first": [user("Is 12 even?"), says(f"{THOUGHT}yes"), user("And 13?"), says("no")],
    "a thought last": [user("Is 12 even?"), says("yes"), user("And 13?"), says(f"{THOUGHT}no")],
    "a call": [user("Is 12 even?"), calls(), RESULT, says("yes")],
    "a call after a thought": [user("Is 12 even?"), calls(THOUGHT), RESULT, says(f"{THOUGHT}yes")],
    "a question after a call": [
        user("Is 12 even?"), calls(THOUGHT), RESULT, says(f"{THOUGHT}yes"), user("And 13?"),
        says(f"{THOUGHT}no"),
    ],
    "spaces": [user(" Is 12 even?\n"), says("yes"), user("And 13?"), says("no")],
}  # fmt: skip


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Any:
    import_offline()
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(make_tiny(tmp_path_factory.mktemp("model")))
    tokenizer.bos_token = "<|endoftext|>"
    return tokenizer


def opened(tokenizer: Any, chat_template: str, template: str | None, stage: str, **settings: object) -> Any:
    """A recipe's data arguments, template and tokenizer, as for a training."""
    tokenizer = copy.deepcopy(tokenizer)
    tokenizer.chat_template = chat_template
    arguments = SimpleNamespace(template=template, **{**SETTINGS, **settings})
    module = {"tokenizer": tokenizer, "processor": None}
    return RecipeData(None, arguments, None, SimpleNamespace(stage=stage), module=module).with_template()


def loaded(talks: list[list[tuple[dict, dict]]], system: str, tools: str) -> Dataset:
    """Rows as LLaMA-Factory's loader gives them."""
    rows = []
    for talk in talks:
        *prompt, answer = [message for message, _ in talk]
        row = {"_prompt": prompt, "_response": [answer], "_system": system, "_tools": tools}
        rows.append({**row, "_images": None, "_videos": None, "_audios": None})
    return Dataset.from_list(rows)


def trained_turns(data: RecipeData, row: dict) -> Iterator[tuple[int, str, str]]:
    """The turn, what is before its answer and the answer, by LLaMA-Factory's processor."""
    batch = {key: [value] for key, value in row.items()}
    encoded = data.encoder(**WHOLE).preprocess_dataset(batch)
    ids, labels = encoded["input_ids"][0], encoded["labels"][0]
    decode, last = data.module["tokenizer"].decode, len(row["_prompt"]) // 2 + 1
    begins = [at for at, label in enumerate(labels) if label != -100 and (at == 0 or labels[at - 1] == -100)]
    for turn, begin in enumerate(begins, last - len(begins) + 1):
        end = next((at for at in range(begin, len(ids)) if labels[at] == -100), len(ids))
        yield turn, decode(ids[:begin]), decode(ids[begin:end])


def expected_turn(data: RecipeData, chat_template: str, talk: list, system: str, tools: str) -> int:
    """The first turn whose prompt no mode of the chat template writes, 0 without one."""
    tokenizer = data.module["tokenizer"]
    (row,) = loaded([talk], system, tools)
    for turn, prompt, answer in trained_turns(data, row):
        messages = [served for _, served in talk[: 2 * turn - 1]]
        if system:
            messages = [{"role": "system", "content": system}, *messages]
        served_tools = [{"type": "function", "function": TOOL}] if tools else None
        texts = [
            tokenizer.apply_chat_template(
                messages, tools=served_tools, chat_template=chat_template, tokenize=False,
                add_generation_prompt=True, enable_thinking=thinks,
            )
            for thinks in (False, True)
        ]  # fmt: skip
        if not any(text[: len(prompt)] == prompt and (prompt + answer).startswith(text) for text in texts):
            return turn
    return 0


def named_settings(hint: str) -> dict[str, object]:
    """The settings of a fix: `template: qwen3 with mask_history: true makes every turn equal`."""
    text, _, _ = hint.partition(" makes every turn equal")
    pairs = [pair.split(": ") for pair in text.replace(" with ", ", ").split(", ")]
    return {key: {"true": True, "false": False}.get(value, value) for key, value in pairs}


CASES = [
    (template, chat, talk)
    for template, chat in [
        ("qwen3", "QWEN3"), ("qwen3_nothink", "QWEN3"), (None, "QWEN3"), ("deepseekr1", "DEEPSEEK_R1"),
        ("deepseekr1", "DEEPSEEK_R1"), ("glm4", "GLM4"), (None, "GLM4"), ("glm4_moe", "GLM45"),
        ("llama3", "LLAMA3"), (None, "LLAMA31"), ("mistral", "MISTRAL"), ("chatml", "HERMES"),
    ]
    for talk in PROBES
    if "call" not in talk or chat == "QWEN3"
]  # fmt: skip


@pytest.mark.parametrize(("template", "chat", "talk"), CASES)
def test_the_first_turn_that_differs_is_named_with_a_fix_that_makes_it_equal(tokenizer, template, chat, talk):
    chat_template = getattr(chat_templates, chat)
    tools = TOOLS if "call" in talk else ""
    system = "" if chat == "MISTRAL" else "You are terse."
    data = opened(tokenizer, chat_template, template, "sft")
    expected = expected_turn(data, chat_template, PROBES[talk], system, tools)
    findings = history_findings(data, loaded([PROBES[talk]], system, tools), "talks")
    if len(PROBES[talk]) > 2:
        assert [finding.code for finding in findings] == (["W354"] if expected else [])
    for finding in findings:
        if finding.code == "W354":
            assert f"turn {expected} of row 1 of talks" in finding.message
        if "makes every turn equal" in finding.hint:
            settings = {"template": template, **named_settings(finding.hint)}
            changed = opened(tokenizer, chat_template, settings.pop("template"), "sft", **settings)
            assert expected_turn(changed, chat_template, PROBES[talk], system, tools) == 0
    assert bool(findings) or not expected


CALLS = ("a call after a thought", "a question after a call")


@pytest.mark.parametrize(
    ("template", "talks", "hint"),
    [
        ("qwen3", ["two turns"], "template: qwen3_nothink makes every turn equal"),
        ("qwen3", ["thoughts"], "mask_history: true makes every turn equal"),
        ("qwen3_nothink", ["thoughts"], "template: qwen3 with mask_history: true makes every turn equal"),
        ("qwen3_nothink", CALLS, "take the thoughts out of the answers before the last one"),
        ("qwen3", CALLS, "rows of one turn are trained as they are served"),
    ],
)
def test_the_fix_of_qwen3(tokenizer, template, talks, hint):
    tools = TOOLS if talks == CALLS else ""
    data = opened(tokenizer, chat_templates.QWEN3, template, "sft")
    (finding,) = history_findings(data, loaded([PROBES[talk] for talk in talks], "", tools), "talks")
    assert finding.hint.endswith(hint)


def test_stages_of_preferences_learn_the_last_answer_after_earlier_ones_without_thoughts(tokenizer):
    rows = loaded([PROBES["thoughts"], PROBES["two turns"]], "", "")
    data = opened(tokenizer, chat_templates.QWEN3, "qwen3", "dpo")
    assert history_findings(data, rows, "talks") == []
    data = opened(tokenizer, chat_templates.QWEN3, "qwen3", "dpo", preserve_thinking=True)
    (finding,) = history_findings(data, rows, "talks")
    assert "turn 2 of row 1" in finding.message
    assert finding.hint == "preserve_thinking: false makes every turn equal"


def test_a_chat_template_that_trims_texts_is_named_at_its_turn(tokenizer):
    data = opened(tokenizer, chat_templates.LLAMA3, "llama3", "sft")
    (finding,) = history_findings(data, loaded([PROBES["two turns"], PROBES["spaces"]], "", ""), "talks")
    assert "turn 1 of row 2 of talks" in finding.message
    assert finding.hint == "take the white space around its texts away"


def test_a_refused_conversation_is_named_once(tokenizer):
    data = opened(tokenizer, chat_templates.MISTRAL, "mistral", "sft")
    rows = loaded([PROBES["one turn"], PROBES["two turns"], PROBES["four turns"]], "Be terse.", "")
    (finding,) = history_findings(data, rows, "talks")
    assert "refuses turn 1 of row 1 of talks: only user, assistant and tool" in finding.message


@pytest.mark.parametrize(
    "template", ["chatml", "llama3", "glm4", "mistral", "qwen", "phi", "gemma", "vicuna"]
)
def test_templates_that_keep_each_turn_have_no_finding_on_the_chat_template_that_llamafactory_writes(
    tokenizer, template
):
    from llamafactory.data.template import TEMPLATES

    chat_template = TEMPLATES[template]._get_jinja_template(tokenizer)
    data = opened(tokenizer, chat_template, template, "sft")
    talks = [PROBES[name] for name in PROBES if "call" not in name]
    assert history_findings(data, loaded(talks, "", ""), "talks") == []


def test_a_made_up_second_turn_is_a_note(tokenizer):
    data = opened(tokenizer, chat_templates.QWEN3, "qwen3", "sft")
    (finding,) = history_findings(data, loaded([PROBES["one turn"]], "", ""), "talks")
    assert finding.code == "N354" and "turn 2" in finding.message
    data = opened(tokenizer, chat_templates.QWEN3, "qwen3_nothink", "sft")
    assert history_findings(data, loaded([PROBES["one turn"]], "", ""), "talks") == []


@pytest.mark.parametrize(
    "change",
    [{"_response": []}, {"_response": [{"role": "assistant", "content": None}]}, {"_prompt": []}],
)
def test_rows_that_llamafactory_drops_are_not_compared(tokenizer, change):
    """They have findings of their own."""
    data = opened(tokenizer, chat_templates.QWEN3, "qwen3", "sft")
    (row,) = loaded([PROBES["thoughts"]], "", "")
    assert history_findings(data, Dataset.from_list([{**row, **change}]), "talks") == []
    assert len(history_findings(data, Dataset.from_list([{**row, **change}, row]), "talks")) == 1


@pytest.mark.parametrize(("system", "codes"), [("", []), ("Be terse.", ["W354"])])
def test_tools_that_the_chat_template_leaves_out_are_said_once(tokenizer, system, codes):
    """Without a system text W352 says it, by the template alone."""
    data = opened(tokenizer, chat_templates.HERMES, "chatml", "sft")
    findings = history_findings(data, loaded([PROBES["a call"]], system, TOOLS), "talks")
    assert [finding.code for finding in findings] == codes
