"""What PEFT 0.18.1 takes without a word and gets wrong, or loses; ours is right or refuses by name.

Each test first shows PEFT's own result, so that a PEFT that has become right is noticed here.
"""

import copy
import json
import subprocess
import sys

import pytest
import torch
from safetensors.torch import load_file, save_file

from tests.integration.peft_oracle import deltas, error, exact, load, ours, save_adapter
from tests.messages import raises
from tuneyard.adapters.fuse import plan_fusing
from tuneyard.adapters.request import FuseRequest
from tuneyard.adapters.store import open_adapter
from tuneyard.core.errors import ContentError, TuneyardError

IDS = torch.arange(60).reshape(3, 20)
WEIGHTS = "adapter_model.safetensors"


@pytest.fixture(scope="module")
def base(tiny_model):
    from transformers import AutoModelForCausalLM

    return AutoModelForCausalLM.from_pretrained(tiny_model, dtype=torch.float32).eval()


@pytest.fixture
def save(base, tiny_model, tmp_path):
    return lambda name, **fields: save_adapter(base, tiny_model, tmp_path / name, **fields)


def edit(folder, **fields):
    """Replace fields of an adapter's config (... takes one out)."""
    path = folder / "adapter_config.json"
    config = {**json.loads(path.read_text()), **fields}
    path.write_text(json.dumps({key: value for key, value in config.items() if value is not ...}))
    return folder


def rewrite(folder, change):
    """Replace an adapter's tensors by what `change` makes of them."""
    save_file(change(load_file(folder / WEIGHTS)), folder / WEIGHTS, {"format": "pt"})
    return folder


def logits(model):
    with torch.no_grad():
        return model(IDS).logits


@pytest.mark.parametrize("alpha", [float("nan"), 0, ...], ids=["nan", "0", "missing"])
def test_an_alpha_that_is_none(base, save, alpha):
    folder = save("a", lora_alpha=16)
    right = logits(load(base, folder))
    found = logits(load(base, edit(folder, lora_alpha=alpha)))  # loads without an error
    assert found.isnan().all() or (found - right).abs().max() > 0.01
    with raises(ContentError, "lora_alpha"):
        open_adapter(folder)


# (what the first adapter alone has, what ours says); the second is plain.
ONE_SIDED = {
    "lora_bias": ({"lora_bias": True}, "adds a bias next to B·A"),
    "modules_to_save": ({"modules_to_save": ["norm"]}, "give --base"),
    "trainable_token_indices": ({"trainable_token_indices": [1, 2]}, "single rows of the embedding"),
}


@pytest.mark.parametrize("name", ONE_SIDED)
def test_what_one_of_two_adapters_has_is_lost_in_peft_s_merge(base, save, tmp_path, name):
    fields, fact = ONE_SIDED[name]
    one, other = save("a", seed=1, **fields), save("b", seed=2)
    # In the other order PEFT cannot load the plain one beside trained tokens at all (a KeyError).
    model = load(base, other, x=one) if "token" in name else load(base, one, x=other)
    model.add_weighted_adapter(["default", "x"], [1.0, 1.0], "mixed", combination_type="cat")
    model.set_adapter("mixed")
    both = load(base, one)
    added = exact(base, [(other, 1.0)])
    for path, delta in added.items():
        both.get_submodule(path).base_layer.weight.data += delta.float()
    assert (logits(model) - logits(both)).abs().max() > 0.01
    with raises(TuneyardError, fact):
        ours([(one, 1), (other, 1)], tmp_path / "out")


@pytest.mark.parametrize(
    "fields",
    [{"layers_to_transform": [1]}, {"target_modules": r".*_proj", "exclude_modules": ["o_proj"]}],
    ids=str,
)
def test_layers_and_exclusions_of_one_adapter_survive_a_merge(base, save, tmp_path, fields):
    wanted = [(save("a", seed=1, **fields), 1.0), (save("b", seed=2), 0.5)]
    out = ours(wanted, tmp_path / "out")
    assert error(deltas(load(base, out)), exact(base, wanted)) < 1e-6


def test_peft_s_linear_of_different_ranks_by_module_cannot_be_loaded_again(base, save, tmp_path):
    pattern = {"rank_pattern": {"v_proj": 2}}
    wanted = [(save("a", seed=1, **pattern), 0.5), (save("b", seed=2, **pattern), 0.5)]
    model = load(base, wanted[0][0], other=wanted[1][0])
    model.add_weighted_adapter(["default", "other"], [0.5, 0.5], "mixed", combination_type="linear")
    model.save_pretrained(tmp_path / "theirs", selected_adapters=["mixed"])
    with pytest.raises(RuntimeError, match="size mismatch"):
        load(base, tmp_path / "theirs" / "mixed")
    assert error(deltas(load(base, ours(wanted, tmp_path / "out"))), exact(base, wanted)) < 1e-6
    with raises(ContentError, "2", "4"):
        ours(wanted, tmp_path / "linear", method="linear")


def test_results_fall_to_the_base_s_dtype_in_peft_and_stay_fp32_here(base, save, tmp_path):
    wanted = [(save("a", seed=1), 0.3), (save("b", seed=2), 0.7)]
    model = load(copy.deepcopy(base).bfloat16(), wanted[0][0], other=wanted[1][0])
    model.add_weighted_adapter(["default", "other"], [0.3, 0.7], "mixed", combination_type="cat")
    assert error(deltas(model, "mixed"), exact(base, wanted)) > 1e-3
    out = ours(wanted, tmp_path / "out")
    assert {tensor.dtype for tensor in open_adapter(out).weights.tensors.values()} == {"F32"}


def test_dora_is_no_sum(base, save, tmp_path):
    one, other = save("a", seed=1, use_dora=True), save("b", seed=2)
    model = load(base, one, other=other)
    model.add_weighted_adapter(["default", "other"], [1.0, 1.0], "mixed", combination_type="cat")
    model.set_adapter("mixed")
    both = load(base, one)
    for path, delta in exact(base, [(other, 1.0)]).items():
        both.get_submodule(path).base_layer.weight.data += delta.float()
    assert (logits(model) - logits(both)).abs().max() > 0.01
    with raises(ContentError, "DoRA"):
        ours([(one, 1), (other, 1)], tmp_path / "out")


def plan_on(folder, adapter, out):
    """MergePlan a fuse of an adapter into the model in `folder`, where it is checked against its base."""
    return plan_fusing(FuseRequest([(adapter, 1.0)], folder, out))


def test_a_base_with_fewer_layers(base, save, tmp_path):
    from transformers import Qwen2ForCausalLM

    adapter = save("a")
    config = copy.deepcopy(base.config)
    config.num_hidden_layers, config.layer_types = 1, config.layer_types[:1]
    short = Qwen2ForCausalLM(config).eval()
    short.save_pretrained(tmp_path / "short")
    assert len(deltas(load(short, adapter))) == 2  # of 4: the rest is dropped
    with raises(ContentError, "layers.1.self_attn", "module"):
        plan_on(tmp_path / "short", adapter, tmp_path / "out")


def test_target_modules_narrower_than_the_file(base, save):
    folder = edit(save("a"), target_modules=["q_proj"])
    assert len(deltas(load(base, folder))) == 2  # of 4
    with raises(ContentError, "v_proj", "adapter_config.json"):
        open_adapter(folder)


def test_another_base_of_the_same_shapes(base, save, tmp_path):
    adapter = save("a")
    torch.manual_seed(9)
    other = copy.deepcopy(base)
    for parameter in other.parameters():
        parameter.data = torch.randn_like(parameter) * 0.02
    other.save_pretrained(tmp_path / "other")
    assert load(other, adapter) is not None  # without a word
    with raises(ContentError):
        plan_on(tmp_path / "other", adapter, tmp_path / "out")
    named = edit(save("b", seed=2), base_model_name_or_path=str(tmp_path / "other"))
    with raises(ContentError):
        ours([(adapter, 1), (named, 1)], tmp_path / "out")


@pytest.mark.parametrize("prefix", ["", "model."])
@pytest.mark.filterwarnings("ignore:Found missing adapter keys")
def test_a_wrong_prefix_gives_no_change_at_all_in_peft(base, save, prefix):
    def renamed(tensors):
        return {prefix + key.removeprefix("base_model.model."): value for key, value in tensors.items()}

    folder = rewrite(save("a"), renamed)
    assert max(delta.abs().max() for delta in deltas(load(base, folder)).values()) == 0
    with raises(ContentError, "base_model.model."):
        open_adapter(folder)


def test_a_name_of_another_architecture_is_found_out_at_the_base(save, tiny_model, tmp_path):
    def renamed(tensors):
        return {key.replace(".model.model.", ".model.language_model."): v for key, v in tensors.items()}

    with raises(ContentError, "module"):
        plan_on(tiny_model, rewrite(save("a"), renamed), tmp_path / "out")


def test_missing_tensors_give_zero_in_peft(base, save, tiny_model, tmp_path):
    def without(tensors):
        return {key: value for key, value in tensors.items() if "layers.1.self_attn.v_proj" not in key}

    folder = rewrite(save("a"), without)
    with pytest.warns(UserWarning, match="missing adapter keys"):
        found = deltas(load(base, folder))
    assert sum(delta.abs().max() == 0 for delta in found.values()) == 1
    with raises(ContentError, "layers.1.self_attn.v_proj"):
        plan_on(tiny_model, folder, tmp_path / "out")


@pytest.mark.parametrize("start", ["pissa", "olora"])
def test_a_converted_adapter_is_taken_and_means_what_was_trained(base, tiny_model, tmp_path, start):
    """The way out that the refusal names: save_pretrained with path_initial_model_for_weight_conversion."""
    import peft

    config = peft.LoraConfig(
        r=4, lora_alpha=8, target_modules=["q_proj", "v_proj"], init_lora_weights=start, task_type="CAUSAL_LM"
    )
    tuned = peft.get_peft_model(copy.deepcopy(base), config)
    tuned.peft_config["default"].init_lora_weights = True  # as PEFT asks of the initial adapter
    tuned.save_pretrained(tmp_path / "initial")
    tuned.peft_config["default"].init_lora_weights = start
    for key, parameter in tuned.named_parameters():
        if "lora_" in key:
            parameter.data += torch.randn_like(parameter) * 0.05
    tuned.save_pretrained(tmp_path / "as-it-is")
    with raises(ContentError, "path_initial_model_for_weight_conversion=INITIAL"):
        open_adapter(tmp_path / "as-it-is")
    tuned.save_pretrained(
        tmp_path / "converted", path_initial_model_for_weight_conversion=str(tmp_path / "initial")
    )
    out = ours([(tmp_path / "converted", 1)], tmp_path / "out")
    torch.testing.assert_close(logits(load(base, out)), logits(tuned.eval()), atol=1e-4, rtol=0)


def test_a_pickle_s_own_message_converts_it(base, save):
    folder = save("a")
    before = load_file(folder / WEIGHTS)
    torch.save(before, folder / "adapter_model.bin")
    (folder / WEIGHTS).unlink()
    with pytest.raises(ContentError) as raised:
        open_adapter(folder)
    command = str(raised.value).partition("running any: ")[2]
    subprocess.run(command.replace("python", f"exec {sys.executable}", 1), shell=True, check=True)
    after = load_file(folder / WEIGHTS)
    assert after.keys() == before.keys()
    assert all(torch.equal(after[key], before[key]) for key in before)
    assert open_adapter(folder).modules
