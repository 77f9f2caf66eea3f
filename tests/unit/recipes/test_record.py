"""training.json holds to its schema; inputs change with what decides a run, and with nothing else."""

import pytest
from jsonschema import Draft202012Validator

from tests.conftest import ROOT
from tests.json_files import read_json
from tests.unit.recipes.make import write_recipe
from tuneyard.recipes.output_dir import inputs_of, training_record
from tuneyard.recipes.recipe import read_recipe


@pytest.fixture
def recipe(tmp_path):
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "config.json").write_text("{}")
    settings = {"learning_rate": 0.1, "logging_steps": 1}
    return write_recipe(tmp_path, model_name_or_path=str(tmp_path / "model"), **settings)


def test_training_json_holds_to_its_schema(recipe):
    weights = ROOT / "recipes/weights/defect-lora.yaml"
    read = read_recipe(recipe, ["lora_rank=4"])
    facts = {
        "added": {"use_cpu": True},
        "hardware": "CPU",
        "started": "2026-01-01T00:00:00+00:00",
        "seconds": 1.5,
        "world_size": 2,
        "global_batch": 32,
    }
    schema = read_json(ROOT / "core/schemas/training.json")
    for path in (None, weights):
        record = training_record(read, inputs_of(read, path), facts)
        Draft202012Validator(schema).validate(record)
        assert record["overrides"] == ["lora_rank=4"]


def test_what_decides_a_run(recipe, tmp_path):
    before = inputs_of(read_recipe(recipe), None)
    assert inputs_of(read_recipe(recipe, ["logging_steps=5", "output_dir=x", "use_cpu=true"]), None) == before
    assert inputs_of(read_recipe(recipe, ["learning_rate=0.2"]), None) != before
    (tmp_path / "model" / "config.json").write_text('{"a": 1}')
    assert inputs_of(read_recipe(recipe), None)["model"] != before["model"]
    (tmp_path / "a.json").write_text("[]")
    assert inputs_of(read_recipe(recipe), None)["data"] != before["data"]
