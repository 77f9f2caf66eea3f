"""Adapters and second models that a recipe starts from."""

import json
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from tuneyard.recipes.recipe import Recipe
from tuneyard.recipes.starting_weights import loaded_problems


def model(folder: Path, value: float) -> Path:
    """Write a model folder of one tensor that is filled with `value`."""
    folder.mkdir(parents=True)
    (folder / "config.json").write_text("{}")
    save_file({"layer.weight": np.full((2, 2), value, np.float32)}, folder / "model.safetensors")
    return folder


def adapter(folder: Path, base: object) -> Path:
    folder.mkdir(parents=True)
    (folder / "adapter_config.json").write_text(json.dumps({"base_model_name_or_path": str(base)}))
    return folder


def found(**settings: object) -> list[tuple[str, str, str]]:
    recipe = Recipe(Path("r.yaml"), {key: str(value) for key, value in settings.items()}, {})
    return [(problem.code, problem.field, problem.message) for problem in loaded_problems(recipe)]


def test_an_adapter_of_another_base_is_an_error(tmp_path):
    ours, other = model(tmp_path / "ours", 1), model(tmp_path / "other", 2)
    ((code, key, message),) = found(
        model_name_or_path=ours, adapter_name_or_path=adapter(tmp_path / "rte", other)
    )
    assert (code, key) == ("E345", "adapter_name_or_path")
    assert f"trained on {other}, whose weights are not those of {ours}" in message


def test_the_same_weights_in_another_folder_are_no_other_base(tmp_path):
    ours, copy = model(tmp_path / "ours", 1), model(tmp_path / "copy", 1)
    assert found(model_name_or_path=ours, adapter_name_or_path=adapter(tmp_path / "rte", copy)) == []


@pytest.mark.parametrize(
    ("base", "model_name", "codes"),
    [
        ("org/chat", "org/chat", []),
        ("org/chat", "org/base", ["E345"]),
        ("unsloth/chat-bnb-4bit", "org/chat", ["N345"]),  # by its name alone
    ],
)
def test_models_of_the_hub_are_compared_by_name(tmp_path, base, model_name, codes):
    problems = found(model_name_or_path=model_name, adapter_name_or_path=adapter(tmp_path / "rte", base))
    assert [code for code, _, _ in problems] == codes


def test_what_is_missing_is_an_error_wherever_it_trains(tmp_path):
    gone = tmp_path / "gone"
    for key in ("adapter_name_or_path", "reward_model", "ref_model", "ref_model_adapters"):
        ((code, field, _),) = found(model_name_or_path="org/chat", **{key: gone})
        assert (code, field) == ("E346", key)
    assert [code for code, _, _ in found(model_name_or_path="a/b", adapter_name_or_path="saves/no")] == [
        "E346"
    ]
    assert found(model_name_or_path="a/b", adapter_name_or_path="owner/adapter") == []


def test_a_folder_without_an_adapter_is_an_error(tmp_path):
    ((code, _, message),) = found(model_name_or_path="a/b", adapter_name_or_path=tmp_path)
    assert code == "E346" and "adapter_config.json is missing" in message


def test_the_adapters_of_a_reference_belong_to_the_reference(tmp_path):
    ours, other = model(tmp_path / "ours", 1), model(tmp_path / "other", 2)
    reference = {"ref_model": other, "ref_model_adapters": adapter(tmp_path / "ref", other)}
    assert found(model_name_or_path=ours, **reference) == []
