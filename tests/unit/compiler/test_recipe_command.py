"""After a compile comes the bundled recipe that names the dataset, or the one for rows of its form."""

from pathlib import Path

import pytest

from tests.conftest import ROOT
from tests.json_files import write_json
from tuneyard.compiler.recipe_command import next_recipe, recipe_words
from tuneyard.compiler.spec.file import known_specs
from tuneyard.compiler.spec.model import load_spec
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
