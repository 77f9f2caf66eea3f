"""Adapters that were trained on top of other adapters: LLaMA-Factory's rules decide which, and each command
refuses one without those below it."""

import json
import shutil
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from tests.json_files import write_json
from tests.messages import printed, printed_line, raises
from tests.unit.adapters.commands import call
from tests.unit.adapters.make import CONFIG, base_tensors, delta, dense, factors, make, make_base
from tuneyard.adapters.model.store import open_adapter
from tuneyard.core.errors import ContentError
from tuneyard.core.files import sha256
from tuneyard.core.training.parent_adapters import merged_before_training, parent_adapters

NEW = {"create_new_adapter": True}
RECORDS = ("training.json", "started.json", "recipe.yaml", "training_args.yaml")


def trained_on(folder, names, seed=1, record="training.json", *, adapters=None, fields=None, **settings):
    """An adapter with the record of a training that began with other adapters."""
    make(folder, factors(seed), **(fields or {}))
    return recorded(folder, names, record, adapters=adapters, **settings)


def recorded(folder, names, record="training.json", *, adapters=None, **settings):
    """Write the record of a training that began with other adapters next to an adapter."""
    settings = {"adapter_name_or_path": names, **settings}
    content: dict[str, object] = settings  # JSON is YAML, too
    if record.endswith(".json"):
        content = {"settings": settings, **({"adapters": adapters} if adapters else {})}
    if record == "training.json":
        content = {"inputs": content}
    write_json(Path(folder) / record, content)
    return Path(folder)


@pytest.fixture(autouse=True)
def folders(working_folder):
    """The adapter saves/a on a base, and saves/b that was trained on top of it."""
    make_base("base", base_tensors())
    make("saves/a", factors(5), base_model_name_or_path="base")
    trained_on("saves/b", "saves/a", 6, fields={"base_model_name_or_path": "base"}, **NEW)


@pytest.mark.parametrize(
    ("settings", "merged"),
    [
        ({"adapter_name_or_path": "x"}, []),
        ({"adapter_name_or_path": "x", "create_new_adapter": False}, []),
        ({"adapter_name_or_path": "x", **NEW}, ["x"]),
        ({"adapter_name_or_path": "x,y"}, ["x"]),
        ({"adapter_name_or_path": " x , y ,z"}, ["x", "y"]),
        ({"adapter_name_or_path": ["x", "y"], **NEW}, ["x", "y"]),
        ({"adapter_name_or_path": None, **NEW}, []),
        ({"adapter_name_or_path": "", **NEW}, []),
        ({**NEW}, []),
        ({"adapter_name_or_path": "x", "finetuning_type": "oft", **NEW}, ["x"]),
        # without a merge LLaMA-Factory continues the adapter, whatever create_new_adapter says
        ({"adapter_name_or_path": "x", "quantization_bit": 4, **NEW}, []),
        ({"adapter_name_or_path": "x", "use_unsloth": True, **NEW}, []),
        ({"adapter_name_or_path": "x", "use_kt": True, **NEW}, []),
        ({"adapter_name_or_path": "x", "deepspeed": "recipes/deepspeed/z3.json", **NEW}, []),
        ({"adapter_name_or_path": "x", "deepspeed": "recipes/deepspeed/z2.json", **NEW}, ["x"]),
        ({"adapter_name_or_path": "x", "deepspeed": {"zero_optimization": {"stage": 3}}, **NEW}, []),
        ({"adapter_name_or_path": "x", "deepspeed": "gone/ds_z3_config.json", **NEW}, []),
        ({"adapter_name_or_path": "x", "deepspeed": "gone/ds_z2_config.json", **NEW}, ["x"]),
        ({"adapter_name_or_path": "x", "model_name_or_path": "awq", **NEW}, []),
        ({"adapter_name_or_path": "x", "model_name_or_path": "base", **NEW}, ["x"]),
    ],
)
def test_llamafactory_decides_what_is_merged_before_a_training(settings, merged):
    make_base("awq", base_tensors(), quantization_config={"quant_method": "awq"})
    assert merged_before_training(settings, Path("training.json")) == merged


@pytest.mark.parametrize("record", RECORDS)
@pytest.mark.parametrize("place", ["saves/c", "saves/c/checkpoint-20", "saves/c/pissa_converted"])
def test_every_record_of_a_training_names_the_adapters_below(record, place):
    make(place, factors(7))
    recorded("saves/c", "saves/a", record, **NEW)
    message = call("merge", f"{place}=0.5", "--out", "x", code=1)[1]
    printed(message, place, "saves/a", f"saves/c/{record}", "adapter_name_or_path")
    printed(message, f"tuneyard adapter merge saves/a=1 {place}=1 --out")
    assert not Path("x").exists()


def test_the_command_in_the_message_writes_the_exact_sum():
    message = call("merge", "b=1", "--out", "x", code=1)[1]
    call(*message[message.index("merge saves") :].split())
    result, first, second = open_adapter("saves/b-sum"), dense(factors(5)), dense(factors(6))
    for module in first:
        np.testing.assert_allclose(
            delta(result, module), first[module] + second[module], rtol=1e-6, atol=1e-5
        )


COMMANDS = {
    "fuse": ("fuse", "b", "--base", "base", "--out", "x"),
    "fuse its base": ("fuse", "b=0.5", "--out", "x"),
    "hub": ("export", "b", "--to", "hub", "--repo", "o/n", "--dry-run"),
    "gguf": ("export", "b", "--to", "gguf", "--out", "x"),
    "ollama": ("export", "b", "--to", "ollama", "--from", "q", "--out", "x"),
    "ollama fused": ("export", "b", "--to", "ollama", "--base", "base", "--out", "x"),
    "serve": ("serve", "a", "b", "--engine", "llama.cpp", "--dry-run"),
    "vllm": ("serve", "b", "--engine", "vllm", "--dry-run"),
}


@pytest.mark.parametrize("command", COMMANDS)
def test_each_command_refuses_a_link_of_a_chain(command):
    message = call(*COMMANDS[command], code=1)[1]
    printed(message, "saves/b", "saves/a", "tuneyard adapter merge saves/a=1 saves/b=1 --out saves/b-sum")
    assert not Path("x").exists()


@pytest.mark.parametrize(
    ("model", "adapters"),
    [
        ("base", ["b"]),
        ("saves/b", []),
        ("base", ["a", "b"]),
        ("base", ["half=b:0.5"]),
        ("base", ["zero=a:0+b:1"]),
    ],
)
def test_eval_refuses_a_link_of_a_chain(model, adapters):
    with raises(ContentError, "saves/b", "tuneyard adapter merge saves/a=1 saves/b=1"):
        opened(model, adapters)


def opened(model, adapters):
    """The candidates of `eval`, `eval sweep` and `eval prove`."""
    from tuneyard.eval.scoring.candidates import open_adapters

    return open_adapters(SimpleNamespace(model=model, no_base=False, adapters=adapters))


def test_with_every_adapter_below_all_commands_proceed():
    call("merge", "a=0.5", "b=1", "--out", "merged")
    call("fuse", "a", "b", "--base", "base", "--out", "fused")
    _, models = opened("base", ["both=a:1+b:1", "a"])
    assert list(models) == ["base", "both", "a"]


def test_a_chain_of_three_needs_both_below():
    trained_on("saves/c", "saves/a,saves/b", 7, **NEW)
    for given in (["c=1"], ["a=1", "c=1"], ["b=1", "c=1"]):
        message = call("merge", *given, "--out", "x", code=1)[1]
        printed(message, "saves/a, saves/b", "merge saves/a=1 saves/b=1 saves/c=1 --out saves/c-sum")
    call("merge", "c=1", "b=1", "a=1", "--base", "base", "--same-base", "--out", "x")


def test_the_training_on_top_decides_what_is_below():
    trained_on("saves/c", "saves/b", 7, **NEW)  # LLaMA-Factory merged b alone, without a
    printed(call("merge", "c=1", "--out", "x", code=1)[1], "merge saves/b=1 saves/c=1 --out")
    call("merge", "b=1", "c=1", "--base", "base", "--same-base", "--out", "x")


def test_an_adapter_that_was_continued_needs_none():
    trained_on("saves/c", "saves/a", 7)
    assert parent_adapters(Path("saves/c")) == []
    call("merge", "c=1", "--out", "x")


def test_of_two_adapters_the_last_is_continued():
    trained_on("saves/c", "saves/a,saves/b", 7, fields={"base_model_name_or_path": "base"})
    printed(call("merge", "c=1", "--out", "x", code=1)[1], "merge saves/a=1 saves/c=1 --out saves/c-sum")
    call("merge", "a=1", "c=1", "--out", "x")


@pytest.mark.parametrize("name", ["saves/old/a", "/gone/project/saves/a", "C:\\work\\saves\\a", "./a/"])
def test_an_adapter_that_moved_is_known_by_its_name(name):
    trained_on("saves/b", name, 6, fields={"base_model_name_or_path": "base"}, **NEW)
    shutil.move("saves/a", "moved/a")
    printed(call("merge", "b=1", "--out", "x", code=1)[1], name.rstrip("/"), "not here")
    call("merge", "moved/a=1", "b=1", "--out", "x")
    make("saves/other", factors(5), base_model_name_or_path="base")
    call("merge", "other=1", "b=1", "--out", "y", code=1)


def test_an_adapter_that_moved_along_is_proposed():
    trained_on("saves/b", "/gone/project/saves/a", 6, **NEW)
    printed(call("merge", "b=1", "--out", "x", code=1)[1], "saves/a=1 saves/b=1")
    make("other/run/checkpoint-4")
    trained_on("other/next", "/gone/run/checkpoint-4", 6, **NEW)
    printed(call("merge", "other/next=1", "--out", "x", code=1)[1], "other/run/checkpoint-4=1 other/next=1")


def test_the_recorded_hash_knows_an_adapter_by_any_name():
    weights = {"name": "saves/a", "sha256": sha256(Path("saves/a/adapter_model.safetensors"))}
    trained_on("saves/b", "saves/a", 6, adapters=[weights], fields={"base_model_name_or_path": "base"}, **NEW)
    shutil.copytree("saves/a", "renamed")
    call("merge", "./renamed=1", "b=1", "--out", "x")
    make("saves/a", factors(8), base_model_name_or_path="base")
    message = call("merge", "a=1", "b=1", "--out", "y", code=1)[1]
    printed(message, "saves/a", "saves/b/training.json", f"{weights['sha256'][:16]}…")


def test_an_adapter_on_the_hub_is_named():
    trained_on("saves/b", "org/first-lora", 6, **NEW)
    printed(call("merge", "b=1", "--out", "x", code=1)[1], "org/first-lora", "not here", "org/first-lora=1")


def test_dora_on_top_is_fused_after_those_below():
    magnitudes = {
        f"base_model.model.{path}.lora_magnitude_vector": np.ones(len(b), np.float32)
        for path, (_, b) in factors().items()
    }
    make("saves/b", factors(6), extra=magnitudes, use_dora=True, base_model_name_or_path="base")
    message = call("fuse", "a", "b", "--base", "base", "--out", "x", code=1)[1]
    first, second = [part.split() for part in message[message.index("adapter fuse") :].split(" && ")]
    call(*first[1:])
    call(*second[2:])
    assert Path("models/b/model.safetensors").is_file()


def test_a_head_that_both_save_in_full_is_fused_step_by_step():
    """The value on top was trained from the one below, so the last one stays: W0 + (Wa - W0) + (Wb - Wa)."""
    head = base_tensors()["model.layers.0.norm.weight"]
    name = "base_model.model.model.layers.0.norm.weight"
    for folder, seed, add in (("saves/a", 5, 1), ("saves/b", 6, 2)):
        fields = {"base_model_name_or_path": "base", "modules_to_save": ["layers.0.norm"]}
        make(folder, factors(seed), extra={name: head + np.float32(add)}, **fields)
    recorded("saves/b", "saves/a", **NEW)
    message = call("merge", "a=1", "b=1", "--base", "base", "--out", "x", code=1)[1]
    printed(message, "model.layers.0.norm.weight")
    first, second = [part.split() for part in message[message.index("adapter fuse") :].split(" && ")]
    call(*first[1:])
    call(*second[2:], "--dtype", "fp32")
    from tuneyard.core.weights.tensors import open_weights

    fused = open_weights(Path("models/b/model.safetensors"))
    np.testing.assert_allclose(fused.read("model.layers.0.norm.weight"), head + 2, atol=1e-2)


def test_a_base_with_those_below_is_enough():
    call("fuse", "a", "--base", "base", "--dtype", "fp32", "--out", "with-a")
    call("fuse", "b", "--base", "with-a", "--same-base", "--out", "x")
    assert list(opened("with-a", ["b"])[1]) == ["base", "b"]
    call("fuse", "a=0.5", "--base", "base", "--dtype", "fp32", "--out", "half-a")
    call("fuse", "b", "--base", "half-a", "--same-base", "--out", "y", code=1)


def merged_elsewhere(folder, *parts, dtype="F32"):
    """The base with weight · ΔW of adapters of these seeds, as a program leaves it that writes no record."""
    tensors = base_tensors()
    for seed, weight in parts:
        for module, change in dense(factors(seed)).items():
            tensors[f"{module}.weight"] = tensors[f"{module}.weight"] + weight * change
    make_base(folder, tensors, dtype)


@pytest.mark.parametrize("dtype", ["F32", "F16", "BF16"])
def test_a_base_into_which_another_program_merged_those_below_is_enough(dtype):
    merged_elsewhere("exported", (5, 1), dtype=dtype)
    call("fuse", "b", "--base", "exported", "--same-base", "--out", "x")
    assert list(opened("exported", ["b"])[1]) == ["base", "b"]
    Path("saves/b/training.json").rename("saves/b/started.json")
    recorded("saves/b", "saves/a", "training_args.yaml", **NEW)
    call("fuse", "b", "--base", "exported", "--same-base", "--out", "y")


@pytest.mark.parametrize("parts", [[], [(5, 0.4)], [(5, -1)], [(7, 1)], [(5, 2)]], ids=str)
def test_a_base_with_something_else_does_not_have_those_below(parts):
    merged_elsewhere("exported", *parts)
    message = call("fuse", "b", "--base", "exported", "--same-base", "--out", "x", code=1)[1]
    assert "saves/a=1 saves/b=1" in message


def test_of_two_below_a_base_may_have_one():
    make("saves/c", factors(7), base_model_name_or_path="base")
    trained_on("saves/top", "saves/a,saves/c", 8, fields={"base_model_name_or_path": "base"}, **NEW)
    merged_elsewhere("exported", (5, 1))
    message = call("fuse", "top", "--base", "exported", "--same-base", "--out", "x", code=1)[1]
    assert "saves/a=1 saves/c=1 saves/top=1" in message
    call("fuse", "c", "top", "--base", "exported", "--same-base", "--out", "y")
    merged_elsewhere("exported", (5, 1), (7, 1))
    call("fuse", "top", "--base", "exported", "--same-base", "--out", "z")


@pytest.mark.parametrize("content", ["{", "[]", '{"inputs": {"settings": {"adapter_name_or_path": 5}}}'])
def test_a_damaged_record_stops_nothing_and_is_named(content):
    Path("saves/b/training.json").write_text(content)
    _, notes = call("merge", "b=1", "--out", "x")
    if content != "[]":
        printed_line(notes, "warning", "saves/b/training.json")


@pytest.mark.parametrize("name", ["a\0b", "x" * 5000, "../" * 300, ",".join(["x"] * 101)])
def test_a_hostile_record_ends_in_a_message(name):
    recorded("saves/b", name, **NEW)
    message = call("merge", "b=1", "--out", "x", code=0 if "," in name else 1)[1]
    assert "Traceback" not in message and "saves/b/training.json" in message


def test_show_names_the_adapters_below():
    out, notes = call("show", "b")
    assert "q_proj" in out
    printed_line(notes, "note", "saves/b", "saves/a")
    printed_line(notes, "next: tuneyard adapter merge saves/a=1 saves/b=1 --out saves/b-sum")
    assert "next: tuneyard adapter merge a=0.5 b=0.5" in call("show", "a", "b")[1]


def test_a_record_with_no_adapters_changes_nothing():
    for settings in ({}, {"adapter_name_or_path": None}, {"dataset": "rte"}):
        write_json(Path("saves/a/training.json"), {"inputs": {"settings": settings}})
        call("merge", "a=1", "--out", f"x{len(json.dumps(settings))}")
    assert CONFIG["peft_type"] == "LORA"


@pytest.mark.parametrize(
    ("weights", "note"),
    [
        (("a=1", "b=1"), ""),
        (("a=0.5", "b=0.5"), ""),
        (("a=0.5", "a=0.5", "b=1"), ""),
        (("a=0.5", "b=1"), "1; 0.5"),
        (("a=1", "b=-2"), "-2; 1"),
    ],
)
def test_a_sum_that_is_not_the_trained_model_has_a_note(weights, note):
    notes = call("merge", *weights, "--out", "x")[1]
    lines = [line for line in notes.splitlines() if "was trained on top of" in line]
    assert len(lines) == bool(note)
    for line in lines:
        printed(line, "note", "saves/a", note)


def test_an_adapter_that_was_merged_twice_counts_twice():
    trained_on("saves/b", "saves/a,saves/a", 6, fields={"base_model_name_or_path": "base"}, **NEW)
    printed(call("merge", "b=1", "--out", "x", code=1)[1], "saves/a=1 saves/a=1 saves/b=1")
    assert "on top of" not in call("merge", "a=1", "a=1", "b=1", "--out", "x")[1]
    printed(call("merge", "a=1", "b=1", "--out", "y")[1], "with weight 2", "with 1")
