"""Trainings on top of other adapters: the sum that Tuneyard writes is LLaMA-Factory's own live model."""

import numpy as np
import pytest

from tests.integration.test_adapters_llamafactory import exported
from tests.json_files import write_json
from tests.unit.adapters.commands import call
from tuneyard.core.weights.tensors import open_weights

pytestmark = pytest.mark.slow
COLUMNS = {"prompt": "instruction", "response": "output"}
RECIPE = {
    "stage": "sft", "do_train": True, "finetuning_type": "lora", "lora_rank": 4,
    "lora_target": "q_proj,v_proj", "dataset": "even", "template": "qwen", "cutoff_len": 64,
    "max_steps": 2, "save_steps": 1, "per_device_train_batch_size": 4, "learning_rate": 0.02,
    "use_cpu": True, "report_to": "none",
}  # fmt: skip


@pytest.fixture(scope="module")
def chain(llamafactory, tiny_model, tmp_path_factory):
    """A folder in which LLaMA-Factory trained a, b on a, c on a and b, and d: a below, b continued."""
    folder = tmp_path_factory.mktemp("chain")
    rows = [{"instruction": f"Is {n} even?", "output": ("no", "yes")[n % 2 == 0]} for n in range(8)]
    write_json(folder / "even.json", rows)
    write_json(folder / "dataset_info.json", {"even": {"file_name": "even.json", "columns": COLUMNS}})
    a, b, new = folder / "a", folder / "b", {"create_new_adapter": True}
    for name, settings in {
        "a": {},
        "b": {"adapter_name_or_path": str(a), **new},
        "c": {"adapter_name_or_path": f"{a},{b}", **new},
        "d": {"adapter_name_or_path": f"{a},{b}"},
    }.items():
        output_dir = folder / name
        output_dir.mkdir()
        record = output_dir / "training_args.yaml"  # as LLaMA Board writes it and begins the training
        places = {"model_name_or_path": tiny_model, "dataset_dir": folder, "output_dir": output_dir}
        write_json(record, {**RECIPE, **{key: str(path) for key, path in places.items()}, **settings})
        llamafactory.run("llamafactory.cli", "train", record)
    return folder


def live_model(tiny_model, *adapters):
    """What LLaMA-Factory trained: PEFT merges each adapter into the result of those before."""
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(tiny_model, dtype="float32")
    for adapter in adapters:
        model = PeftModel.from_pretrained(model, adapter).merge_and_unload()
    return {name: tensor.numpy() for name, tensor in model.state_dict().items()}


@pytest.mark.parametrize(
    ("adapter", "below"), [("b", "a"), ("c", "ab"), ("d", "a"), ("c/checkpoint-1", "ab")]
)
def test_the_command_of_the_refusal_is_the_live_model(chain, tiny_model, tmp_path, adapter, below):
    message = call("fuse", chain / adapter, "--base", tiny_model, "--out", "x", code=1)[1]
    words = message[message.index("merge /") :].split()
    call(*words[:-1], tmp_path / "sum")
    call("fuse", tmp_path / "sum", "--base", tiny_model, "--dtype", "fp32", "--out", tmp_path / "fused")
    ours = open_weights(tmp_path / "fused/model.safetensors")
    live = live_model(tiny_model, *(chain / name for name in [*below, adapter]))
    base = open_weights(tiny_model / "model.safetensors")
    for name in ours.tensors:
        np.testing.assert_allclose(ours.read(name), live[name], atol=1e-6)
    moved = "model.layers.0.self_attn.q_proj.weight"
    alone = live_model(tiny_model, chain / adapter)[moved]
    assert np.abs(live[moved] - base.read(moved)).max() > 1e-3
    assert np.abs(live[moved] - alone).max() > 1e-3  # the adapter alone is another model


def test_llamafactorys_own_export_of_a_chain_is_the_sum(chain, llamafactory, tiny_model, tmp_path):
    adapters = [chain / name for name in "abc"]
    out = tmp_path / "fused"
    call("fuse", *adapters, "--base", tiny_model, "--dtype", "fp32", "--out", out)
    theirs = exported(llamafactory, tiny_model, ",".join(map(str, adapters)), tmp_path / "theirs")
    ours = open_weights(out / "model.safetensors")
    for name in ours.tensors:
        np.testing.assert_allclose(theirs.read(name), ours.read(name), atol=2e-6)
