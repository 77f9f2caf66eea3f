"""The prompt that is scored is the prompt that LLaMA-Factory trains on, id by id."""

import json
from itertools import chain

import pytest

from testing.tiny import CHATML
from tests.integration.templates import PROBES, SMOLLM2, TEMPLATES
from tuneyard.core.llamafactory.prompt import (
    chat_renderer,
    llamafactory_encoder,
    prompt_and_answer,
    prompt_ids,
)

pytestmark = pytest.mark.slow  # importing LLaMA-Factory takes 10 s
YES = {"role": "assistant", "content": "yes"}


def trained_ids(tokenizer, messages, template, tools=None):
    """The ids before the answer, the last message, as LLaMA-Factory's supervised preprocessing masks them."""
    from llamafactory.data.template import get_template_and_fix_tokenizer
    from llamafactory.hparams import DataArguments

    found = get_template_and_fix_tokenizer(tokenizer, DataArguments(template=template))
    system = messages[0]["content"] if messages[0]["role"] == "system" else None
    turns = [m for m in messages if m["role"] != "system"]
    *before, (last, answer) = found.encode_multiturn(tokenizer, turns, system, tools)
    return [*chain.from_iterable(source + target for source, target in before), *last], answer


@pytest.mark.parametrize("talk", PROBES.values(), ids=PROBES)
@pytest.mark.parametrize("name", TEMPLATES)
def test_ids_equal_llamafactorys(tokenizer, name, talk) -> None:
    jinja = prompt_ids(tokenizer, chat_renderer(tokenizer, TEMPLATES[name]), talk)
    expected, answer = trained_ids(tokenizer, [*talk, YES], name)
    assert jinja == llamafactory_encoder(tokenizer, name)(talk) == expected
    assert answer[: len(answer) - 2] == tokenizer("yes", add_special_tokens=False)["input_ids"]


@pytest.mark.parametrize("talk", PROBES.values(), ids=PROBES)
@pytest.mark.parametrize("system", ["You are a helpful assistant.", SMOLLM2, f"{SMOLLM2}."])
def test_a_recipe_without_template_trains_on_the_tokenizers_own(tokenizer, system, talk) -> None:
    own = CHATML.replace("You are a helpful assistant.", system)
    tokenizer.chat_template = own
    expected, _ = trained_ids(tokenizer, [*talk, YES], None)
    assert prompt_ids(tokenizer, chat_renderer(tokenizer, own), talk) == expected


def test_thinking_is_off_in_llamafactorys_reasoning_templates(tokenizer) -> None:
    ids = llamafactory_encoder(tokenizer, "qwen3")(PROBES["plain"])
    assert tokenizer.decode(ids).endswith("<|im_start|>assistant\n<think>\n\n</think>\n\n")


TOOLS_PROMPT = """

# Tools

You may call one or more functions to assist with the user query.

You are provided with function signatures within <tools></tools> XML tags:
<tools>{% for tool in tools %}
{{ tool | tojson }}{% endfor %}
</tools>

For each function call, return a json object with function name and arguments within <tool_call></tool_call> \
XML tags:
<tool_call>
{"name": <function-name>, "arguments": <args-json-object>}
</tool_call>"""
CALLING = (  # ChatML with tools as Qwen2.5 writes them, in few words
    "{% set system = 'You are Qwen, created by Alibaba Cloud. You are a helpful assistant.' %}"
    "{% if messages[0].role == 'system' %}{% set system = messages[0].content %}"
    "{% set messages = messages[1:] %}{% endif %}"
    "{{ '<|im_start|>system\\n' + system }}{% if tools %}TOOLS{% endif %}{{ '<|im_end|>\\n' }}"
    "{% for m in messages %}{% set before, after = loop.previtem, loop.nextitem %}"
    "{% if m.role == 'tool' %}{% if before.role != 'tool' %}{{ '<|im_start|>user' }}{% endif %}"
    "{{ '\\n<tool_response>\\n' + m.content + '\\n</tool_response>' }}"
    "{% if not after or after.role != 'tool' %}{{ '<|im_end|>\\n' }}{% endif %}"
    "{% else %}{{ '<|im_start|>' + m.role + '\\n' + m.content }}"
    "{% for call in m.tool_calls or [] %}{{ '\\n' if m.content or not loop.first else '' }}"
    """{{ '<tool_call>\\n{"name": "' + call.function.name + '", "arguments": ' }}"""
    "{{ call.function.arguments | tojson }}{{ '}\\n</tool_call>' }}{% endfor %}{{ '<|im_end|>\\n' }}"
    "{% endif %}{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"
).replace("TOOLS", TOOLS_PROMPT.replace("\n", "{{ '\\n' }}"))
ADD = {"name": "add", "description": "Zählt 加", "parameters": {"type": "object", "properties": {"a": {}}}}
ADD_CALL = '{"name": "add", "arguments": {"a": [1, "二", null]}}'
TOOL_TURNS = [
    ("human", "Sum."),
    ("function_call", ADD_CALL),
    ("observation", "5"),
    ("gpt", "It is 5."),
    ("human", "And twice?"),
    ("function_call", f"I add.\n<tool_call>[{ADD_CALL}, {ADD_CALL}]</tool_call>"),
    ("observation", "5\n</tool_response>\n<tool_response>\n6"),
    ("gpt", "5 and 6."),
    ("human", "Again."),
    ("function_call", f"<think>\nAgain.\n</think>\n\n{ADD_CALL}"),
    ("observation", "5"),
    ("gpt", "<think>\nTell.\n</think>\n\nStill 5."),
]


@pytest.mark.parametrize("system", ["", "Be brief."])
@pytest.mark.parametrize("wrapped", [False, True])
def test_calls_results_and_tools_are_asked_and_taught_as_in_training(tokenizer, system, wrapped) -> None:
    """A chat template with `tools=` beside LLaMA-Factory's template, prompt by prompt and label by label."""
    from tuneyard.core.llamafactory.prompt.supervision import chat_turns, llamafactory_turns

    tools = json.dumps([{"type": "function", "function": ADD} if wrapped else ADD], ensure_ascii=False)
    turns = [{"from": role, "value": text} for role, text in TOOL_TURNS]
    talk = prompt_and_answer({"conversations": turns, "tools": tools, "system": system}, {}, "x")
    whole = [*talk.messages, {"role": talk.role, "content": talk.answer}]
    render, named = chat_renderer(tokenizer, CALLING), llamafactory_encoder(tokenizer, "qwen")
    asked = [n for n, turn in enumerate(whole) if turn["role"] in ("assistant", "function")]
    assert len(asked) == 6
    for place in asked:
        assert prompt_ids(tokenizer, render, whole[:place]) == named(whole[:place])
    assert named(whole[:-1]) == trained_ids(tokenizer, whole, "qwen", tools)[0]
    ours = chat_turns(tokenizer, render, whole).pairs
    theirs = llamafactory_turns(tokenizer, "qwen")(whole).pairs
    joined = [list(chain.from_iterable(x + y for x, y in pairs)) for pairs in (ours, theirs)]
    assert joined[0] == joined[1]
