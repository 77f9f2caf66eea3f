"""Why LLaMA-Factory drops a conversation, in words."""

from types import SimpleNamespace

import pytest

from tests.messages import printed
from tuneyard.recipes.rows import turn_fault

SHAREGPT = {
    "messages": "conversations", "system": None, "tools": None, "chosen": None, "rejected": None,
    "content_tag": "value", "role_tag": "from", "user_tag": "human", "assistant_tag": "gpt",
    "observation_tag": "observation", "function_tag": "function_call", "system_tag": "system",
    "formatting": "sharegpt", "ranking": False,
}  # fmt: skip


@pytest.mark.parametrize(
    ("roles", "ranking", "fault"),
    [
        ("gpt human", False, 'turn 1 is "gpt", expected "human" or "observation"'),
        ("system gpt", False, 'turn 2 is "gpt", expected "human" or "observation"'),
        ("human gpt gpt", False, 'turn 3 is "gpt", expected "human" or "observation"'),
        ("human human", False, 'turn 2 is "human", expected "gpt" or "function_call"'),
        ("human gpt human", False, "found 3 turns, expected an even number"),
        ("", False, "found no turns"),
        ("human gpt", True, "found 2 turns, expected an odd number"),
    ],
)
def test_the_turn_at_fault_is_named(roles, ranking, fault):
    row = {"conversations": [{"from": role, "value": "x"} for role in roles.split()]}
    columns = SimpleNamespace(**{**SHAREGPT, "ranking": ranking})
    assert turn_fault(row, columns).startswith(f"conversations: {fault}")


def test_results_of_tools_in_a_row_are_one_turn_in_openai_form():
    roles = ("human", "function_call", "observation", "observation", "human")
    row = {"conversations": [{"from": role, "value": "x"} for role in roles]}
    fault = turn_fault(row, SimpleNamespace(**{**SHAREGPT, "formatting": "openai"}))
    printed(fault, "turn 5", '"human"', '"gpt"', '"function_call"')
