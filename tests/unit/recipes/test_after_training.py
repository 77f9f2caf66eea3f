"""After a training, and after `recipe best`, comes the scoring command that fits the held-out rows."""

import shlex
from pathlib import Path

import pytest

from tests.json_files import read_json, write_json
from tests.unit.core.test_next_step import require_accepted
from tuneyard.core.datasets import REGISTRY
from tuneyard.recipes.output_dir.after_training import after_best, after_training
from tuneyard.recipes.recipe import Recipe

LABELS = [{"instruction": f"Is {n} even?", "output": ("no", "yes")[n % 2 == 0]} for n in range(6)]
TEXTS = [{"instruction": f"What is {n} + {n}?", "output": f"It is {2 * n}."} for n in range(6)]
REPORTS = [
    {
        "subtype": "fan",
        "conversations": [
            {"from": "human", "value": "任务：判断"},
            {"from": "gpt", "value": f"判断:风扇\n\n原因：{n}"},
        ],
    }
    for n in range(6)
]
CALLS = [
    {"conversations": [*REPORTS[0]["conversations"]], "tools": '[{"name": "weather", "parameters": {}}]'}
]
PAIRS = [{"instruction": "Name a river.", "chosen": "The Rhine.", "rejected": "A lake."}]
MARKED = [{**row, "kto_tag": bool(n % 2)} for n, row in enumerate(TEXTS)]
CHAT = {"formatting": "sharegpt", "columns": {"messages": "conversations"}}
ANSWERED = {"columns": {"prompt": "instruction", "response": "output"}}
RANKED = {"ranking": True, "columns": {"prompt": "instruction", "chosen": "chosen", "rejected": "rejected"}}
KTO = {"columns": {**ANSWERED["columns"], "kto_tag": "kto_tag"}}
WITH_TOOLS = {"formatting": "sharegpt", "columns": {"messages": "conversations", "tools": "tools"}}
EVALUATED = {"val_size": 0.1, "eval_strategy": "epoch"}
TEXT_ALONE = {"columns": {"prompt": "text"}}


def register(name: str, rows: list, entry: dict, folder: Path = Path("dataset_info")) -> None:
    """Register a dataset by hand, next to those that are there."""
    folder.mkdir(exist_ok=True)
    registry = folder / REGISTRY
    entries = {}
    if registry.is_file():
        entries = read_json(registry)
    write_json(folder / f"{name}.json", rows)
    write_json(registry, {**entries, name: {"file_name": f"{name}.json", **entry}})


def trained(**settings: object) -> Recipe:
    """A LoRA of the base b, trained on the dataset `mine_train` into saves/mine."""
    usual = {"model_name_or_path": "b", "stage": "sft", "finetuning_type": "lora", "dataset": "mine_train"}
    folders = {"dataset_dir": "dataset_info", "output_dir": "saves/mine"}
    return Recipe(Path("r.yaml"), {**usual, **folders, **settings}, {})


def words(recipe: Recipe) -> str:
    """The next command after a training; the command line takes it."""
    command = shlex.join(after_training(recipe))
    require_accepted(command)
    return command.removeprefix("tuneyard ")


@pytest.mark.parametrize(
    ("rows", "entry", "stage", "command"),
    [
        (LABELS, ANSWERED, "sft", "nli"),
        (LABELS[:3], ANSWERED, "sft", "nli"),
        (TEXTS, ANSWERED, "sft", "text"),
        (REPORTS, CHAT, "sft", "defect"),
        (CALLS, WITH_TOOLS, "sft", "tools"),
        (REPORTS, {**WITH_TOOLS}, "sft", "defect"),  # a column of tools that no row fills
        (PAIRS, RANKED, "dpo", "preference"),
        (MARKED, KTO, "kto", "preference"),
        ([{"text": "A plain text."}], TEXT_ALONE, "pt", "text"),
        (LABELS, ANSWERED, "pt", "text"),
    ],
)
@pytest.mark.parametrize("split", ["eval", "test", "dev"])
def test_the_command_fits_the_held_out_rows(working_folder, rows, entry, stage, command, split):
    register("mine_train", rows, entry)
    register(f"mine_{split}", rows, entry)
    model = "--model b --adapter saves/mine"
    expected = f"eval {command} {model} --dataset mine_{split} --out results/mine"
    assert words(trained(stage=stage)) == expected


def test_all_held_out_datasets_of_one_command_are_scored(working_folder):
    for name in ("a_train", "a_eval", "b_train", "b_eval"):
        register(name, LABELS, ANSWERED)
    register("c_eval", TEXTS, ANSWERED)
    recipe = trained(dataset="a_train,b_train", eval_dataset="b_eval,c_eval")
    assert words(recipe) == (
        "eval nli --model b --adapter saves/mine --dataset b_eval --dataset a_eval --out results/mine"
    )


@pytest.mark.parametrize(
    ("rows", "entry", "settings", "expected"),
    [
        (
            TEXTS,
            ANSWERED,
            {**EVALUATED, "seed": 7},
            "eval text --model b --adapter saves/mine --dataset mine --eval-ratio 0.1 --seed 7 "
            "--out results/mine",
        ),
        (
            TEXTS,
            ANSWERED,
            {**EVALUATED, "max_samples": 4},
            "recipe best saves/mine",
        ),
        (TEXTS, ANSWERED, {**EVALUATED, "val_size": 40}, "recipe best saves/mine"),
        (
            PAIRS,
            RANKED,
            {**EVALUATED, "stage": "dpo"},
            "recipe best saves/mine",
        ),
        (TEXTS, ANSWERED, {}, "eval chat --model b --adapter saves/mine"),
        (TEXTS, ANSWERED, {"finetuning_type": "full"}, "eval chat --model saves/mine"),
    ],
)
def test_without_a_held_out_dataset_the_share_that_the_training_held_out_is_scored(
    working_folder, rows, entry, settings, expected
):
    register("mine", rows, entry)
    assert words(trained(dataset="mine", **settings)) == expected


@pytest.mark.parametrize(
    ("bits", "option"), [(4, "--quantize 4 "), (8, "--quantize 8 "), (None, ""), (3, "")]
)
def test_a_quantised_base_is_loaded_as_in_its_training(working_folder, bits, option):
    register("mine_train", TEXTS, ANSWERED)
    recipe = trained(quantization_bit=bits)
    assert words(recipe) == f"eval chat --model b {option}--adapter saves/mine"
    register("mine_eval", TEXTS, ANSWERED)
    assert words(recipe).startswith(f"eval text --model b {option}--adapter saves/mine --dataset mine_eval")


def test_a_broken_dataset_does_not_fail_a_finished_training(working_folder):
    register("mine_train", TEXTS, ANSWERED)
    register("mine_eval", TEXTS, ANSWERED)
    Path("dataset_info/mine_eval.json").write_text("[{")
    assert words(trained()) == "eval chat --model b --adapter saves/mine"


@pytest.mark.parametrize("recorded", ["training.json", "recipe.yaml", "README.md"])
def test_the_best_checkpoint_is_scored_whatever_recorded_the_training(working_folder, recorded):
    register("mine_train", LABELS, ANSWERED)
    register("mine_eval", LABELS, ANSWERED)
    folder = Path("saves/mine")
    checkpoint = folder / "checkpoint-20"
    checkpoint.mkdir(parents=True)
    write_json(checkpoint / "adapter_config.json", {"base_model_name_or_path": "b", "peft_type": "LORA"})
    settings = trained().settings
    if recorded == "training.json":
        data = [{"dataset": "mine_train", "file": "dataset_info/mine_train.json", "sha256": "0"}]
        write_json(folder / recorded, {"inputs": {"settings": settings, "data": data}})
    elif recorded == "recipe.yaml":
        lines = [f"{key}: {value}" for key, value in settings.items()]
        (folder / recorded).write_text("\n".join(lines))
    else:  # of plain LLaMA-Factory
        (folder / recorded).write_text(
            "This model is a fine-tuned version of [b](b) on the mine_train dataset."
        )
    command = shlex.join(after_best(folder, checkpoint))
    require_accepted(command)
    assert command == (
        "tuneyard eval nli --model b --adapter mine-checkpoint-20=saves/mine/checkpoint-20 "
        "--dataset mine_eval --out results/mine-checkpoint-20"
    )


@pytest.mark.parametrize(
    ("settings", "command"),
    [
        ({}, "adapter merge saves/first=1 saves/mine=1 --out saves/mine-sum"),
        (
            {"adapter_name_or_path": "x,saves/y"},
            "adapter merge ./x=1 saves/y=1 saves/mine=1 --out saves/mine-sum",
        ),
        (
            {"additional_target": "lm_head"},
            "adapter merge saves/first=1 saves/mine=1 --base b --out saves/mine-sum",
        ),
        (
            {"use_dora": True},
            "adapter fuse saves/first --base b --dtype fp32 --out models/below-mine",
        ),
        (
            {"finetuning_type": "oft"},
            "adapter fuse saves/first --base b --dtype fp32 --out models/below-mine",
        ),
    ],
)
def test_a_training_on_top_of_adapters_ends_with_their_sum(working_folder, settings, command):
    recipe = trained(**{"adapter_name_or_path": "saves/first", "create_new_adapter": True, **settings})
    recipe.output_dir.mkdir(parents=True)
    kept = settings.get("additional_target")
    write_json(recipe.output_dir / "adapter_config.json", {"modules_to_save": [kept] if kept else None})
    assert words(recipe) == command
    write_json(recipe.output_dir / "training.json", {"inputs": {"settings": dict(recipe.settings)}})
    (recipe.output_dir / "checkpoint-50").mkdir()
    best = shlex.join(after_best(recipe.output_dir, recipe.output_dir / "checkpoint-50"))
    assert ("mine/checkpoint-50=1" in best) == ("merge" in command)


def test_a_continued_adapter_is_scored_as_it_is(working_folder):
    register("mine_eval", LABELS, ANSWERED)
    recipe = trained(adapter_name_or_path="saves/first")
    assert words(recipe).startswith("eval nli --model b --adapter saves/mine --dataset mine_eval")


@pytest.mark.parametrize(
    ("recipe", "held_out", "scored"),
    [
        ({"eval_dataset": "mine_eval"}, ["mine_eval", "mine_test"], "--dataset mine_test"),
        ({"val_size": 0.1}, ["mine_test"], "--dataset mine_test"),
        ({"val_size": 0.1}, ["mine_eval", "mine_test"], "--dataset mine_test"),
        ({"eval_dataset": "mine_eval"}, ["mine_eval"], "--dataset mine_eval"),
        (
            {"eval_dataset": "mine_eval,own_eval", "dataset": "mine_train,own_train"},
            ["mine_eval", "mine_test", "own_train", "own_eval"],
            "--dataset own_eval --dataset mine_test",
        ),
    ],
)
def test_the_split_that_reports_is_scored_and_not_the_one_that_chose_the_checkpoint(
    tmp_path, monkeypatch, recipe, held_out, scored
):
    monkeypatch.chdir(tmp_path)
    for name in ("mine_train", *held_out):
        register(name, LABELS, ANSWERED)
    assert f"{scored} --out" in words(trained(**recipe))
