"""Adapters whose tensors have other names than PEFT's or the base's: refused with the cause, and renamed."""

from pathlib import Path

import numpy as np
import pytest

from tests.json_files import read_json, write_json
from tests.messages import printed, printed_line, raises
from tests.unit.adapters.commands import call
from tests.unit.adapters.make import (
    PREFIX,
    base_tensors,
    delta,
    dense,
    factors,
    make,
    make_base,
    tensors_of,
    write_file,
)
from tuneyard.adapters.model.store import open_adapter
from tuneyard.core.datasets.trained_examples import read_trained_rows, write_trained_rows
from tuneyard.core.errors import ContentError, RequestError
from tuneyard.core.training.training_run import TRAINED_ROWS
from tuneyard.core.weights.adapter_files import check_base, is_same_name, published_name
from tuneyard.core.weights.adapter_names import core_of, peft_name
from tuneyard.core.weights.base_compatibility import adapter_mismatches
from tuneyard.core.weights.tensors import open_weights

FIRST = f"{PREFIX}model.layers.0.self_attn.q_proj.lora_A.weight"
# How other programs write a name, and the word of the cause in the refusal.
NAMES = {
    "compiled": (lambda name: name.replace(PREFIX, f"{PREFIX}_orig_mod."), "torch.compile"),
    "compiled whole": (lambda name: f"_orig_mod.{name}", "torch.compile"),
    "compiled layer": (lambda name: name.replace(".self_attn", "._orig_mod.self_attn"), "torch.compile"),
    "ddp": (lambda name: f"module.{name}", "DDP"),
    "ddp within": (lambda name: name.replace(PREFIX, f"{PREFIX}module."), "DDP"),
    "ddp compiled": (lambda name: f"module._orig_mod.{name}", "torch.compile"),
    "fsdp": (lambda name: name.replace(".self_attn", "._fsdp_wrapped_module.self_attn"), "FSDP"),
    "checkpointing": (lambda name: name.replace(".0.", ".0._checkpoint_wrapped_module."), "checkpointing"),
    "live": (lambda name: name.replace(".weight", ".default.weight"), "adapter's own name"),
    "live sft": (lambda name: name.replace(".weight", ".sft.weight"), "adapter's own name"),
    "value head": (lambda name: f"pretrained_model.{name}", "TRL"),
    "lightning": (lambda name: f"model.{name}", "base_model.model."),
    "bare": (lambda name: name.removeprefix(PREFIX), "base_model.model."),
    "twice": (lambda name: PREFIX + name, "twice"),
}
# The same layers in other classes of a model.
CLASSES = {
    "images": "model.language_model.layers.",
    "older images": "language_model.model.layers.",
    "omni": "thinker.model.layers.",
    "no head": "layers.",
}


def renamed(folder, rename, pairs=None, **config):
    """An adapter whose tensors have other names."""
    make(folder, pairs, base_model_name_or_path="base", **config)
    tensors = tensors_of(factors() if pairs is None else pairs)
    write_file(Path(folder) / "adapter_model.safetensors", {rename(name): v for name, v in tensors.items()})
    return Path(folder)


def of_class(name):
    """A renaming of the text model's layers."""
    return lambda key: key.replace("model.model.layers.", f"model.{CLASSES[name]}")


@pytest.fixture(autouse=True)
def base(working_folder):
    make_base("base", base_tensors())
    make("saves/plain", base_model_name_or_path="base")


@pytest.mark.parametrize("kind", NAMES)
def test_names_of_other_programs_are_refused_everywhere_and_renamed(kind):
    rename, cause = NAMES[kind]
    renamed("saves/a", rename)
    for words in (
        ("merge", "a=1", "--out", "x"),
        ("fuse", "a", "--base", "base", "--out", "x"),
        ("show", "a"),
        ("export", "a", "--to", "hub", "--repo", "o/n", "--dry-run"),
        ("serve", "a", "--engine", "llama.cpp", "--dry-run"),
    ):
        message = call(*words, code=1)[1]
        printed(message, "saves/a/adapter_model.safetensors", cause, FIRST)
        printed(message, "tuneyard adapter rename saves/a --out saves/a-renamed")
    with raises(ContentError, "tuneyard adapter rename"):
        adapter_mismatches(Path("saves/a"), Path("base"), may_grow=False)  # of `recipe check`
    call("rename", "a", "--out", "saves/a-renamed")
    written = Path("saves/a-renamed/adapter_model.safetensors")
    ours, plain = open_weights(written), open_weights(Path("saves/plain/adapter_model.safetensors"))
    assert ours.tensors.keys() == plain.tensors.keys()
    for name in plain.tensors:
        assert ours.read(name).tobytes() == plain.read(name).tobytes()
    call("fuse", "a-renamed", "--base", "base", "--out", "x")


@pytest.mark.parametrize("name", CLASSES)
def test_names_of_another_class_of_the_model_are_renamed_to_those_of_the_base(name):
    renamed("saves/a", of_class(name))
    message = call("fuse", "a", "--base", "base", "--out", "x", code=1)[1]
    printed(message, f"{CLASSES[name]}0.self_attn.q_proj", "model.layers.0.self_attn.q_proj")
    printed(message, "tuneyard adapter rename saves/a --base base --out saves/a-renamed")
    with raises(ContentError, "tuneyard adapter rename"):
        adapter_mismatches(Path("saves/a"), Path("base"), may_grow=False)
    for target in (("gguf", "--out", "x"), ("ollama", "--out", "x"), ("hub", "--repo", "o/n", "--dry-run")):
        message = call("export", "a", "--base", "base", "--to", *target, code=1)[1]
        printed(message, "tuneyard adapter rename saves/a --base base --out saves/a-renamed")
    call("rename", "a", "--base", "base", "--out", "saves/a-renamed")
    call("fuse", "a-renamed", "--base", "base", "--dtype", "fp32", "--out", "fused")
    fused, before = (open_weights(Path(folder, "model.safetensors")) for folder in ("fused", "base"))
    for module, change in dense(factors()).items():
        expected = before.read(f"{module}.weight") + change
        np.testing.assert_allclose(fused.read(f"{module}.weight"), expected, rtol=1e-5, atol=1e-5)


def test_names_of_a_text_model_are_renamed_for_a_base_with_images():
    tensors = {
        name.replace("model.layers", "model.language_model.layers"): v for name, v in base_tensors().items()
    }
    make_base("images", {**tensors, "model.visual.blocks.0.attn.qkv.weight": np.ones((3, 4))})
    message = call("fuse", "plain", "--base", "images", "--same-base", "--out", "x", code=1)[1]
    printed(message, "tuneyard adapter rename saves/plain --base images --out saves/plain-renamed")
    call("rename", "plain", "--base", "images", "--out", "saves/plain-renamed")
    call("fuse", "plain-renamed", "--base", "images", "--same-base", "--dtype", "fp32", "--out", "x")
    name = "model.language_model.layers.1.self_attn.v_proj"
    fused, before = (open_weights(Path(folder, "model.safetensors")) for folder in ("x", "images"))
    expected = before.read(f"{name}.weight") + dense(factors())["model.layers.1.self_attn.v_proj"]
    np.testing.assert_allclose(fused.read(f"{name}.weight"), expected, rtol=1e-5, atol=1e-5)


def test_adapters_of_two_classes_of_a_model_are_not_added():
    renamed(
        "saves/a",
        of_class("images"),
        {m: p for m, p in factors().items() if "q_proj" in m},
        target_modules=["q_proj"],
    )
    message = call("merge", "plain=1", "a=1", "--out", "x", code=1)[1]
    printed(message, "model.layers.0.self_attn.q_proj", "model.language_model.layers.0.self_attn.q_proj")
    printed(message, "tuneyard adapter rename saves/plain --base base")


def test_a_base_of_other_shapes_is_another_base():
    renamed("saves/a", of_class("images"), factors(shapes={"q_proj": (6, 6)}), target_modules=["q_proj"])
    message = call("fuse", "a", "--base", "base", "--out", "x", code=1)[1]
    assert "another base?" in message and "rename" not in message


def test_patterns_of_the_config_keep_their_meaning():
    pairs = factors(rank=lambda module: 4 if "layers.1" in module else 8)
    patterns = {
        "target_modules": r"model\.language_model\.layers\.\d\.self_attn\.(q|v)_proj",
        "rank_pattern": {r"language_model\.layers\.1\..*": 4},
        "alpha_pattern": {r"model\.language_model\.layers\.0\.self_attn\.v_proj": 2},
    }
    renamed("saves/a", of_class("images"), pairs, **patterns)
    call("rename", "a", "--base", "base", "--out", "saves/b")
    adapter = open_adapter("saves/b")
    for module, (a, b) in pairs.items():
        alpha = 2 if module == "model.layers.0.self_attn.v_proj" else 16
        expected = alpha / a.shape[0] * (b.astype(np.float64) @ a)
        np.testing.assert_allclose(delta(adapter, module), expected, rtol=1e-12)


def test_the_records_of_a_training_go_with_the_copy():
    folder = renamed("saves/run/checkpoint-8", NAMES["ddp"][0])
    write_json(Path("saves/run/training.json"), {"inputs": {"settings": {"template": "qwen"}}})
    (folder / "chat_template.jinja").write_text("T")
    (folder / "optimizer.pt").write_bytes(b"x")
    write_trained_rows(folder.parent, [np.array([8, 4], np.uint64)])
    call("rename", folder, "--out", "saves/b")
    assert read_trained_rows(Path("saves/b")).tolist() == [4, 8]
    assert read_json(Path("saves/b/training.json"))["inputs"]["settings"] == {"template": "qwen"}
    assert {path.name for path in Path("saves/b").iterdir()} == {
        "adapter_config.json", "adapter_model.safetensors", "chat_template.jinja", "rename.json",
        "training.json", TRAINED_ROWS,
    }  # fmt: skip


def test_a_file_of_several_shards_becomes_one():
    tensors = {NAMES["fsdp"][0](name): values for name, values in tensors_of(factors()).items()}
    folder = make("saves/a", base_model_name_or_path="base")
    (folder / "adapter_model.safetensors").unlink()
    names = list(tensors)
    places = {}
    for number, part in enumerate((names[:3], names[3:]), start=1):
        file = f"adapter_model-{number:05}-of-00002.safetensors"
        write_file(folder / file, {name: tensors[name] for name in part})
        places |= dict.fromkeys(part, file)
    write_json(folder / "adapter_model.safetensors.index.json", {"weight_map": places})
    call("rename", "a", "--out", "saves/b")
    ours = open_weights(Path("saves/b/adapter_model.safetensors"))
    plain = open_weights(Path("saves/plain/adapter_model.safetensors"))
    assert {name: ours.read(name).tobytes() for name in ours.tensors} == {
        name: plain.read(name).tobytes() for name in plain.tensors
    }


@pytest.mark.parametrize(
    ("words", "code", "facts"),
    [
        (("plain",), 2, ["saves/plain", "--base DIR"]),
        (("plain", "--base", "base"), 2, ["saves/plain"]),
        (("gone",), 2, ["gone"]),
        (("./base",), 2, ["base", "adapter_config.json"]),
        (("two",), 1, ["saves/two", "lora_A.one.weight", "lora_A.two.weight"]),
        (("other", "--base", "base"), 1, ["language_model.layers.7.self_attn.q_proj", "base"]),
    ],
)
def test_what_cannot_be_renamed_is_said(words, code, facts):
    renamed("saves/two", lambda name: name.replace(".weight", ".one.weight"))
    tensors = {}
    for name, values in tensors_of(factors()).items():
        for adapter in ("one", "two"):
            tensors[name.replace(".weight", f".{adapter}.weight")] = values
    write_file(Path("saves/two/adapter_model.safetensors"), tensors)
    renamed("saves/other", lambda name: name.replace("model.layers.1", "language_model.layers.7"))
    printed(call("rename", *words, "--out", "x", code=code)[1], *facts)
    assert not Path("x").exists()


@pytest.mark.parametrize("shape", [(0,), (0, 24), (8, 0)])
@pytest.mark.parametrize("name", [FIRST, f"{PREFIX}lm_head.weight"])
def test_empty_tensors_of_zero_3_name_their_cause(shape, name):
    make("saves/a", extra={name: np.zeros(shape, np.float32)})
    for words in (("merge", "a=1", "--out", "x"), ("show", "a"), ("rename", "a", "--out", "x")):
        message = call(*words, code=1)[1]
        printed(message, name, f"[{', '.join(map(str, shape))}]", "ZeRO-3")
        printed(message, "stage3_gather_16bit_weights_on_model_save")


def test_an_adapter_saved_under_its_name_is_found():
    make("saves/run/sft")
    make("saves/run/dpo")
    for words in (("merge", "run=1", "--out", "x"), ("export", "run", "--to", "gguf", "--out", "x")):
        printed(call(*words, code=2)[1], "saves/run/dpo, saves/run/sft")
    from tuneyard.eval.models.load import find_model

    with raises(RequestError, "saves/run/dpo, saves/run/sft"):
        find_model("saves/run")


@pytest.mark.parametrize("task", ["SEQ_CLS", "TOKEN_CLS", "QUESTION_ANS", "CLS", 5])
def test_adapters_with_another_head_are_refused_by_all_commands_that_use_them(task):
    make("saves/a", base_model_name_or_path="base", task_type=task)
    for words in (
        ("merge", "a=1", "plain=1", "--out", "x"),
        ("fuse", "a", "--base", "base", "--out", "x"),
        ("export", "a", "--to", "hub", "--repo", "o/n", "--dry-run"),
        ("serve", "a", "--engine", "llama.cpp", "--dry-run"),
    ):
        printed(call(*words, code=1)[1], "saves/a/adapter_config.json", "task_type", task, "CAUSAL_LM")
    with raises(ContentError, "task_type", task):
        adapter_mismatches(Path("saves/a"), Path("base"), may_grow=False)  # of `recipe check`
    call("show", "a")


@pytest.mark.parametrize("task", [None, "CAUSAL_LM", "SEQ_2_SEQ_LM", "FEATURE_EXTRACTION"])
def test_tasks_without_a_head_of_their_own_are_merged(task):
    make("saves/a", task_type=task)
    call("merge", "a=1", "--out", "x")


SNAPSHOT = "/home/ann/.cache/huggingface/hub/models--Qwen--Qwen2.5-0.5B/snapshots/060db6499f32"
BASES = {
    SNAPSHOT: "Qwen/Qwen2.5-0.5B",
    SNAPSHOT.replace("/", "\\") + "\\": "Qwen/Qwen2.5-0.5B",
    "/mnt/workspace/.cache/modelscope/models/Qwen/Qwen2___5-0___5B": "Qwen/Qwen2.5-0.5B",
    "Qwen/Qwen2___5-0___5B": "Qwen/Qwen2.5-0.5B",
    "C:\\models\\Qwen2.5-0.5B": "Qwen2.5-0.5B",
    "D:/llm/Qwen2.5-0.5B/": "Qwen2.5-0.5B",
    "\\\\server\\share\\Qwen2.5-0.5B": "Qwen2.5-0.5B",
    "Qwen/Qwen2.5-0.5B": "Qwen/Qwen2.5-0.5B",
    "models/Qwen2.5-0.5B": "models/Qwen2.5-0.5B",
    "/": "/",
}


@pytest.mark.parametrize("name", BASES)
def test_the_published_name_of_a_base_is_read_from_paths_of_other_machines(name):
    assert published_name(name) == BASES[name]


@pytest.mark.parametrize("name", [name for name in BASES if name != "/"])
def test_the_same_model_under_a_path_of_another_machine_is_accepted_with_a_note(name):
    make_base("models/Qwen2.5-0.5B", base_tensors())
    make("saves/a", base_model_name_or_path=name)
    notes = call("fuse", "a", "--base", "models/Qwen2.5-0.5B", "--out", "x")[1]
    if name != "models/Qwen2.5-0.5B":
        printed_line(notes, "note", "saves/a", name)
    make_base("models/Qwen2.5-1.5B", base_tensors(1))
    call("fuse", "a", "--base", "models/Qwen2.5-1.5B", "--out", "y", code=1)


def test_names_of_one_base_are_merged_with_a_note_and_others_refused(working_folder):
    make("saves/a", factors(1), base_model_name_or_path="Qwen/Qwen2.5-0.5B")
    for number, name in enumerate(name for name in BASES if name not in ("/", "Qwen/Qwen2.5-0.5B")):
        make("saves/b", factors(2), base_model_name_or_path=name)
        notes = call(
            "merge", "a=1", "b=1", "--out", f"x{number}", code=1 if name.startswith("models/") else 0
        )[1]
        printed(notes, name, "--base DIR")
    make("saves/b", factors(2), base_model_name_or_path="C:\\models\\Qwen2.5-1.5B")
    call("merge", "a=1", "b=1", "--out", "y", code=1)
    assert is_same_name("Qwen/Qwen2.5-0.5B", "qwen/qwen2.5-0.5b")
    assert not is_same_name("Qwen/Qwen2.5-0.5B", "me/Qwen2.5-0.5B")


@pytest.mark.parametrize(
    "name", [SNAPSHOT, "C:\\models\\Qwen2.5-0.5B", "/data/modelscope/Qwen/Qwen2___5-0___5B"]
)
def test_a_base_on_another_machine_is_named_with_its_fix(name):
    from types import SimpleNamespace

    from tuneyard.eval.scoring.candidates import open_adapters

    make("saves/a", base_model_name_or_path=name)
    fix = (
        "--base DIR"
        if name.startswith("C:")
        else "hf download Qwen/Qwen2.5-0.5B --local-dir models/Qwen2.5-0.5B"
    )
    printed(call("fuse", "a", "--out", "x", code=2)[1], "saves/a/adapter_config.json", name, fix)
    printed(call("serve", "a", "--engine", "vllm", "--dry-run", code=2)[1], name, fix)
    with raises(RequestError, name, "--adapter saves/a --model"):
        open_adapters(SimpleNamespace(model="saves/a", no_base=False, adapters=[]))


def test_a_name_is_compared_only_where_the_folder_is_not_here():
    make_base("other", base_tensors(3))
    with raises(ContentError, "other", "base"):
        check_base(Path("saves/plain"), "other", Path("base"), "base", same=False)


@pytest.mark.parametrize(
    ("path", "core"),
    [
        ("model.layers.0.mlp", "layers.0.mlp"),
        ("model.visual.blocks.0.attn", "visual.blocks.0.attn"),
        ("vision_tower.vision_model.layers.0.q", "vision_tower.vision_model.layers.0.q"),
        ("transformer.h.3.attn", "h.3.attn"),
        ("model", "model"),
        ("lm_head", "lm_head"),
    ],
)
def test_the_parts_in_front_of_the_layers_depend_on_the_class(path, core):
    assert core_of(path) == core


@pytest.mark.parametrize(
    "name",
    [
        FIRST,
        f"{PREFIX}model.embed_tokens.lora_embedding_A",
        f"{PREFIX}model.embed_tokens.base_layer.weight",
        f"{PREFIX}model.embed_tokens.modules_to_save.weight",
        f"{PREFIX}model.layers.0.self_attn.q_proj.lora_magnitude_vector",
        f"{PREFIX}model.layers.0.self_attn.q_proj.oft_R.weight",
        f"{PREFIX}model.layers.0.self_attn.q_proj.bias",
        f"{PREFIX}transformer.module.q_proj.lora_A.weight",
    ],
)
def test_names_that_peft_writes_stay(name):
    assert peft_name(name) == name


@pytest.mark.parametrize(
    ("name", "label"),
    [(SNAPSHOT, "Qwen/Qwen2.5-0.5B"), ("C:\\Users\\me\\Qwen2.5-0.5B", "Qwen2.5-0.5B")],
)
def test_a_card_names_the_base_by_its_published_name(name, label):
    make("saves/a", base_model_name_or_path=name)
    card, notes = call("export", "a", "--to", "hub", "--repo", "o/n", "--dry-run")
    printed(card, f"A LoRA adapter for {label}", f"--model_name_or_path {label} --adapter_name_or_path o/n")
    printed(notes, "note", name)


def test_a_link_out_of_the_folder_is_refused():
    folder = renamed("saves/a", NAMES["ddp"][0])
    (folder / "secret.txt").symlink_to("/etc/hostname")
    printed(call("rename", "a", "--out", "x", code=1)[1], "saves/a/secret.txt", "/etc/hostname")
    assert not Path("x").exists()
