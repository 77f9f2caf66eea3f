"""Adapters whose ΔW needs the base's weights, DoRA and LoRA on experts: fused as PEFT computes them."""

import copy
import json

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from tests.integration.peft_oracle import exact, load, ours, save_adapter
from tests.messages import raises
from tuneyard.adapters.experts import plan_experts
from tuneyard.adapters.fuse import fuse, plan_fusing
from tuneyard.adapters.request import FuseRequest
from tuneyard.adapters.statistics import measure, similarity, text
from tuneyard.adapters.store import open_adapter
from tuneyard.adapters.weighted import WeightedAdapter
from tuneyard.core.errors import ContentError
from tuneyard.core.weights.base_models import open_base

IDS = torch.arange(60).reshape(3, 20)
EVERY = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]


@pytest.fixture(scope="module")
def base(tiny_model):
    from transformers import AutoModelForCausalLM

    return AutoModelForCausalLM.from_pretrained(tiny_model, dtype=torch.float32).eval()


def fused(wanted, folder, out, **options):
    from transformers import AutoModelForCausalLM

    retained = fuse(plan_fusing(FuseRequest(list(wanted), folder, out, **options)), lambda _: None)
    return AutoModelForCausalLM.from_pretrained(out, dtype="auto").eval(), retained


def weights_of(model):
    return {name: tensor.double() for name, tensor in model.state_dict().items()}


def distance(found, expected, start):
    """‖found − expected‖ over ‖expected − start‖, of all tensors together."""
    missing = sum(float((found[name] - expected[name]).norm() ** 2) for name in expected)
    change = sum(float((expected[name] - start[name]).norm() ** 2) for name in expected)
    assert change > 0
    return (missing / change) ** 0.5


DORA = {
    "two targets": {},
    "every linear": {"target_modules": EVERY},
    "rslora": {"use_rslora": True, "r": 4},
    "patterns": {"rank_pattern": {"v_proj": 2}, "alpha_pattern": {"q_proj": 3}},
    "embedding": {"target_modules": ["embed_tokens", "q_proj"]},
}


@pytest.mark.parametrize("name", DORA)
def test_a_dora_adapter_is_fused_as_peft_merges_it(base, tiny_model, tmp_path, name):
    adapter = save_adapter(base, tiny_model, tmp_path / "a", use_dora=True, **DORA[name])
    found, _ = fused([(adapter, 1)], tiny_model, tmp_path / "out", dtype="F32")
    with torch.no_grad():
        live = load(base, adapter)(IDS).logits
        assert (live - base(IDS).logits).abs().max() > 0.05
        torch.testing.assert_close(found(IDS).logits, live, atol=2e-5, rtol=0)
    if "embedding" not in name:  # merging, PEFT also moves the tied head
        expected = weights_of(load(base, adapter).merge_and_unload())
        assert distance(weights_of(found), expected, weights_of(base)) < 1e-6


def test_dora_beside_plain_lora_is_the_weighted_sum_of_both_changes(base, tiny_model, tmp_path):
    dora = save_adapter(base, tiny_model, tmp_path / "dora", use_dora=True, target_modules=EVERY)
    plain = save_adapter(base, tiny_model, tmp_path / "plain", seed=2, target_modules=["q_proj", "up_proj"])
    found, retained = fused([(dora, 0.5), (plain, -0.25)], tiny_model, tmp_path / "out", dtype="F32")
    start = weights_of(base)
    merged = weights_of(load(base, dora).merge_and_unload())
    expected = {name: start[name] + 0.5 * (merged[name] - start[name]) for name in start}
    for path, delta in exact(base, [(plain, -0.25)]).items():
        expected[f"{path.removeprefix('base_model.model.')}.weight"] += delta
    assert distance(weights_of(found), expected, start) < 1e-6
    assert all(one.fraction == pytest.approx(1, abs=1e-3) for one in retained.values())


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_dora_is_rounded_once_into_a_narrow_base(base, tiny_model, tmp_path, dtype):
    narrow = copy.deepcopy(base).to(getattr(torch, dtype))
    narrow.save_pretrained(tmp_path / "base")
    adapter = save_adapter(narrow.float(), tmp_path / "base", tmp_path / "a", use_dora=True)
    fused([(adapter, 1)], tmp_path / "base", tmp_path / "out")
    found = load_file(tmp_path / "out/model.safetensors")
    wide = copy.deepcopy(narrow).double()
    expected = load(wide, adapter).double().merge_and_unload().state_dict()
    for name, tensor in found.items():
        if "_proj.weight" in name:
            rounded = expected[name].to(getattr(torch, dtype))
            differing = (tensor != rounded).float().mean()
            assert differing < 2e-4, name  # PEFT keeps the magnitude in its dtype; ties fall either way


def test_dora_of_a_conv1d_model_rescales_columns(tmp_path):
    from transformers import GPT2Config, GPT2LMHeadModel

    torch.manual_seed(0)
    model = GPT2LMHeadModel(GPT2Config(vocab_size=100, n_positions=64, n_embd=32, n_layer=2, n_head=2)).eval()
    model.save_pretrained(tmp_path / "gpt2")
    fields = {"target_modules": ["attn.c_proj", "c_attn"], "fan_in_fan_out": True, "use_dora": True}
    adapter = save_adapter(model, tmp_path / "gpt2", tmp_path / "a", **fields)
    found, _ = fused([(adapter, 1)], tmp_path / "gpt2", tmp_path / "out")
    with torch.no_grad():
        torch.testing.assert_close(found(IDS).logits, load(model, adapter)(IDS).logits, atol=1e-4, rtol=0)


def test_dora_on_a_base_in_4_bits_is_fused_into_what_training_saw(base, tiny_model, tmp_path):
    from bitsandbytes import functional

    seen = copy.deepcopy(base)
    for name, module in seen.named_modules():
        if isinstance(module, torch.nn.Linear) and name != "lm_head":
            packed, state = functional.quantize_4bit(module.weight.data, quant_type="nf4", blocksize=64)
            module.weight.data = functional.dequantize_4bit(packed, state).float()
    adapter = save_adapter(seen, tiny_model, tmp_path / "a", use_dora=True)
    found, _ = fused([(adapter, 1)], tiny_model, tmp_path / "out", dtype="F32", base_as="nf4")
    expected = weights_of(load(seen, adapter).merge_and_unload())
    assert distance(weights_of(found), expected, weights_of(seen)) < 1e-5


def test_a_dora_adapter_without_its_magnitude_is_refused(base, tiny_model, tmp_path):
    adapter = save_adapter(base, tiny_model, tmp_path / "a", use_dora=True)
    file = adapter / "adapter_model.safetensors"
    tensors = load_file(file)
    name = next(key for key in tensors if "lora_magnitude_vector" in key)
    save_file({key: value for key, value in tensors.items() if key != name}, file)
    with raises(ContentError, "lora_magnitude_vector"):
        open_adapter(adapter, with_base=True)
    save_file({**tensors, name: tensors[name][:-1].clone()}, file)
    with raises(ContentError):
        open_adapter(adapter, with_base=True)
    save_file({**tensors, name: tensors[name] * float("nan")}, file)
    with raises(ContentError, "NaN"):
        fused([(adapter, 1)], tiny_model, tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("fields", [{"use_dora": True}, {"target_parameters": ["mlp.down_proj.weight"]}])
def test_what_needs_the_base_is_not_merged_and_the_message_says_fuse(base, tiny_model, tmp_path, fields):
    one = save_adapter(base, tiny_model, tmp_path / "a", **fields)
    other = save_adapter(base, tiny_model, tmp_path / "b", seed=2)
    with raises(ContentError):
        ours([(one, 1), (other, 1)], tmp_path / "out")


def test_show_reports_magnitudes(base, tiny_model, tmp_path):
    adapter = save_adapter(base, tiny_model, tmp_path / "a", use_dora=True)
    opened = open_adapter(adapter, with_base=True)
    measured = measure(opened, opened.paths, histograms=True)
    tensors = load_file(adapter / "adapter_model.safetensors")
    norms = [value for key, value in tensors.items() if "magnitude" in key]
    low, high = min(float(n.min()) for n in norms), max(float(n.max()) for n in norms)
    assert f"magnitudes from {low:.4g} to {high:.4g}" in "\n".join(text([measured], [[1.0]]))


@pytest.fixture(scope="module")
def experts_model(tmp_path_factory):
    """A tiny Qwen3-MoE, whose checkpoint keeps each expert's matrices apart."""
    from transformers import Qwen3MoeConfig, Qwen3MoeForCausalLM

    torch.manual_seed(0)
    config = Qwen3MoeConfig(
        vocab_size=100, hidden_size=32, intermediate_size=48, moe_intermediate_size=24, num_hidden_layers=2,
        num_attention_heads=4, num_key_value_heads=2, head_dim=8, num_experts=4, num_experts_per_tok=2,
    )  # fmt: skip
    model = Qwen3MoeForCausalLM(config).eval()
    folder = tmp_path_factory.mktemp("moe")
    model.save_pretrained(folder)
    return model, folder


EXPERTS = {
    "both": {"target_parameters": ["mlp.experts.gate_up_proj", "mlp.experts.down_proj"]},
    "one, and attention": {"target_modules": ["q_proj"], "target_parameters": ["experts.down_proj"]},
    "by the last name": {"target_parameters": ["gate_up_proj"], "use_rslora": True},
}


@pytest.mark.parametrize("name", EXPERTS)
def test_lora_on_experts_is_fused_expert_by_expert(experts_model, tmp_path, name):
    model, folder = experts_model
    fields = {"target_modules": [], "lora_dropout": 0.0, **EXPERTS[name]}
    adapter = save_adapter(model, folder, tmp_path / "a", **fields)
    stored = load_file(folder / "model.safetensors")
    assert any("experts.0.gate_proj.weight" in key for key in stored)
    found, _ = fused([(adapter, 1)], folder, tmp_path / "out")
    with torch.no_grad():
        live = load(model, adapter)(IDS).logits
        assert (live - model(IDS).logits).abs().max() > 0.02
        torch.testing.assert_close(found(IDS).logits, live, atol=2e-5, rtol=0)
    expected = weights_of(load(model, adapter).merge_and_unload())
    assert distance(weights_of(found), expected, weights_of(model)) < 1e-6


def test_experts_in_one_stored_tensor_are_fused(tmp_path):
    from transformers import GptOssConfig, GptOssForCausalLM

    torch.manual_seed(0)
    config = GptOssConfig(
        vocab_size=100, hidden_size=32, intermediate_size=32, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, head_dim=8, num_local_experts=4, num_experts_per_tok=2,
    )  # fmt: skip
    model = GptOssForCausalLM(config).eval()
    for parameter in model.parameters():
        parameter.data = torch.randn_like(parameter) * 0.1
    model.save_pretrained(tmp_path / "base")
    shapes = {key: value.shape for key, value in load_file(tmp_path / "base/model.safetensors").items()}
    assert shapes["model.layers.0.mlp.experts.gate_up_proj"] == (4, 32, 64)
    fields = {"target_modules": [], "target_parameters": ["experts.gate_up_proj", "experts.down_proj"]}
    adapter = save_adapter(model, tmp_path / "base", tmp_path / "a", **fields)
    found, _ = fused([(adapter, 0.5)], tmp_path / "base", tmp_path / "out")
    start, expected = weights_of(model), weights_of(load(model, adapter).merge_and_unload())
    half = {name: start[name] + 0.5 * (expected[name] - start[name]) for name in start}
    assert distance(weights_of(found), half, start) < 1e-6


def test_a_bare_matrix_is_fused_like_a_linear_layer(base, tiny_model, tmp_path):
    fields = {"target_modules": [], "target_parameters": ["mlp.down_proj.weight", "self_attn.q_proj.weight"]}
    adapter = save_adapter(base, tiny_model, tmp_path / "a", **fields)
    found, _ = fused([(adapter, 1)], tiny_model, tmp_path / "out", dtype="F32")
    expected = weights_of(load(base, adapter).merge_and_unload())
    assert distance(weights_of(found), expected, weights_of(base)) < 1e-6


def test_experts_of_another_base_and_lost_factors_are_refused(experts_model, base, tiny_model, tmp_path):
    model, folder = experts_model
    fields = {"target_modules": [], **EXPERTS["both"]}
    adapter = save_adapter(model, folder, tmp_path / "a", **fields)
    config = json.loads((adapter / "adapter_config.json").read_text())
    config["base_model_name_or_path"] = "org/elsewhere"
    (adapter / "adapter_config.json").write_text(json.dumps(config))
    with raises(ContentError, "gate_up_proj"):
        fused([(adapter, 1)], tiny_model, tmp_path / "out", same_base=True)
    fewer = copy.deepcopy(model.config)
    fewer.num_experts = 2
    type(model)(fewer).save_pretrained(tmp_path / "fewer")
    with raises(ContentError, "0"):
        fused([(adapter, 1)], tmp_path / "fewer", tmp_path / "out", same_base=True)
    file = adapter / "adapter_model.safetensors"
    tensors = load_file(file)
    kept = {key: value for key, value in tensors.items() if "layers.1.mlp.experts.base_layer" not in key}
    save_file(kept, file)
    with raises(ContentError):
        fused([(adapter, 1)], folder, tmp_path / "out", same_base=True)
    assert not (tmp_path / "out").exists()


def test_show_measures_experts_as_one_block_diagonal_matrix(experts_model, tmp_path):
    model, folder = experts_model
    adapter = save_adapter(model, folder, tmp_path / "a", target_modules=[], **EXPERTS["both"])
    opened = open_adapter(adapter, with_base=True)
    measured = measure(opened, opened.paths, histograms=False)
    changes = exact(model, [(adapter, 1)])
    expected = sum(float(delta.norm() ** 2) for delta in changes.values()) ** 0.5
    assert measured.norm == pytest.approx(expected, rel=1e-5)
    assert {module.experts for module in measured.modules} == {4}
    assert measured.parameters == sum(
        value.numel() for value in load_file(next(adapter.glob("*.safetensors"))).values()
    )
    assert similarity(opened, opened, (measured.norm, measured.norm)) == pytest.approx(1, rel=1e-9)
    (first, *_) = plan_experts([WeightedAdapter(opened, 1.0)], open_base(folder)).values()
    assert len(first) == 1
    assert np.all(np.diff(measured.modules[0].singular_values) <= 0)
