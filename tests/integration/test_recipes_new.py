"""`recipe new` for every kind of record and every stage: written, checked, and trained as it was written."""

from pathlib import Path

import pytest
import yaml

from tests.integration.recipes_new import RAW, STAGES
from tests.integration.test_recipes_all import in_one_process
from tests.json_files import read_lines
from tuneyard.recipes.new.settings import METHODS

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1600)]
NAMES = [f"{kind}-{stage}".removesuffix("-") for kind in RAW for stage in STAGES.get(kind, [""])]
STAGE = {
    "text": "pt",
    "kto": "kto",
    "pair-dpo": "dpo",
    "pair-orpo": "dpo",
    "pair-simpo": "dpo",
    "pair-rm": "rm",
}


@pytest.fixture(scope="module")
def recipes_folder(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("new")


@pytest.fixture(scope="module")
def outcome(forks, recipes_folder, tiny_model) -> dict:
    return in_one_process(forks, "recipes_new", recipes_folder, tiny_model, "outcome.json")


@pytest.mark.parametrize("name", NAMES)
def test_written_checked_and_trained(outcome, recipes_folder, name):
    made = outcome[name]
    assert made["failed"] == ""
    assert isinstance(made["trained"], float), made["trained"]
    settings = yaml.safe_load((recipes_folder / f"{name}.yaml").read_text())
    assert settings["stage"] == STAGE.get(name, "sft")
    assert settings.get("pref_loss") == {"pair-dpo": "sigmoid"}.get(name, name.partition("-")[2] or None) or (
        name == "pair-rm"
    )
    assert settings["eval_dataset"] == f"{name.partition('-')[0]}_eval"
    codes = {line.partition(": ")[2].split()[0] for line in made["problems"]}
    assert codes <= ({"W352"} if {"tools", "completion", "turns"} & {name} else set())
    assert (
        made["best"].startswith(f"saves/{name}/checkpoint-") and Path(recipes_folder, made["best"]).is_dir()
    )


@pytest.mark.parametrize("method", METHODS)
def test_each_method_is_written_and_checked(outcome, recipes_folder, method):
    made = outcome[f"method-{method}"]
    assert made["failed"] == ""
    codes = {line.partition(": ")[2].split()[0] for line in made["problems"]}
    assert codes <= {"N309", "W357"}  # a package that a GPU machine has
    settings = yaml.safe_load((recipes_folder / f"method-{method}.yaml").read_text())
    batch = settings["per_device_train_batch_size"] * settings["gradient_accumulation_steps"]
    assert batch == {"full": 1}.get(method, 4)  # on 4 GPUs one row each


def test_a_base_model_and_a_folder_without_a_manifest(outcome, recipes_folder):
    assert outcome["base"]["failed"] == "" and outcome["base"]["problems"] == []
    settings = yaml.safe_load((recipes_folder / "base.yaml").read_text())
    assert (settings["template"], settings["dataset_dir"]) == ("default", "data")
    assert settings["fp16"] is True and "bf16" not in settings


def test_the_template_is_the_models_or_the_recipe_is_refused(outcome, recipes_folder):
    assert outcome["llama3"]["failed"] == ""
    assert yaml.safe_load((recipes_folder / "llama3.yaml").read_text())["template"] == "llama3"
    assert "no template of LLaMA-Factory writes the model's own prompt" in outcome["odd"]["failed"]
    assert "The nearest is" in outcome["odd"]["failed"] and not (recipes_folder / "odd.yaml").exists()


def test_a_model_that_reads_text_alone_is_refused_for_images(outcome):
    assert "it reads text alone, and the rows have images" in outcome["blind"]["failed"]


def test_the_longest_row_is_that_of_the_chat_template(outcome, recipes_folder, tiny_model):
    """Counted by the tokenizer's own chat template."""
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(tiny_model)
    rows = read_lines(recipes_folder / "dataset_info/answer/answer_train.jsonl")
    longest = 0
    for row in rows:
        turns = [("user", row["instruction"]), ("assistant", row["output"])]
        messages = [{"role": role, "content": text} for role, text in turns]
        text = tokenizer.apply_chat_template(messages, tokenize=False)
        longest = max(longest, len(tokenizer.encode(text)))
    text = (recipes_folder / "answer.yaml").read_text()
    assert f"the longest of 16 rows has {longest} tokens; it cuts none" in text
    assert outcome["answer"]["steps"] == 12  # 16 rows, 4 a step, 3 epochs
