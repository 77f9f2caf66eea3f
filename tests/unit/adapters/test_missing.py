"""Which module of an adapter is lost, worked out by hand on small layouts."""

from pathlib import Path

import pytest

from tuneyard.adapters.config import LoraConfig
from tuneyard.adapters.store import _missing_layer, find_missing, unwrapped


def config(**fields: object) -> LoraConfig:
    raw = {"target_modules": ["q_proj", "k_proj", "v_proj"], **fields}
    return LoraConfig(Path("a"), raw, 8, 16.0, {}, {})


def layout(lacking: dict[int, set[str]], count: int = 6, parent: str = "self_attn.") -> list[str]:
    """Every layer's three modules, without those that it lacks."""
    names = ("q_proj", "k_proj", "v_proj")
    return [
        f"model.layers.{number}.{parent}{name}"
        for number in range(count)
        for name in names
        if name not in lacking.get(number, set())
    ]


@pytest.mark.parametrize(
    ("lacking", "expected"),
    [
        ({}, None),
        ({3: {"v_proj"}}, "model.layers.3.self_attn.v_proj"),
        ({3: {"v_proj", "k_proj"}}, "model.layers.3.self_attn.k_proj"),
        ({1: {"v_proj"}, 3: {"q_proj"}}, "model.layers.1.self_attn.v_proj"),
        ({1: {"v_proj"}, 2: {"v_proj"}, 5: {"v_proj"}}, "model.layers.1.self_attn.v_proj"),
        ({1: {"v_proj"}, 3: {"v_proj"}, 5: {"v_proj"}}, None),  # every second layer: an architecture
        ({0: {"v_proj"}, 3: {"v_proj"}}, "model.layers.0.self_attn.v_proj"),  # two are no rule
    ],
)
def test_a_module_that_its_neighbours_have(lacking, expected):
    assert find_missing(config(), layout(lacking)) == expected


def test_a_module_right_below_its_layer():
    assert find_missing(config(), layout({2: {"k_proj"}}, parent="")) == "model.layers.2.k_proj"


def test_other_modules_in_other_layers_are_an_architecture():
    """No layer has less than another: they are of two kinds."""
    modules = [f"layers.{n}.attn.{'q_proj' if n % 2 else 'v_proj'}" for n in range(6)]
    assert find_missing(config(), modules) is None


@pytest.mark.parametrize("absent", [2, 4])
def test_a_layer_among_others(absent):
    modules = [name for name in layout({}) if f".{absent}." not in name]
    assert find_missing(config(), modules) == f"model.layers.{absent}"


def test_a_config_that_says_itself_what_is_there():
    modules = layout({3: {"v_proj"}})
    assert find_missing(config(layers_to_transform=[0, 1]), modules) is None
    assert find_missing(config(target_modules=["layers.3.self_attn.q_proj"]), modules) is None
    assert find_missing(config(target_modules=".*_proj"), modules) is None
    assert find_missing(config(exclude_modules=["3.self_attn.v_proj"]), modules) is None


def test_of_a_quarter_of_absent_layers_one_is_missing_and_of_more_none_is():
    """Of 7 layers 1 is under a quarter, 2 are more: the architecture has few layers of this kind."""
    assert _missing_layer("model.layers", [0, 1, 2, 3, 4, 6]) == "model.layers.5"
    assert _missing_layer("model.layers", [0, 1, 2, 4, 6]) is None


@pytest.mark.parametrize("wrapped", ["", ".base_layer", ".base_layer.base_layer"])
def test_a_wrapped_path_is_that_of_its_module(wrapped):
    assert unwrapped(f"mlp.experts{wrapped}") == "mlp.experts"
