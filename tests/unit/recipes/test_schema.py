"""Each YAML file of ours names a JSON Schema that is there and accepts it, so that editors complete it."""

from dataclasses import replace
from pathlib import Path

import jsonschema_rs
import pytest

from tests.conftest import ROOT
from tests.json_files import read_json
from tuneyard.core.documents import read_yaml
from tuneyard.core.documents.schema_errors import violations
from tuneyard.core.errors import ContentError
from tuneyard.core.llamafactory.prompt.token_weights import read_weights
from tuneyard.recipes.recipe import read_recipe
from tuneyard.recipes.recipe.schema import known_keys, meant, setting_problems

FILES = sorted([*(ROOT / "recipes").rglob("*.yaml"), *(ROOT / "compiler/specs").glob("*.yaml")])
FIRST = "# yaml-language-server: $schema="


def accepts(schema: Path, value: object) -> bool:
    def read(uri: str) -> object:
        return read_json(schema.parent / uri.rpartition("/")[2])

    return jsonschema_rs.validator_for(read(schema.name), retriever=read).is_valid(value)


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_files_name_the_schema_that_accepts_them(path):
    first = path.read_text(encoding="utf-8").splitlines()[0]
    assert first.startswith(FIRST)
    assert accepts(path.parent / first.removeprefix(FIRST), read_yaml(path, "file").value)


@pytest.mark.parametrize(
    "text",
    [
        *("rules: []", "rules: [{regex: a, weight: 1}]", "rules: [{field: a, in: 'x{a}', weight: 2.5}]"),
        *("rules: [{words: [a], weight: 0}]\ndefault: 2", "default: 1", "rules: [{weight: 1}]"),
        *("rules: [{regex: a}]", "rules: [{regex: a, words: [b], weight: 1}]", "rules: [5]"),
        *("rules: [{regex: a, weight: -1}]", "rules: [{words: [], weight: 1}]", "rules: []\nmore: 1"),
        *("rules: [{regex: a, weight: true}]", "rules: [{regex: a, in: '{a}', weight: 1}]", "rules: 5"),
    ],
)
def test_the_schema_of_weights_accepts_what_the_reader_reads(tmp_path, text):
    path = tmp_path / "weights.yaml"
    path.write_text(text)
    try:
        read_weights(path)
        reads = True
    except ContentError:
        reads = False
    assert accepts(ROOT / "core/schemas/token_weights.json", read_yaml(path, "file").value) == reads


@pytest.mark.parametrize(
    ("key", "value", "expected"),
    [
        ("learning_rate", 0, "more than 0"),
        ("lora_dropout", 1.5, "0 or more and less than 1"),
        ("lora_rank", 0, "1 or more"),
        ("lora_rank", 8.0, "a whole number"),
        ("dataset", 5, "text or a list"),
        ("report_to", ["wandb", "wnadb"], "one of all, azure_ml"),
        ("report_to", "wnadb", "one of all, azure_ml"),
        ("stage", "sfx", "one of pt, sft, rm, ppo, dpo, kto"),
        ("bf16", 1, "true or false"),
    ],
)
def test_a_refused_value_is_told_what_is_expected(key, value, expected):
    found = next(violations(known_keys()[key], value, exact=True))
    assert f", expected {expected}" in found.message


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("learning_rat", "learning_rate"),
        ("lr", "learning_rate"),
        ("model_name", "model_name_or_path"),
        ("colour", ""),
    ],
)
def test_the_key_that_was_meant(name, expected):
    assert meant(name, known_keys()) == (expected and f'did you mean "{expected}"?')


@pytest.mark.parametrize(
    ("key", "value", "expected"),
    [
        ("optim", "adamw", 'E303 did you mean "adamw_torch"?'),
        ("flash_attn", "flash_attention_2", 'E303 did you mean "fa2"?'),
        (
            "learning_rate",
            "1,5e-4",
            "E302 write a number such as 1.5e-4; 10% is 0.1",
        ),
    ],
)
def test_the_value_that_was_meant(tmp_path, key, value, expected):
    (tmp_path / "r.yaml").write_text(f"{key}: {value}\n")
    (problem,) = setting_problems(read_recipe(tmp_path / "r.yaml"))
    assert f"{problem.code} {problem.hint}" == expected


@pytest.mark.parametrize("value", [{"x": {"y": [None]}}, [[None]], 2**70, -1, 1e308, float("nan"), "", True])
def test_any_value_of_any_key_is_a_problem_and_no_error(tmp_path, value):
    """A mapping in place of a choice ended in a traceback."""
    (tmp_path / "r.yaml").write_text("stage: sft\n")
    recipe = read_recipe(tmp_path / "r.yaml")
    accepted = set()
    for key in known_keys():
        problems = list(setting_problems(replace(recipe, settings={key: value})))
        assert {problem.code for problem in problems} <= {"E302", "E303", "E305", "E313"}
        assert {problem.field for problem in problems} <= {key}
        if not problems:
            accepted.add(key)
    if isinstance(value, dict):
        assert {key for key in accepted if not key.endswith(("_config", "_kwargs"))} == {"deepspeed"}
    if value in (2**70, 1e308) or value != value:
        assert accepted == {"generation_config", "parallelism_config"}
    assert {"learning_rate", "stage"}.isdisjoint(accepted)


@pytest.mark.parametrize("key", ["formatting", "file_name", "columns", "ranking", "kto_tag", "user_tag"])
def test_a_key_of_a_datasets_entry_is_named_as_one(tmp_path, key):
    path = tmp_path / "r.yaml"
    path.write_text(f"model_name_or_path: m\ndataset: d\n{key}: x\n")
    (problem,) = [each for each in setting_problems(read_recipe(path)) if each.code == "E301"]
    assert problem.place == f"{path}:3" and "dataset_info.json" in problem.hint
