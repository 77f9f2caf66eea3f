"""Adapters of vision-language models: our table of older names, and changes of both parts of a model.

Adapters that LLaMA-Factory trained on images are fused in test_stages.py.
"""

from pathlib import Path

import pytest
import torch

from testing.tiny import make_seeing, write_adapter
from tests.integration.peft_oracle import save_adapter
from tests.unit.adapters.commands import call
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


@pytest.mark.slow
def test_changes_of_both_parts_are_fused_as_peft_merges_them(tmp_path):
    import peft
    from transformers import Qwen2_5_VLForConditionalGeneration as Model

    folder = make_seeing(tmp_path / "base", weights=True)
    base = Model.from_pretrained(folder, dtype=torch.float32)
    adapter = save_adapter(base, folder, tmp_path / "a", target_modules=["q_proj", "up_proj", "qkv"])
    call("fuse", adapter, "--base", folder, "--out", tmp_path / "fused")
    before = {name: value.clone() for name, value in base.state_dict().items()}
    theirs = peft.PeftModel.from_pretrained(base, adapter).merge_and_unload().state_dict()
    ours = Model.from_pretrained(tmp_path / "fused", dtype=torch.float32).state_dict()
    changed = [name for name in before if not torch.equal(theirs[name], before[name])]
    for part in ("language_model", "visual"):
        assert any(part in name for name in changed)
    for name, value in theirs.items():
        torch.testing.assert_close(ours[name], value, atol=1e-6, rtol=1e-6)
        assert torch.equal(ours[name], before[name]) == (name not in changed)


@pytest.mark.slow
def test_an_adapter_of_the_text_model_is_renamed_for_the_model_with_images(tmp_path):
    import peft
    from transformers import Qwen2_5_VLForConditionalGeneration as Model

    folder = make_seeing(tmp_path / "base", weights=True)
    base = Model.from_pretrained(folder, dtype=torch.float32)
    text = {"model.layers.0.self_attn.q_proj": (64, 64), "model.layers.1.mlp.up_proj": (128, 64)}
    write_adapter(tmp_path / "text", text, base_model_name_or_path=str(folder), task_type="CAUSAL_LM")
    call("rename", tmp_path / "text", "--base", folder, "--out", tmp_path / "renamed")
    call("fuse", tmp_path / "renamed", "--base", folder, "--out", tmp_path / "fused")
    before = {name: value.clone() for name, value in base.state_dict().items()}
    theirs = peft.PeftModel.from_pretrained(base, tmp_path / "renamed").merge_and_unload().state_dict()
    ours = Model.from_pretrained(tmp_path / "fused", dtype=torch.float32).state_dict()
    changed = {name for name in before if not torch.equal(theirs[name], before[name])}
    assert changed == {f"{path.replace('model.', 'model.language_model.')}.weight" for path in text}
    for name, value in theirs.items():
        torch.testing.assert_close(ours[name], value, atol=1e-5, rtol=1e-5)
