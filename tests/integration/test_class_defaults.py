"""The table of class defaults against transformers, and fusions of every family against PEFT's live model."""

import copy
import json
from itertools import product

import pytest
import torch

from tests.json_files import read_json, write_json
from tests.unit.adapters.commands import call
from tuneyard.core.weights.class_defaults import (
    DEFAULTS,
    FIELDS,
    class_entry,
    is_tied,
    longest_sequence,
    untied,
    with_defaults,
)

pytestmark = pytest.mark.slow
TIE = "tie_word_embeddings"
TYPES = json.loads(DEFAULTS.read_text(encoding="utf-8"))["classes"]
SIZES = {
    "vocab_size": 96, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2,
    "num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": 64, "pad_token_id": 0,
}  # fmt: skip
GPT = {"vocab_size": 96, "n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 64}
EYES = {
    "hidden_size": 32, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2,
    "image_size": 28, "patch_size": 14,
}  # fmt: skip
QWEN_EYES = {
    "depth": 1, "num_heads": 2, "hidden_size": 32, "intermediate_size": 32, "out_hidden_size": 32,
    "fullatt_block_indexes": [0],
}  # fmt: skip
ROPE = {"rope_type": "default", "mrope_section": [1, 1, 2], "rope_theta": 10000.0}
QWEN_TOKENS = {"image_token_id": 95, "video_token_id": 94, "vision_start_token_id": 93}
NARROW = {**SIZES, "head_dim": 8, "sliding_window": 16}
FAMILIES = {
    "llama": SIZES,
    "mistral": SIZES,
    "qwen2": {**SIZES, TIE: True},
    "qwen3": {**SIZES, "head_dim": 16, TIE: True},
    "qwen3_moe": {
        **SIZES, "num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 16, "head_dim": 8
    },
    "gemma": {**SIZES, "head_dim": 8},
    "gemma2": NARROW,
    "gemma3_text": NARROW,
    "gpt2": GPT,
    "phi": SIZES,
    "phi3": SIZES,
    "glm": {**SIZES, "head_dim": 8},
    "cohere": SIZES,
    "granite": {**SIZES, TIE: True},
    "olmo": SIZES,
    "starcoder2": SIZES,
    "bloom": {"vocab_size": 96, "hidden_size": 32, "n_layer": 2, "n_head": 4},
    "opt": {
        "vocab_size": 96, "hidden_size": 32, "ffn_dim": 48, "num_hidden_layers": 2, "num_attention_heads": 4,
        "max_position_embeddings": 64, "word_embed_proj_dim": 16,
    },
    "gpt_neox": {**SIZES, TIE: True},
    "biogpt": {key: value for key, value in SIZES.items() if key != "num_key_value_heads"},
    "mamba": {"vocab_size": 96, "hidden_size": 32, "num_hidden_layers": 2, "state_size": 4},
    "lfm2": {**SIZES, "layer_types": ["full_attention", "conv"]},
    "gemma3": {
        "text_config": NARROW, "vision_config": EYES, "mm_tokens_per_image": 4, "image_token_index": 95,
        "boi_token_index": 94, "eoi_token_index": 93,
    },
    "qwen2_5_vl": {
        "text_config": {**SIZES, "rope_parameters": ROPE}, "vision_config": QWEN_EYES, TIE: True,
        **QWEN_TOKENS,
    },
    "llava": {
        "text_config": {**SIZES, "model_type": "llama", TIE: True}, "image_token_index": 95,
        "vision_config": {**EYES, "model_type": "clip_vision_model", "projection_dim": 32},
    },
    "llama4": {
        "text_config": {**SIZES, "head_dim": 8, "intermediate_size_mlp": 48, "num_local_experts": 2},
        "vision_config": EYES, "image_token_index": 95,
    },
}  # fmt: skip
NO_PREFIX = {"gpt2": "transformer.", "opt": "model."}
"""Families that are also saved as their inner model alone, as GPT-2's authors published theirs."""


@pytest.mark.parametrize("kind", TYPES)
def test_the_table_decides_as_the_class_of_transformers(kind):
    """Every combination of the key in the config and in that of the language model."""
    from huggingface_hub.errors import StrictDataclassError
    from transformers import CONFIG_MAPPING

    entry, config_class = TYPES[kind], CONFIG_MAPPING[kind]
    if "ties" not in entry:
        return
    part, nested_type = entry.get("text", ("", ""))
    decided = 0
    for top, text in product((None, True, False), (None, True, False) if part else (None,)):
        fields = {"model_type": kind} if top is None else {"model_type": kind, TIE: top}
        if part:
            fields[part] = {"model_type": nested_type}
            if text is not None:
                fields[part][TIE] = text
        try:
            config = config_class.from_dict(dict(fields))
        except (StrictDataclassError, ValueError):
            continue  # the class refuses the value
        holder = getattr(config, part) if entry["rule"] == "text" else config
        assert is_tied(fields) == bool(getattr(holder, TIE, False)), fields
        decided += 1
        if entry["rule"] != "always":
            apart = config_class.from_dict(untied(fields))
            holder = getattr(apart, part) if entry["rule"] == "text" else apart
            assert not getattr(holder, TIE, False), fields
    assert decided
    whole = config_class.from_dict({"model_type": kind}).get_text_config()
    assert longest_sequence({"model_type": kind}) == getattr(whole, "max_position_embeddings", None)


@pytest.mark.parametrize("kind", FIELDS)
def test_sizes_of_a_gguf_are_those_of_the_class(kind):
    from transformers import CONFIG_MAPPING

    config = CONFIG_MAPPING[kind].from_dict({})
    fields = with_defaults({"model_type": kind})
    for field in FIELDS[kind]:
        if fields[field] is not None:
            assert fields[field] == getattr(config, field), field
    assert fields["rope_theta"] == config.rope_parameters["rope_theta"]


def test_the_file_is_that_of_the_installed_transformers(run):
    run("-m", "tools.class_defaults", "--check")


def opened(folder):
    """The class that LLaMA-Factory opens."""
    from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForImageTextToText
    from transformers.models.auto.modeling_auto import MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING as SEEING

    auto = AutoModelForCausalLM
    if type(AutoConfig.from_pretrained(folder)) in SEEING:
        auto = AutoModelForImageTextToText
    return auto.from_pretrained(folder, dtype=torch.float32, attn_implementation="eager").eval()


def without_defaults(fields, kind):
    """A config without the keys that have the value of their class, as they are published."""
    from transformers import CONFIG_MAPPING

    usual = {}
    if kind in CONFIG_MAPPING:
        usual = CONFIG_MAPPING[kind]().to_dict()
    published = {}
    for key, value in fields.items():
        if isinstance(value, dict) and key.endswith("_config"):
            published[key] = without_defaults(value, value.get("model_type"))
        elif key in ("model_type", "architectures") or key not in usual or usual[key] != value:
            published[key] = value
    return published


def make_family(folder, kind):
    """A model with random weights that are far from 0, and a published-style config."""
    from transformers import CONFIG_MAPPING, AutoModelForCausalLM, AutoModelForImageTextToText
    from transformers.models.auto.modeling_auto import MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING as SEEING

    torch.manual_seed(0)
    config = CONFIG_MAPPING[kind](**FAMILIES[kind])
    auto = AutoModelForImageTextToText if type(config) in SEEING else AutoModelForCausalLM
    model = auto.from_config(config, attn_implementation="eager")
    for parameter in model.parameters():
        if parameter.dim() == 2:
            parameter.data.normal_(0, 0.3)
    model.save_pretrained(folder)
    path = folder / "config.json"
    published = without_defaults(read_json(path), kind)
    assert TIE not in published or TIE in str(FAMILIES[kind])
    write_json(path, published)


def name_of(model, module):
    """The last part of a module's name."""
    for name, other in model.named_modules():
        if other is module:
            return name.rpartition(".")[2]
    raise AssertionError(module)


def linear_of(model):
    """Names of two linear modules of the language model's layers."""
    names = set()
    for name, module in model.named_modules():
        is_linear = type(module).__name__ in ("Linear", "Conv1D")
        is_layer = any(part in name.split(".") for part in ("layers", "h"))
        if is_linear and is_layer and "vis" not in name and "expert" not in name:
            names.add(name.rpartition(".")[2])
    return sorted(names)[:2]


@pytest.mark.parametrize("kind", FAMILIES)
def test_fused_models_answer_as_peft_s_live_model(tmp_path, kind):
    """LoRA on the embedding, on the head, and both saved in full; logits in every place."""
    import peft
    from safetensors.torch import load_file, save_file

    folder = tmp_path / "base"
    make_family(folder, kind)
    base = opened(folder)
    table, head = name_of(base, base.get_input_embeddings()), name_of(base, base.get_output_embeddings())
    linear, conv1d = linear_of(base), "conv1d" in class_entry({"model_type": kind})
    cases = {
        "table": ([*linear, table], None),
        "head": ([*linear, head], None),
        "head saved": (linear, [head]),
        "both saved": (linear, [table, head]),
    }
    ids = torch.randint(1, 90, (2, 12), generator=torch.Generator().manual_seed(1))
    bare = tmp_path / "bare"
    if kind in NO_PREFIX:
        bare.mkdir()
        write_json(bare / "config.json", read_json(folder / "config.json"))
        tensors = load_file(folder / "model.safetensors")
        tensors = {name.removeprefix(NO_PREFIX[kind]): value for name, value in tensors.items()}
        save_file(tensors, bare / "model.safetensors", {"format": "pt"})
    for name, (targets, saved) in cases.items():
        config = peft.LoraConfig(
            r=4, lora_alpha=8, target_modules=targets, modules_to_save=saved, task_type="CAUSAL_LM",
            init_lora_weights=False, fan_in_fan_out=conv1d,
        )  # fmt: skip
        torch.manual_seed(3)
        live = peft.get_peft_model(copy.deepcopy(base), config).eval()
        for parameter_name, parameter in live.named_parameters():
            if "modules_to_save.default" in parameter_name:
                parameter.data += 0.1 * torch.randn_like(parameter)
        with torch.no_grad():
            expected = live(ids).logits
            assert (expected - base(ids).logits).abs().max() > 0.01
        live.save_pretrained(tmp_path / name)
        for start in (folder, bare)[: 1 + (kind in NO_PREFIX)]:
            out = tmp_path / f"{name} of {start.name}"
            printed, _ = call("fuse", tmp_path / name, "--base", start, "--out", out, "--same-base")
            assert "100.0%" in printed
            with torch.no_grad():
                found = opened(out)(ids).logits
            torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-4)
