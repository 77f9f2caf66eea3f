"""After a compile comes the bundled recipe that names the dataset, or the one for rows of its form."""

from pathlib import Path

import pytest

from tests.conftest import ROOT
from tests.json_files import write_json
from tuneyard.compiler.init.recipe_command import next_recipe, recipe_words
from tuneyard.compiler.spec.file import known_specs
from tuneyard.compiler.spec.load import load_spec
from tuneyard.compiler.write.entries import entries_of
from tuneyard.core.datasets import DEFAULT_FOLDER, REGISTRY
from tuneyard.core.datasets.bundled_recipes import bundled_recipes, find_recipe
from tuneyard.recipes.recipe import read_recipe

OWN = {
    "rte": "rte", "mnli": "mnli", "defect": "defect-lora", "defect-text": "defect-lora",
    "defect-split": "defect-lora", "qa": "qwen0.5b-qa", "pr": "qwen0.5b-pr", "io": "qwen0.5b-io",
    "mix-small": "qwen7b-qlora", "text": "text-lora", "demo_rte": "demo-rte", "demo_mnli": "demo-mnli",
    "pairs": "dpo-lora", "kto": "kto-lora", "media": "vl-lora", "tools": "tools-lora",
}  # fmt: skip
"""Datasets that a recipe has as its `dataset:`."""
OTHERS = {
    "mix-large": "qwen7b-qlora dataset=mix_large_train eval_dataset=mix_large_eval "
    "output_dir=saves/mix_large",
    "alpaca-text": "text-lora dataset=alpaca_text output_dir=saves/alpaca_text",
    "messages-text": "text-lora dataset=messages_text output_dir=saves/messages_text",
    "pairs-chat": "dpo-lora dataset=pairs_chat output_dir=saves/pairs_chat",
    "ocnli": "sft-lora dataset=ocnli_train eval_dataset=ocnli_eval val_size=0 output_dir=saves/ocnli",
    "messages": "sft-lora dataset=messages output_dir=saves/messages",
    "choices": "sft-lora dataset=choices output_dir=saves/choices",
}


def words_for(spec: str) -> list[str]:
    """The recipe and its settings for the first dataset of a bundled spec."""
    entries = entries_of(load_spec(spec))
    program, group, command, *words = recipe_words(next(iter(entries)), DEFAULT_FOLDER, entries)
    assert (program, group, command) == ("tuneyard", "recipe", "check")
    return words


@pytest.mark.parametrize(("spec", "recipe"), OWN.items())
def test_a_bundled_dataset_leads_to_its_own_recipe_as_it_is(spec: str, recipe: str) -> None:
    assert words_for(spec) == [f"recipes/{recipe}.yaml"]


@pytest.mark.parametrize(("spec", "words"), OTHERS.items())
def test_other_datasets_lead_to_a_recipe_with_settings(spec: str, words: str) -> None:
    recipe, *settings = words.split()
    assert words_for(spec) == [f"recipes/{recipe}.yaml", *settings]


@pytest.mark.parametrize("spec", known_specs())
def test_the_recipe_for_each_bundled_spec_trains_its_dataset(spec: str) -> None:
    recipe, *settings = words_for(spec)
    names = read_recipe(Path(recipe), settings).names("dataset")
    assert names == [next(iter(entries_of(load_spec(spec))))]


HELD_OUT_OWN = ["qa", "pr", "io", "text", "pairs", "kto", "media"]
"""Datasets whose recipes hold out a share of their rows, if a compile has no others."""


@pytest.mark.parametrize("split", ["eval", "validation", "dev"])
@pytest.mark.parametrize("spec", HELD_OUT_OWN)
def test_the_own_recipe_evaluates_on_the_held_out_rows_of_a_compile(spec: str, split: str) -> None:
    """`text` with a validation file trained with `val_size: 0.1`, and evaluated `text_eval` never."""
    entries = entries_of(load_spec(spec), ("train",))
    (dataset,) = entries
    entries[f"{dataset}_{split}"] = entries[dataset]
    words = recipe_words(dataset, DEFAULT_FOLDER, entries)
    assert words[3:] == [f"recipes/{OWN[spec]}.yaml", f"eval_dataset={dataset}_{split}", "val_size=0"]


def test_rows_of_test_choose_no_checkpoint() -> None:
    entry = {"file_name": "qa/qa.json"}
    for dataset in ("qa", "mine"):
        words = recipe_words(dataset, DEFAULT_FOLDER, {dataset: entry, f"{dataset}_test": entry})
        assert not any(word.startswith(("eval_dataset", "val_size")) for word in words)


def test_a_recipe_that_names_held_out_rows_that_were_not_compiled_holds_out_a_share() -> None:
    entries = {"tools_train": {"file_name": "tools/train.json"}}
    words = recipe_words("tools_train", DEFAULT_FOLDER, entries)
    assert words[3:] == ["recipes/tools-lora.yaml", "eval_dataset=null", "val_size=0.1"]


def test_no_training_on_held_out_rows_is_proposed(working_folder: Path) -> None:
    folder = Path("dataset_info")
    folder.mkdir()
    names = ["text_eval", "qa-test", "eval_rows", "my_eval"]
    entries = {name: {"file_name": f"{name}/rows.json"} for name in names}
    write_json(folder / REGISTRY, entries)
    manifest = {"made_from": {"sources": []}, "files": {"rows.json": {"rows": 1, "sha256": "a" * 64}}}
    for name, split in {"eval_rows": "eval", "my_eval": "train"}.items():
        (folder / name).mkdir()
        write_json(folder / name / "manifest.json", {**manifest, "fit": {split: {"rows": 1}}})
    assert [name for name in names if next_recipe([name], folder)] == ["my_eval"]
    assert not next_recipe(["text_eval"], folder, "models/base")


def test_another_folder_of_datasets_and_a_folder_of_images_are_settings(working_folder: Path) -> None:
    Path("other").mkdir()
    media = {"file_name": "seen.json", "columns": {"messages": "messages", "images": "images"}}
    write_json(Path("other") / REGISTRY, {"seen": media})
    assert next_recipe(["seen"], Path("other"))[3:] == [
        *("recipes/vl-lora.yaml", "dataset=seen", "output_dir=saves/seen", "dataset_dir=other")
    ]


def test_a_recipe_for_a_new_dataset_is_found_without_a_list(working_folder: Path) -> None:
    """A copy of a bundled recipe in the current folder comes first, and a broken one is left out."""
    recipes = Path("recipes")
    recipes.mkdir()
    text = (ROOT / "recipes/rte.yaml").read_text(encoding="utf-8")
    (recipes / "rte.yaml").write_text(text.replace("dataset: alpaca_rte_train", "dataset: reviews_train"))
    (recipes / "mnli.yaml").write_text("dataset: [reviews_train\n")
    recipe = find_recipe("reviews_train")
    assert recipe is not None and recipe.path == recipes / "rte.yaml"
    assert "mnli.yaml" not in [recipe.path.name for recipe in bundled_recipes()]
    (recipes / "qwen7b-qlora.yaml").write_text("dataset: mix_small_train\n")  # its header is gone
    large = find_recipe("mix_large_train")
    assert large is not None and large.path == recipes / "qwen7b-qlora.yaml"
    other = find_recipe("alpaca_rte_train")  # in a recipe for RTE and MNLI together
    assert other is not None and other.path.name == "qwen3-4b-nli.yaml"
