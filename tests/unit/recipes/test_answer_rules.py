"""Rules on LLaMA-Factory's answer, of which tests/examples/recipes has the rest."""

from pathlib import Path

import pytest
import yaml

from tuneyard.recipes.llamafactory.answer import Facts, LaidOut
from tuneyard.recipes.recipe import read_recipe
from tuneyard.recipes.rules.answer_rules import reward_problems


@pytest.mark.parametrize(
    ("settings", "tied", "codes"),
    [
        ({"finetuning_type": "full"}, True, ["E315"]),
        ({"finetuning_type": "freeze"}, True, ["E315"]),
        ({"finetuning_type": "full"}, False, []),
        ({"finetuning_type": "full", "deepspeed": "recipes/deepspeed/z2.json"}, True, []),
        ({"finetuning_type": "lora"}, True, []),
        ({"finetuning_type": "full", "stage": "dpo"}, True, []),
        ({"pissa_init": True}, True, ["W315"]),
        ({"pissa_init": True, "stage": "sft"}, True, []),
    ],
)
def test_a_reward_model_that_cannot_be_saved_is_named(
    tmp_path: Path, settings: dict[str, object], tied: bool, codes: list[str]
) -> None:
    """tools/stages trained each: the first ends in a RuntimeError, PiSSA leaves no pissa_converted."""
    path = tmp_path / "r.yaml"
    path.write_text(yaml.safe_dump({"stage": "rm", **settings}))
    problems = reward_problems(read_recipe(path), Facts(model=LaidOut(tied=tied)))
    assert [problem.code for problem in problems] == codes
