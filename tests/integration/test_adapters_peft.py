"""Our merges and fuses beside PEFT: equal where PEFT is exact, right or refused where it is not."""

import copy
import subprocess
import sys

import pytest
import torch
from safetensors.torch import load_file

from tests.integration.peft_oracle import IDS, deltas, error, exact, fused, load, ours, peft_merge
from tests.messages import raises
from tuneyard.adapters.fuse.fuse import FuseRequest, plan_fusing, write_model
from tuneyard.adapters.model.store import open_adapter
from tuneyard.core.errors import ContentError

pytestmark = pytest.mark.slow
FEATURES = {
    "plain": ({}, {}),
    "ranks and alphas": ({"r": 2, "lora_alpha": 7}, {"r": 8, "lora_alpha": 3}),
    "targets": ({"target_modules": ["q_proj"]}, {"target_modules": ["v_proj", "down_proj"]}),
    "all-linear": ({"target_modules": "all-linear"}, {}),
    "regex": ({"target_modules": r".*layers\.0\..*(q|k)_proj"}, {}),
    "rslora": ({"use_rslora": True}, {}),
    "patterns": (
        {"rank_pattern": {"v_proj": 2, r"layers\.1\.self_attn\.q_proj": 6}, "alpha_pattern": {"q_proj": 5}},
        {"rank_pattern": {"q_proj": 3}, "use_rslora": True},
    ),
    "layers": ({"layers_to_transform": [1]}, {"layers_to_transform": [0], "layers_pattern": "layers"}),
    "excluded": ({"target_modules": r".*_proj", "exclude_modules": ["o_proj"]}, {}),
    "embeddings": ({"target_modules": ["embed_tokens", "q_proj"]}, {"target_modules": ["embed_tokens"]}),
}


@pytest.mark.parametrize("name", FEATURES)
def test_peft_loads_our_merge_as_the_exact_sum(base, save, tmp_path, name):
    one, other = FEATURES[name]
    wanted = [(save("a", seed=1, **one), 0.3), (save("b", seed=2, **other), -1.2)]
    model = load(base, ours(wanted, tmp_path / "out"))
    assert error(deltas(model), exact(base, wanted)) < 1e-6
    saved = {k for k in load_file(tmp_path / "out/adapter_model.safetensors") if "lora_" in k}
    loaded = {k.replace(".default", "") for k in model.state_dict() if "lora_" in k}
    assert saved == loaded


@pytest.mark.parametrize("weights", [(0.5, 0.5), (1, 0.25), (0.7, -0.7)])
def test_our_linear_is_peft_s(base, save, tmp_path, weights):
    wanted = [(save("a", seed=1), weights[0]), (save("b", seed=2, lora_alpha=2), weights[1])]
    found = deltas(load(base, ours(wanted, tmp_path / "out", method="linear")))
    assert error(found, peft_merge(base, wanted, "linear")) < 1e-6


@pytest.mark.parametrize(("dtype", "near"), [("float32", 1e-5), ("bfloat16", 0.02), ("float16", 0.003)])
def test_fused_model_answers_like_the_live_adapter(base, save, tmp_path, dtype, near):
    from transformers import AutoModelForCausalLM

    stored = tmp_path / "base"
    base_in = copy.deepcopy(base).to(getattr(torch, dtype))
    base_in.save_pretrained(stored, max_shard_size="200KB")
    adapter = save("a", target_modules=["q_proj", "down_proj", "embed_tokens", "lm_head"])
    wide = AutoModelForCausalLM.from_pretrained(stored, dtype=torch.float32).eval()
    model, _ = fused([(adapter, 1)], stored, tmp_path / "out", same_base=True)
    assert model.dtype == getattr(torch, dtype)
    assert not model.config.tie_word_embeddings
    with torch.no_grad():
        live = load(wide, adapter)(IDS).logits
        found = model.float()(IDS).logits
        assert (live - wide(IDS).logits).abs().max() > 0.1
        torch.testing.assert_close(found, live, atol=near, rtol=0)


ALL = {"target_modules": "all-linear"}
AS_SAVED = {
    "all linear": ALL,
    "all linear but o_proj": {**ALL, "exclude_modules": ["o_proj"]},
    "all linear but two": {**ALL, "exclude_modules": ["mlp.up_proj", "self_attn.v_proj"]},
    "all linear but a layer": {**ALL, "exclude_modules": r".*layers\.1\..*"},
    "embeddings saved": {"save_embedding_layers": True},
    "embeddings adapted": {"target_modules": ["q_proj", "embed_tokens"]},
    "bias all": {"bias": "all"},
    "a larger vocabulary": {"rows": 640, "modules_to_save": ["embed_tokens", "lm_head"]},
    "a larger vocabulary, saved": {"rows": 640, "save_embedding_layers": True},
}


@pytest.mark.parametrize("kind", ["qwen2", "llama"])
@pytest.mark.parametrize("name", AS_SAVED)
def test_what_peft_saves_is_fused_as_peft_merges_it(tiny_model, tmp_path, name, kind):
    """Llama has no biases: `bias: all` saves none. PEFT holds what it saved; its own merge is the oracle."""
    import peft
    from transformers import AutoModelForCausalLM, LlamaConfig, LlamaForCausalLM

    fields = dict(AS_SAVED[name])
    rows, save = fields.pop("rows", None), fields.pop("save_embedding_layers", "auto")
    base = AutoModelForCausalLM.from_pretrained(tiny_model, dtype=torch.float32)
    if kind == "llama":
        same = {key: value for key, value in base.config.to_dict().items() if key in LlamaConfig().to_dict()}
        base = LlamaForCausalLM(LlamaConfig(**{**same, "architectures": None, "model_type": "llama"}))
    base.save_pretrained(tmp_path / "base")
    if rows:
        base.resize_token_embeddings(rows, mean_resizing=False)
    config = {"r": 4, "lora_alpha": 8, "target_modules": ["q_proj", "v_proj"], **fields}
    tuned = peft.get_peft_model(base, peft.LoraConfig(task_type="CAUSAL_LM", **config))
    tuned.peft_config["default"].base_model_name_or_path = str(tmp_path / "base")
    torch.manual_seed(3)
    for parameter in tuned.parameters():
        if parameter.requires_grad:
            parameter.data += torch.randn_like(parameter) * 0.1
    tuned.save_pretrained(tmp_path / "a", save_embedding_layers=save)
    request = FuseRequest([(tmp_path / "a", 1.0)], tmp_path / "base", tmp_path / "fused")
    write_model(plan_fusing(request), lambda _: None, [])
    ours = AutoModelForCausalLM.from_pretrained(tmp_path / "fused", dtype=torch.float32)
    assert ours.config.vocab_size == (rows or base.config.vocab_size)
    with torch.no_grad():
        found, theirs = ours(IDS).logits, tuned.eval()(IDS).logits
        torch.testing.assert_close(found, theirs, atol=2e-4, rtol=0)
        if "adapted" not in name:  # where merging, PEFT moves the tied head with the embedding
            torch.testing.assert_close(found, tuned.merge_and_unload()(IDS).logits, atol=2e-4, rtol=0)


WEIGHTS = "adapter_model.safetensors"


def logits(model):
    with torch.no_grad():
        return model(IDS).logits


@pytest.mark.parametrize("start", ["pissa", "olora"])
def test_a_converted_adapter_is_taken_and_means_what_was_trained(base, tmp_path, start):
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


def test_a_pickle_s_own_message_converts_it(save):
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
