"""Weights by layer: as they are written, what a merge makes of them, and where they are refused."""

from pathlib import Path

import numpy as np
import pytest

from tests.json_files import read_json
from tests.messages import printed, raises
from tests.unit.adapters.commands import call
from tests.unit.adapters.make import base_tensors, delta, dense, factors, make, make_base
from tuneyard.adapters.model.adapter import layer_of
from tuneyard.adapters.model.store import open_adapter
from tuneyard.adapters.model.weighted import parse_merged, parse_optional_weight
from tuneyard.core.errors import RequestError

LAYERS = 4


@pytest.fixture
def two(working_folder):
    """Adapters a and b of four layers, and their dense ΔW."""
    pairs = {name: factors(seed, layers=LAYERS) for seed, name in enumerate("ab")}
    for name, of_modules in pairs.items():
        make(f"saves/{name}", of_modules)
    return {name: dense(of_modules) for name, of_modules in pairs.items()}


def by_layer(deltas, weights):
    """Σ w(layer)·ΔW of every module; `weights` lists one number for each layer, by adapter."""
    total = {}
    for module in deltas["a"]:
        layer = int(module.split(".")[2])
        total[module] = sum(weights[name][layer] * deltas[name][module] for name in weights)
    return total


CASES = {
    "two ranges": (("a=0.5@0-1,0.2@2-3", "b=1"), {"a": [0.5, 0.5, 0.2, 0.2], "b": [1, 1, 1, 1]}),
    "a gap": (("a=0.5@0,-2@3-3", "b:1@1-2"), {"a": [0.5, 0, 0, -2], "b": [0, 1, 1, 0]}),
    "any order": (("a=1@3,0.25@0-1", "b=0.5"), {"a": [0.25, 0.25, 0, 1], "b": [0.5] * 4}),
    "a range of weight 0": (("a=0@0-1,1@2-3", "b=1e-1@0-2"), {"a": [0, 0, 1, 1], "b": [0.1, 0.1, 0.1, 0]}),
    "beyond the end": (("a=0.5@2-30", "b=1@0-0"), {"a": [0, 0, 0.5, 0.5], "b": [1, 0, 0, 0]}),
}


@pytest.mark.parametrize(("words", "weights"), CASES.values(), ids=CASES)
def test_each_layer_has_its_weight_and_0_outside(two, words, weights):
    call("merge", *words, "--out", "saves/out")
    result = open_adapter("out")
    expected = {module: matrix for module, matrix in by_layer(two, weights).items() if matrix.any()}
    assert set(result.modules) == set(expected)
    for module, matrix in expected.items():
        np.testing.assert_allclose(delta(result, module), matrix, rtol=1e-5, atol=1e-5)


def test_the_rank_is_that_of_the_adapters_that_meet_in_a_layer(two):
    for other, rank in (("b=1@2-3", 8), ("b=1@1-3", 16)):
        call("merge", "a=1@0-1", other, "--out", f"saves/{rank}")
        assert open_adapter(str(rank)).config.rank == rank


@pytest.mark.parametrize("method", ["svd", "linear", "ties", "ties_svd", "slerp", "tsvm", "dare_linear"])
def test_every_method_has_weights_by_layer(two, method):
    """Where the weights of all layers are equal, the result is that of plain weights, byte for byte."""
    options = ["--method", method]
    if method in ("ties", "ties_svd", "dare_linear"):
        options += ["--density", "0.5"]
    if method == "svd":
        options += ["--rank", "5"]
    call("merge", "a=0.5@0-1,0.5@2-3", "b=0.25@0-3", *options, "--out", "saves/layers")
    call("merge", "a=0.5", "b=0.25", *options, "--out", "saves/plain")
    one, other = (
        Path(f"saves/{name}/adapter_model.safetensors").read_bytes() for name in ("layers", "plain")
    )
    assert one == other


def test_slerp_with_its_own_share_in_each_layer(two):
    call("merge", "a=0.5@0-3", "b=0.5@0,1.5@1-2", "--method", "slerp", "--out", "saves/out")
    call("merge", "a=1", "b=3", "--method", "slerp", "--out", "saves/quarter")
    result, quarter = open_adapter("out"), open_adapter("quarter")
    for module in result.modules:
        layer = layer_of(module)
        if layer == 3:
            np.testing.assert_allclose(delta(result, module), two["a"][module], rtol=1e-5, atol=1e-5)
        elif layer:
            np.testing.assert_allclose(delta(result, module), delta(quarter, module), rtol=1e-5, atol=1e-5)


def test_tensors_saved_in_full_have_the_weight_of_their_layer(two):
    base = base_tensors(layers=LAYERS)
    make_base("base", base, dtype="F32")
    names = [f"model.layers.{layer}.norm.weight" for layer in range(LAYERS)]
    changed = {f"base_model.model.{name}": base[name] + 1 for name in names}
    changed["base_model.model.lm_head.weight"] = base["model.embed_tokens.weight"] + 1
    make_base("base", {**base, "lm_head.weight": base["model.embed_tokens.weight"]}, dtype="F32")
    make("saves/full", factors(5, layers=LAYERS), extra=changed, modules_to_save=["norm", "lm_head"])
    call("merge", "full=0.5@1-2", "--base", "base", "--same-base", "--out", "saves/out")
    result = open_adapter("out")
    for layer, name in enumerate(names):
        expected = base[name] + (0.5 if layer in (1, 2) else 0)
        np.testing.assert_allclose(result.full_tensor(name), expected, rtol=0, atol=1e-6)
    np.testing.assert_array_equal(result.full_tensor("lm_head.weight"), base["model.embed_tokens.weight"])


def test_modules_without_a_layer_have_the_weight_0_and_are_noted(working_folder):
    pairs = factors(1)
    pairs["lm_head"] = np.ones((8, 24), np.float32), np.ones((50, 8), np.float32)
    make("saves/a", pairs, target_modules=["q_proj", "v_proj", "lm_head"])
    _, notes = call("merge", "a=0.5@0-0", "--out", "saves/out")
    printed(notes, "3 of 5 modules")
    assert all(".0." in module for module in open_adapter("out").modules)


def test_merge_json_and_a_recipe_have_the_weights(two):
    call("merge", "a=0.5@0-1,0.2@2-3", "b=-1@0", "--out", "saves/out")
    record = read_json(Path("saves/out/merge.json"))
    assert [entry["weight"] for entry in record["adapters"]] == ["0.5@0-1,0.2@2-3", "-1.0@0-0"]
    assert "a (0.5@0-1,0.2@2-3), b (-1.0@0-0)" in call("show", "out")[0]
    card = Path("saves/out/README.md").read_text()
    recipe = card.partition("```yaml\n")[2].partition("```")[0]
    Path("again.yaml").write_text(f"{recipe}out: saves/again\n")
    call("merge", "again.yaml")
    assert Path("saves/again/merge.json").read_bytes() == Path("saves/out/merge.json").read_bytes()
    call("merge", "out=1", "--out", "saves/twice")  # the merge is an adapter like any other


REFUSED = {
    "a=0.5@3-1": "0.5@1-3",
    "a=0.5@0-2,1@2-3": "layer 2; 0.5@0-2; 1.0@2-3",
    "a=0.5@1,1@1": "layer 1",
    "a=0.5,1@1": "0.5; @",
    "a=0.5@": "0.5@; a=0.5@0-11,0.2@12-23",
    "a=@1": "a=0.5",
    "a=x@1": "x",
    "a=nan@1-2": "nan",
    "a=0.5@-1": "0.5@-1",
    "a=0.5@1-2-3": "0.5@1-2-3",
    "a=0.5@1.5": "0.5@1.5",
    "a=0.5@٣": "@",
    "a=0.5@1,": "@",
    "a=1e160@0": "1e160",
    "a=0.5@9999999": "9999999",
    "a=1@7-9": "1.0@7-9; 0–3",
    "a=1@0-3,1@7": "1.0@7-7; 0–3",
}


@pytest.mark.parametrize(("word", "facts"), REFUSED.items(), ids=REFUSED)
def test_weights_that_name_no_layers_are_refused(two, word, facts):
    _, error = call("merge", word, "b=1", "--out", "x", code=2)
    printed(error, *facts.split("; "))
    assert not Path("x").exists()


def test_a_yaml_list_that_splits_the_ranges_names_the_quotes(two):
    Path("r.yaml").write_text("adapters: [a=0.5@0-1,0.2@2-3, b=1]\nout: x\n")
    _, error = call("merge", "r.yaml", code=2)
    printed(error, "'0.2@2-3'", "quotes", "YAML")


def test_adapters_whose_layers_are_all_0_leave_nothing(two):
    call("merge", "a=0@0-3", "--out", "x", code=2)
    call("merge", "a=1@0-3", "b=0@1-2", "--out", "saves/out")
    assert open_adapter("out").config.rank == 8


def test_one_adapter_twice_with_opposite_layers_is_no_empty_sum(two):
    call("merge", "a=1", "a=-1@0-1", "--out", "saves/out")
    result = open_adapter("out")
    for module, matrix in two["a"].items():
        expected = 0 * matrix if layer_of(module) in (0, 1) else matrix
        np.testing.assert_allclose(delta(result, module), expected, rtol=0, atol=1e-4)


def test_other_commands_name_the_command_that_takes_layers(two):
    make_base("base", base_tensors(layers=LAYERS))
    _, error = call("fuse", "a=0.5@0-1", "--base", "base", "--out", "x", code=2)
    printed(error, "0.5@0-1", "tuneyard adapter merge")
    with raises(RequestError, "tuneyard adapter merge"):
        parse_optional_weight("a:0.5@0-1")
    assert parse_merged("a=0.5") == ("a", 0.5)
