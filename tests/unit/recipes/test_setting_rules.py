"""Every rule about settings fires on what it is for and on nothing else."""

import json
import re
import sys
from pathlib import Path

import pytest

from tests.conftest import ROOT
from tests.json_files import write_json
from tests.unit.recipes.make import write_recipe
from tuneyard.recipes.checking.checked import quick_check
from tuneyard.recipes.machine.hardware import Gpu, Machine, machine, world_size
from tuneyard.recipes.recipe import Recipe, read_recipe
from tuneyard.recipes.recipe.schedule import splits_batches
from tuneyard.recipes.rules import setting_rules as rules
from tuneyard.recipes.rules.setting_rules import cpu_settings, measured, problems_of

VOLTA = Gpu("Tesla V100", 7)

RECIPES = sorted((ROOT / "recipes").glob("*.yaml"))
SOUND = {
    "model_name_or_path": "Qwen/Qwen2.5-0.5B-Instruct",
    "stage": "sft",
    "do_train": True,
    "dataset": "a",
    "template": "qwen",
    "output_dir": "out",
    "learning_rate": 1e-4,
}
HOPPER = Gpu("NVIDIA H200", 9)


def codes(gpus=(), **settings):
    recipe = Recipe(Path("r.yaml"), {**SOUND, **settings}, {})
    return [(problem.code, problem.field) for problem in problems_of(recipe, Machine(tuple(gpus)))]


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({"save_total_limit": 3.5}, ("E302", "save_total_limit")),
        ({"lora_rank": True}, ("E302", "lora_rank")),
        ({"model_name_or_path": str(ROOT / "tests")}, ("E306", "model_name_or_path")),
        ({"val_size": 0.1}, ("W307", "val_size")),
        ({"learning_rate": float("nan")}, ("E313", "learning_rate")),
        ({"lora_rank": 10**400}, ("E313", "lora_rank")),
        ({"model_name_or_path": "two words/model"}, ("E306", "model_name_or_path")),
        ({"model_name_or_path": "/mnt/models/Qwen3"}, ("E344", "model_name_or_path")),
        ({"model_name_or_path": "a\0/b"}, ("E306", "model_name_or_path")),
        ({"output_dir": "a\0b"}, ("E311", "output_dir")),
        ({"learning_rate": 6e-3}, ("W357", "learning_rate")),
        ({"learning_rate": 4e-7}, ("W357", "learning_rate")),
        ({"learning_rate": 1e-3, "finetuning_type": "full"}, ("W357", "learning_rate")),
        ({"learning_rate": 1e-3, "stage": "dpo"}, ("W357", "learning_rate")),
        ({"learning_rate": 2e-4, "stage": "kto", "finetuning_type": "full"}, ("W357", "learning_rate")),
    ],
)
def test_each_rule_fires_alone(settings, expected):
    assert codes(**settings) == [expected]


@pytest.mark.parametrize(
    ("gpus", "stage", "processes", "refused"),
    [((), 3, "2", True), ((), 3, "1", False), ((), 2, "2", False), ((HOPPER, HOPPER), 3, "2", False)],
)
def test_zero_3_on_several_cpu_processes_is_refused(monkeypatch, gpus, stage, processes, refused):
    """Plain `llamafactory-cli` stops, too: DeepSpeed's world size is 1 until the trainer starts it."""
    monkeypatch.setenv("NPROC_PER_NODE", processes)
    problems = codes(gpus, deepspeed=f"{ROOT}/recipes/deepspeed/z{stage}.json")
    assert (("E337", "deepspeed") in problems) is refused


@pytest.mark.parametrize("zero", [5, {"stage": "two"}, {"stage": 4}])
def test_a_deepspeed_file_has_a_stage(tmp_path, zero):
    path = tmp_path / "z.json"
    write_json(path, {"zero_optimization": zero})
    found = [(code, field) for code, field in codes(deepspeed=str(path)) if code == "E310"]
    assert found == [("E310", "deepspeed")]


@pytest.mark.parametrize("out", [".", "..", "/", "model", "data", "nowhere/../model", "link"])
def test_an_output_dir_never_holds_what_is_trained_on(tmp_path, monkeypatch, out):
    """It may be set aside as NAME.1, and the model or the data with it."""
    work = tmp_path / "work"
    for folder in ("model", "data", "nowhere"):
        (work / folder).mkdir(parents=True)
    (work / "model/config.json").write_text("{}")
    (work / "link").symlink_to("model")
    monkeypatch.chdir(work)
    found = {"model_name_or_path": "model", "dataset_dir": "data"}
    assert codes(**found, output_dir=out) == [("E341", "output_dir")]
    assert codes(**found, output_dir="model/run") == []
    assert codes(model_name_or_path="model", dataset_dir="a\0b", output_dir="run") == []  # E320 says it
    (work / "nowhere").rmdir()  # and a training would make it
    assert codes(**found, output_dir="nowhere/../model") == [("E341", "output_dir")]


def test_best_at_end_keeps_no_worst():
    settings = {"load_best_model_at_end": True, "eval_dataset": "b", "eval_strategy": "steps"}
    assert codes(**settings, logging_steps=0) == [("E313", "logging_steps")]
    worst = [("E308", "greater_is_better")]
    settings["compute_accuracy"] = True
    assert codes(**settings, metric_for_best_model="eval_accuracy", greater_is_better=False) == worst
    assert codes(**settings, greater_is_better=True) == worst  # of eval_loss
    highest = codes(**settings, metric_for_best_model="perplexity")  # what transformers would take
    assert highest == [*worst, ("E314", "metric_for_best_model")]
    each = {"metric_for_best_model": "eval_b_loss", "eval_on_each_dataset": True}
    for good in ({"metric_for_best_model": "accuracy"}, each, {}):
        assert codes(**settings, **good) == []


@pytest.mark.parametrize(
    "settings",
    [
        {"learning_rate": 1e-3},  # the demo's
        {"learning_rate": 9e-4, "stage": "dpo"},
        {"learning_rate": 5e-6},  # the RTE/MNLI tutorial's
        {"learning_rate": 3e-6, "finetuning_type": "full"},
        {"learning_rate": 5e-7, "finetuning_type": "full", "stage": "dpo"},
        {"learning_rate": 1e-2, "finetuning_type": "full", "optim": "sgd"},
        {"learning_rate": 1e-2, "finetuning_type": "full", "use_muon": True},
        {"packing": True, "neat_packing": True},
        {"packing": True, "stage": "pt"},
    ],
)
def test_usual_rates_and_packing_kept_apart_pass(settings):
    assert codes(**settings) == []


@pytest.mark.parametrize(("trl", "found"), [("0.24.0", [("E334", "stage")]), ("0.9.6", []), ("0.8.6", [])])
def test_ppo_is_refused_with_a_trl_that_its_trainer_refuses(monkeypatch, trl, found):
    monkeypatch.setattr("tuneyard.recipes.rules.stage_rules.versions", lambda _: {"trl": trl})
    server = {"reward_model": "http://reward.example", "reward_model_type": "api"}
    assert codes(stage="ppo", learning_rate=1e-5, **server) == found


def test_a_model_that_judges_answers_has_a_value_head(tmp_path, monkeypatch):
    monkeypatch.setattr("tuneyard.recipes.rules.stage_rules.versions", lambda _: {})
    (tmp_path / "config.json").write_text("{}")
    model, judges = str(tmp_path), {"stage": "rm", "do_train": False, "do_predict": True}
    assert codes(stage="rm", model_name_or_path=model) == []  # which makes one
    assert codes(**judges) == []  # on the hub: not looked into
    assert codes(**judges, model_name_or_path=model) == [("E335", "model_name_or_path")]
    assert codes(**judges, adapter_name_or_path=f"a/b,{model}") == [("E335", "adapter_name_or_path")]
    assert codes(stage="ppo", reward_model=model) == [("E335", "reward_model")]
    (tmp_path / "value_head.bin").write_text("")
    assert codes(**judges, model_name_or_path=model) == codes(stage="ppo", reward_model=model) == []


def test_world_size_counts_gpus_and_nodes(monkeypatch):
    recipe = Recipe(Path("r.yaml"), SOUND, {})
    assert world_size(recipe, []) == 1
    assert world_size(recipe, [HOPPER, HOPPER]) == 2
    assert world_size(recipe.with_settings({"use_cpu": True}), [HOPPER, HOPPER]) == 1
    monkeypatch.setenv("NNODES", "3")
    assert world_size(recipe, [HOPPER, HOPPER]) == 6


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_recipes_that_we_ship_are_sound_on_a_gpu(path, monkeypatch):
    monkeypatch.chdir(ROOT)
    recipe = read_recipe(path)
    missing = {"E309", "N362"}  # bitsandbytes may not be installed; a note on key-token weights
    found = [p.line() for p in problems_of(recipe, Machine((HOPPER,))) if p.code not in missing]
    assert [line for line in found if "models/demo-base" not in line] == []


@pytest.mark.parametrize("name", ["text-lora", "qwen0.5b-qa", "qwen0.5b-pr", "qwen0.5b-io", "pretrain-0.5b"])
def test_what_documents_000_and_002_train_on_is_held_out_and_can_judge_a_sweep(name):
    recipe = read_recipe(ROOT / "recipes" / f"{name}.yaml")
    assert "eval_loss" in measured(recipe)
    assert 0 < recipe.settings["val_size"] < 1 and recipe.settings["seed"] == 42


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_headers_say_how_to_launch_and_what_to_expect(path):
    header = path.read_text(encoding="utf-8").split("\n\n")[0]
    assert all(line.startswith("#") for line in header.splitlines())
    launches = [line for line in header.splitlines() if line.startswith("#   ")]
    assert launches[0].startswith(f"#   1 CPU      tuneyard recipe train recipes/{path.name}")
    for words in ("before", "1 GPU", "N GPUs", "N nodes", "watch", "Expect", f"recipes/{path.name}"):
        assert words in header, words
    assert max(map(len, path.read_text(encoding="utf-8").splitlines())) <= 110


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_commands_of_headers_have_settings_that_are_taken(path):
    header = path.read_text(encoding="utf-8").replace("\\\n#", "")
    for command in re.findall(
        r"^#.*(?:python -m recipes|tuneyard recipe) train \S+((?: +[a-z_]+=\S+)*)", header, re.M
    ):
        recipe = read_recipe(path, command.split())
        assert [
            problem.line()
            for problem in problems_of(recipe, Machine((HOPPER,)))
            if problem.code in {"E301", "E302", "E303", "E313", "E350"}
        ] == []


def test_every_tracker_that_is_not_installed_is_named(monkeypatch):
    monkeypatch.setattr(
        "tuneyard.recipes.rules.setting_rules.find_spec",
        lambda name: None if name in ("wandb", "mlflow") else name,
    )
    assert codes(report_to=["tensorboard", "wandb", "mlflow"]) == [("E309", "report_to")] * 2


def test_a_package_is_installed_by_our_extra_or_without_pip_in_a_uv_environment(monkeypatch):
    def hints(**settings: object) -> list[str]:
        problems = problems_of(Recipe(Path("r.yaml"), settings, {}), Machine((HOPPER,)))
        return [problem.hint for problem in problems if problem.code == "E309"]

    monkeypatch.setattr("tuneyard.recipes.rules.setting_rules.find_spec", lambda _: None)
    monkeypatch.setattr("tuneyard.core.installation.packages.shutil.which", lambda name: f"/bin/{name}")
    (hint,) = hints(report_to="wandb")
    assert "make setup-wandb" in hint and "pip" not in hint
    (hint,) = hints(quantization_bit=4)
    assert "make setup" in hint
    assert hints(enable_liger_kernel=True) == [f"uv pip install --python {sys.executable} liger-kernel"]
    monkeypatch.setattr("tuneyard.core.installation.packages.shutil.which", lambda _: None)
    assert hints(enable_liger_kernel=True) == [f"{sys.executable} -m pip install liger-kernel"]


def test_weights_that_plain_llamafactory_ignores_are_noted(tmp_path):
    (tmp_path / "weights").mkdir()
    path = tmp_path / "weights/r.yaml"
    path.write_text("rules: [{words: [a], weight: 2}]")
    recipe = Recipe(tmp_path / "r.yaml", {}, {})
    (note,) = [p for p in problems_of(recipe, Machine((HOPPER,))) if p.code == "N362"]
    assert note.place == str(path) and "llamafactory-cli train" in note.message
    path.write_text("rules: [1\n")
    places = [p.place for p in problems_of(recipe, Machine((HOPPER,))) if p.code == "E360"]
    assert places == [f"{path}:2"]  # once, with its line


def test_bf16_before_ampere_is_no_matter_on_cpus():
    assert codes([VOLTA], bf16=True) == [("W312", "bf16")]
    assert codes([VOLTA], bf16=True, use_cpu=True) == []


def test_a_misspelt_key_is_not_also_missing():
    settings = {"datset": "a", "outpt_dir": "o", "model_name_or_path": "a/b", "do_train": True}
    found = problems_of(Recipe(Path("r.yaml"), settings, {}), Machine((HOPPER,)))
    assert [problem.code for problem in found] == ["E301", "E301"]


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_each_recipe_names_what_it_needs_without_a_gpu(path, monkeypatch):
    """LLaMA-Factory stops at `bf16: true` with a traceback: "You need to assign use_cpu"."""
    recipe = read_recipe(path)
    assert recipe.settings["bf16"] is True
    for computes, settings in ((True, "use_cpu=true"), (False, "use_cpu=true bf16=false")):
        monkeypatch.setattr(rules, "cpu_computes_bf16", lambda computes=computes: computes)
        (note,) = [p for p in problems_of(recipe, Machine((), here=True)) if p.code == "N312"]
        assert note.place == f"{path}:{recipe.lines['bf16']}"
        assert f"adds {settings};" in note.hint and "tuneyard recipe train" in note.hint
        assert cpu_settings(recipe, computes_bf16=computes) == {
            "use_cpu": True, **({} if computes else {"bf16": False}),
        }  # fmt: skip


def test_of_another_machine_without_gpus_the_arithmetic_is_not_known(monkeypatch):
    monkeypatch.setattr(rules, "cpu_computes_bf16", lambda: False)
    recipe = read_recipe(ROOT / "recipes/rte.yaml")
    (note,) = [p for p in problems_of(recipe, Machine((), name="cpu")) if p.code == "N312"]
    assert "use_cpu=true;" in note.hint


@pytest.mark.parametrize(
    ("settings", "computes", "code"),
    [
        ({"use_cpu": True}, True, None),
        ({"use_cpu": True}, False, "N312"),
        ({"use_cpu": False}, True, "E312"),  # LLaMA-Factory stops as without the setting
        ({"bf16": False}, False, None),
        ({"bf16": False, "use_cpu": True}, False, None),
    ],
)
def test_bf16_without_a_gpu(monkeypatch, settings, computes, code):
    monkeypatch.setattr(rules, "cpu_computes_bf16", lambda: computes)
    recipe = read_recipe(ROOT / "recipes/rte.yaml").with_settings(settings)
    problems = [problem.code for problem in problems_of(recipe, Machine((), here=True))]
    assert [each for each in problems if each[1:] == "312"] == ([code] if code else [])


ADAMW = {"type": "AdamW", "params": {"lr": "auto"}}
WARMUP = {"type": "WarmupLR", "params": {"warmup_num_steps": "auto"}}


@pytest.mark.parametrize(
    ("sections", "settings", "expected"),
    [
        ({}, {"optim": "sgd", "lr_scheduler_type": "cosine"}, []),
        ({"optimizer": ADAMW}, {}, []),
        ({"optimizer": ADAMW}, {"optim": "adamw_torch_fused"}, []),
        ({"optimizer": ADAMW}, {"optim": "sgd"}, [("W338", "optim")]),
        ({"optimizer": ADAMW}, {"optim": "lion_32bit"}, [("W338", "optim")]),
        ({"optimizer": ADAMW}, {"optim": "adafactor"}, [("W338", "optim")]),
        ({"optimizer": ADAMW}, {"loraplus_lr_ratio": 16}, [("W338", "loraplus_lr_ratio")]),
        ({"optimizer": {"type": "Lion"}}, {}, [("W338", "optim")]),
        ({"optimizer": {"type": "Lion"}}, {"optim": "lion_32bit"}, []),
        ({"optimizer": "AdamW"}, {}, [("W338", "optim")]),
        ({"scheduler": WARMUP}, {"warmup_steps": 5}, [("W338", "lr_scheduler_type")]),
        ({"scheduler": WARMUP}, {"warmup_steps": 5, "lr_scheduler_type": "constant_with_warmup"}, []),
        ({"scheduler": WARMUP}, {"warmup_ratio": 0.1, "lr_scheduler_type": "cosine"},
         [("W338", "lr_scheduler_type")]),
        ({"scheduler": WARMUP}, {"lr_scheduler_type": "constant_with_warmup"}, [("E337", "deepspeed")]),
        ({"scheduler": {"type": "WarmupDecayLR", "params": {"warmup_num_steps": 3}}}, {}, []),
        ({"scheduler": {"type": "WarmupCosineLR"}}, {"lr_scheduler_type": "cosine"}, []),
        ({"scheduler": {"type": "OneCycle"}}, {}, [("W338", "lr_scheduler_type")]),
        ({"scheduler": {"type": "WarmupDecayLR", "params": {"warmup_max_lr": 1e-3}}}, {},
         [("E310", "deepspeed")]),
        ({"scheduler": []}, {"do_train": False, "do_eval": True}, []),
    ],
)  # fmt: skip
def test_what_a_deepspeed_file_replaces(tmp_path, sections, settings, expected):
    path = tmp_path / "z.json"
    write_json(path, {"zero_optimization": {"stage": 2}, **sections})
    problems = codes((HOPPER,), deepspeed=str(path), **settings)
    assert [each for each in problems if each[0] in ("W338", "E337", "E310")] == expected


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({"gradient_checkpointing": False}, [("W338", "gradient_checkpointing")]),
        ({"gradient_checkpointing": False, "disable_gradient_checkpointing": True}, []),
        ({"gradient_checkpointing": True}, []),
        (
            {"gradient_checkpointing": True, "disable_gradient_checkpointing": True},
            [("W338", "disable_gradient_checkpointing")],
        ),
        ({"remove_unused_columns": True}, [("W338", "remove_unused_columns")]),
        ({"remove_unused_columns": False}, []),
    ],
)
def test_what_llamafactory_sets_itself(settings, expected):
    assert codes(**settings) == expected


ZERO_2 = {"zero_optimization": {"stage": 2}}


@pytest.mark.parametrize(
    ("content", "is_read"),
    [
        (b"", True),
        (b"\xef\xbb\xbf", False),  # as the Windows editor saves it
        (b"// ZeRO\n", False),
        (b"\xff\xfe", False),
    ],
)
@pytest.mark.parametrize("key", ["deepspeed", "fsdp_config", "accelerator_config"])
def test_a_file_of_an_object_is_read_as_transformers_reads_it(tmp_path, key, content, is_read):
    path = tmp_path / "z.json"
    path.write_bytes(content + json.dumps({}).encode())
    problems = [each for each in codes((HOPPER,), **{key: str(path)}) if each[0] == "E310"]
    assert problems == ([] if is_read else [("E310", key)])


@pytest.mark.parametrize("as_text", [False, True])
def test_an_object_in_the_recipe_is_checked_like_a_file(as_text):
    content = {**ZERO_2, "train_micro_batch_size_per_gpu": 3, "optimizer": {"type": "Lion"}}
    value = json.dumps(content) if as_text else content
    problems = codes((HOPPER,), deepspeed=value, per_device_train_batch_size=2)
    assert {("E310", "deepspeed"), ("W338", "optim")} <= set(problems)
    recipe = Recipe(Path("r.yaml"), {"deepspeed": value, "accelerator_config": '{"split_batches": true}'}, {})
    assert (recipe.zero_stage(), splits_batches(recipe)) == (2, True)
    problems = codes((HOPPER,), deepspeed={"zero_optimization": {"stage": 7}})
    assert ("E310", "deepspeed") in problems


@pytest.mark.parametrize(
    ("fsdp", "is_refused"),
    [
        ("full_shard auto_wrap", False),
        (["full_shard", "offload"], False),
        ("", False),
        (True, False),
        ("full_shard,auto_wrap", True),
        ("fullshard", True),
        ("offload", True),
        ("full_shard shard_grad_op", True),
        ({"fsdp_version": 2}, True),
    ],
)
def test_fsdp_is_refused_where_transformers_refuses_it(fsdp, is_refused):
    problems = [each for each in codes((HOPPER, HOPPER), fsdp=fsdp) if each[1] == "fsdp"]
    assert bool(problems) == is_refused


# 40 rows, 2 a process and 4 of these a step, 3 epochs: 5 steps an epoch, 15 in all; a tenth of them is 2.
@pytest.mark.parametrize(
    ("content", "settings", "stops"),
    [
        ({"train_batch_size": 8}, {}, False),
        ({"train_batch_size": 16}, {}, True),
        ({"train_batch_size": "auto"}, {}, False),
        ({"optimizer": {"type": "AdamW", "params": {"betas": [0.9, 0.999]}}}, {}, False),
        ({"optimizer": {"type": "AdamW", "params": {"betas": [0.9, 0.95]}}}, {}, True),
        ({"optimizer": {"type": "AdamW", "params": {"betas": [0.9, 0.95]}}}, {"adam_beta2": 0.95}, False),
        ({"optimizer": {"type": "AdamW", "params": {"lr": "5e-5"}}}, {}, True),
        ({"scheduler": {"params": {"warmup_num_steps": 2, "total_num_steps": 15}}}, {}, False),
        ({"scheduler": {"params": {"warmup_num_steps": 100}}}, {}, True),
        ({"scheduler": {"params": {"total_num_steps": 1000}}}, {}, True),
        ({"scheduler": {"params": {"total_num_steps": "15"}}}, {}, True),
        ({"scheduler": {"params": {"total_num_steps": 7, "warmup_num_steps": 5}}},
         {"max_steps": 7, "warmup_steps": 5}, False),
        ({"scheduler": {"params": {"total_num_steps": 15}}}, {"max_steps": 7}, True),
    ],
)  # fmt: skip
def test_steps_of_a_deepspeed_file_are_those_of_the_training(tmp_path, monkeypatch, content, settings, stops):
    monkeypatch.delenv("NPROC_PER_NODE", raising=False)
    (tmp_path / "z.json").write_text(json.dumps({**ZERO_2, **content}))
    path = write_recipe(
        tmp_path,
        **{
            "deepspeed": str(tmp_path / "z.json"), "per_device_train_batch_size": 2, "use_cpu": True,
            "gradient_accumulation_steps": 4, "warmup_steps": 0.1, **settings,
        },
    )  # fmt: skip
    problems = quick_check(read_recipe(path), machine("cpu")).problems
    assert [problem.field for problem in problems if problem.code == "E310"] == ["deepspeed"] * stops
