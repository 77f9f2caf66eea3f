"""Adapters of vision-language models: our table of older names, and two that LLaMA-Factory trained."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from tests.json_files import write_json
from tests.tiny import make_tiny
from tests.unit.adapters.test_commands import call
from tuneyard.core.weights.base_models import STORED_AS, Base
from tuneyard.core.weights.tensors import Tensor, Weights

QWEN = ("model.layers.0.mlp.up_proj", "model.embed_tokens", "visual.blocks.0.attn.qkv", "lm_head")
# Whose names are more than renamed, or that wrap another model: their adapters are refused as before.
LEFT_OUT = {"colqwen2", "emu3", "fuyu", "paddleocr_vl", "pi0", "qianfan_ocr"}


def rules():
    """Return transformers' renamings by model type, of those that name modules model.language_model anew."""
    from transformers import conversion_mapping

    found = conversion_mapping._build_checkpoint_conversion_mapping()
    found |= {kind: found[like] for kind, like in conversion_mapping._MODEL_TO_CONVERSION_PATTERN.items()}
    aims = {
        kind: [str(rule.target_patterns).replace("\\", "") for rule in given] for kind, given in found.items()
    }
    return {kind: found[kind] for kind in found if any("model.language_model" in aim for aim in aims[kind])}


def test_the_table_is_transformers_own():
    theirs = rules()
    assert STORED_AS.keys() == theirs.keys() - LEFT_OUT
    for kind, given in STORED_AS.items():
        plain = [rule.source_patterns[0].removeprefix("^") for rule in theirs[kind]]
        stored = QWEN if "qwen" in kind else [f"{name}.x" for name in plain if name != "image_newline"]
        names = [f"{name}.weight" for name in stored]
        place = {name: Tensor(Path("x"), name, "F32", (1,), 0, 4) for name in names}
        base = Base(Path("x"), {"model_type": kind}, {"x": Weights(Path("x"), place)})
        for name in [*names, "model.language_model.x.weight"]:
            module = name
            for rule in theirs[kind]:
                module, _ = rule.rename_source_key(module)
            assert base.module_name(name) == module, (kind, name)
            if name in place:
                assert base.stored_name(module) == name
        assert given


@pytest.fixture(scope="module")
def vision_model(tmp_path_factory):
    """A random Qwen2.5-VL of two layers, with the tokenizer of the tiny model, under its published names."""
    from transformers import AutoTokenizer, Qwen2_5_VLConfig, Qwen2_5_VLForConditionalGeneration

    folder = tmp_path_factory.mktemp("vision")
    tokenizer = AutoTokenizer.from_pretrained(make_tiny(folder / "text"))
    size = len(tokenizer)
    text = {
        "vocab_size": size, "hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 2,
        "num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": 512,
        "rope_parameters": {"rope_type": "default", "mrope_section": [2, 3, 3], "rope_theta": 10000.0},
    }  # fmt: skip
    vision = {
        "depth": 2, "hidden_size": 32, "intermediate_size": 48, "num_heads": 2, "out_hidden_size": 64,
        "fullatt_block_indexes": [1], "patch_size": 14, "window_size": 112,
    }  # fmt: skip
    torch.manual_seed(0)
    config = Qwen2_5_VLConfig(text_config=text, vision_config=vision, tie_word_embeddings=False)
    Qwen2_5_VLForConditionalGeneration(config).save_pretrained(folder / "base")
    tokenizer.save_pretrained(folder / "base")
    return folder / "base"


def trained(llamafactory, model, folder, **settings):
    """Train a LoRA for three steps with LLaMA-Factory's own command."""
    data = folder / "data"
    data.mkdir(parents=True)
    rows = [{"instruction": f"Is {n} even?", "input": "", "output": ("yes", "no")[n % 2]} for n in range(8)]
    write_json(data / "even.json", rows)
    write_json(data / "dataset_info.json", {"even": {"file_name": "even.json"}})
    recipe = {
        "model_name_or_path": str(model), "stage": "sft", "do_train": True, "finetuning_type": "lora",
        "dataset": "even", "dataset_dir": str(data), "template": "empty", "output_dir": str(folder / "out"),
        "max_steps": 3, "learning_rate": 0.05, "lora_rank": 4, "report_to": "none", "use_cpu": True,
        "per_device_train_batch_size": 2, "preprocessing_num_workers": 1, **settings,
    }  # fmt: skip
    write_json(folder / "recipe.yaml", recipe)
    llamafactory.run("llamafactory.cli", "train", folder / "recipe.yaml")
    return folder / "out"


@pytest.mark.slow
@pytest.mark.parametrize(
    "settings",
    [{"lora_target": "q_proj,v_proj,up_proj"}, {"lora_target": "all", "freeze_vision_tower": False}],
    ids=["language model", "all"],
)
def test_what_llamafactory_trained_is_fused_as_peft_merges_it(llamafactory, vision_model, tmp_path, settings):
    import peft
    from transformers import Qwen2_5_VLForConditionalGeneration as Model

    adapter = trained(llamafactory, vision_model, tmp_path / "run", **settings)
    file = adapter / "adapter_model.safetensors"
    tensors = {  # no image was trained on, so that B of the vision tower is still 0
        name: value + 0.1 * torch.randn_like(value) if "visual" in name else value
        for name, value in load_file(file).items()
    }
    save_file(tensors, file, {"format": "pt"})
    call("fuse", adapter, "--base", vision_model, "--out", tmp_path / "fused")
    loaded = Model.from_pretrained(vision_model, dtype=torch.float32)
    before = {name: value.clone() for name, value in loaded.state_dict().items()}
    theirs = peft.PeftModel.from_pretrained(loaded, adapter).merge_and_unload().state_dict()
    ours = Model.from_pretrained(tmp_path / "fused", dtype=torch.float32).state_dict()
    changed = [name for name in before if not torch.equal(theirs[name], before[name])]
    assert any("language_model" in name for name in changed)
    assert any("visual" in name for name in changed) == (settings["lora_target"] == "all")
    for name, value in theirs.items():
        torch.testing.assert_close(ours[name], value, atol=1e-6, rtol=1e-6)
        assert torch.equal(ours[name], before[name]) == (name not in changed)
