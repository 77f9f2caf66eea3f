"""Whole and broken checkpoints told apart, runs told apart, folders set aside and reserved."""

import hashlib
import shlex
import zipfile
from pathlib import Path

import numpy as np
import pytest
from jsonschema import Draft202012Validator
from safetensors.numpy import save_file

from tests.conftest import ROOT
from tests.json_files import read_json, write_json
from tests.messages import raises
from tests.unit.recipes.make import write_recipe
from tuneyard.core.files import HeldError, reserved
from tuneyard.core.training.training_run import STARTED
from tuneyard.recipes.output_dir import checkpoints, record
from tuneyard.recipes.output_dir.record import inputs_of, training_record
from tuneyard.recipes.recipe import read_recipe


def checkpoint(folder: Path, step: int = 4, *, ranks: int = 1, deepspeed: bool = False) -> Path:
    """Write a folder that holds what a trainer's checkpoint holds."""
    path = folder / f"checkpoint-{step}"
    path.mkdir(parents=True)
    write_json(path / "trainer_state.json", {"global_step": step})
    save_file({"w": np.ones((8, 8), np.float32)}, path / "adapter_model.safetensors")
    names = ["scheduler.pt", "rng_state.pth"]
    if ranks > 1:
        names = ["scheduler.pt", *(f"rng_state_{rank}.pth" for rank in range(ranks))]
    if deepspeed:
        (path / "latest").write_text(f"global_step{step}")
        names += [f"global_step{step}/bf16_zero_pp_rank_{r}_mp_rank_00_optim_states.pt" for r in range(ranks)]
        names += [f"global_step{step}/mp_rank_00_model_states.pt"]
    else:
        names += ["optimizer.pt"]
    for name in names:
        (path / name).parent.mkdir(exist_ok=True)
        with zipfile.ZipFile(path / name, "w") as archive:
            archive.writestr("data.pkl", b"x" * 500)
    return path


@pytest.mark.parametrize(("ranks", "deepspeed"), [(1, False), (2, False), (1, True), (2, True)])
def test_whole(tmp_path, ranks, deepspeed):
    assert checkpoints.find_flaw(checkpoint(tmp_path, ranks=ranks, deepspeed=deepspeed)) == ""


@pytest.mark.parametrize(
    ("name", "flaw"),
    [
        ("trainer_state.json", "trainer_state.json is missing"),
        ("adapter_model.safetensors", "model.safetensors is missing"),
        ("optimizer.pt", "optimizer.pt is missing"),
        ("scheduler.pt", "scheduler.pt is missing"),
    ],
)
def test_a_file_is_missing_or_a_folder(tmp_path, name, flaw):
    path = checkpoint(tmp_path)
    (path / name).unlink()
    assert checkpoints.find_flaw(path) == flaw
    (path / name).mkdir()
    assert checkpoints.find_flaw(path)


@pytest.mark.parametrize(
    "name", ["trainer_state.json", "adapter_model.safetensors", "optimizer.pt", "rng_state.pth"]
)
@pytest.mark.parametrize("share", [0.0, 0.5, 0.99])
def test_a_file_is_cut_off(tmp_path, name, share):
    path = checkpoint(tmp_path) / name
    path.write_bytes(path.read_bytes()[: int(path.stat().st_size * share)])
    assert name in checkpoints.find_flaw(path.parent)


@pytest.mark.parametrize("step", [None, 3, "4"])
def test_the_state_of_another_step(tmp_path, step):
    path = checkpoint(tmp_path)
    write_json(path / "trainer_state.json", {} if step is None else {"global_step": step})
    assert "found global_step" in checkpoints.find_flaw(path)


def test_files_that_are_no_text_or_no_names(tmp_path):
    path = checkpoint(tmp_path, deepspeed=True)
    (path / "latest").write_bytes(b"\xff")
    assert "not UTF-8 at byte 0" in checkpoints.find_flaw(path)
    path = checkpoint(tmp_path, 8)
    (path / "model.safetensors.index.json").write_text('{"weight_map": {"a": 5}}')
    assert "5 is missing" in checkpoints.find_flaw(path)
    path = checkpoint(tmp_path, 9)
    (path / "trainer_state.json").write_text('{"global_step": ' + "9" * 5000 + "}")
    assert "too many digits" in checkpoints.find_flaw(path)


def test_a_shard_that_the_index_names_is_missing(tmp_path):
    path = checkpoint(tmp_path)
    (path / "adapter_model.safetensors").rename(path / "model-1.safetensors")
    index = {"weight_map": {"w": "model-1.safetensors", "v": "model-2.safetensors"}}
    write_json(path / "model.safetensors.index.json", index)
    assert checkpoints.find_flaw(path) == "model-2.safetensors is missing"


def test_deepspeed_needs_every_rank_and_latest(tmp_path):
    path = checkpoint(tmp_path, ranks=2, deepspeed=True)
    next(path.glob("global_step4/*rank_1*optim*")).unlink()
    assert "optimizer states of 1 ranks, expected 2" in checkpoints.find_flaw(path)
    (path / "latest").unlink()
    assert "latest is missing" in checkpoints.find_flaw(path)


def test_newest_first_and_broken_ones_out_of_the_way(tmp_path):
    for step in (4, 12, 100):
        checkpoint(tmp_path, step)
    (tmp_path / "checkpoint-12" / "optimizer.pt").unlink()
    (tmp_path / "checkpoint-best").mkdir()
    found = checkpoints.checkpoints(tmp_path)
    assert [(path.name, bool(flaw)) for path, flaw in found.items()] == [
        ("checkpoint-100", False),
        ("checkpoint-12", True),
        ("checkpoint-4", False),
    ]
    assert checkpoints.resume_point(tmp_path) == tmp_path / "checkpoint-100"
    assert not (tmp_path / "checkpoint-12").exists()
    assert (tmp_path / "incomplete-checkpoint-12").is_dir()


def inputs(rate=1e-4, data="aa", **settings):
    return {
        "settings": {"learning_rate": rate, **settings},
        "data": [{"dataset": "a", "sha256": data, "file": "x"}],
        "model": {"name": "m", "sha256": "bb"},
        "weights": None,
    }


def test_runs_told_apart(tmp_path):
    assert record.changed_inputs(tmp_path, inputs()) == ""
    checkpoint(tmp_path)
    assert record.changed_inputs(tmp_path, inputs()) == "not started by `tuneyard recipe train`"
    write_json(tmp_path / STARTED, inputs())
    assert record.changed_inputs(tmp_path, inputs()) == ""
    assert record.changed_inputs(tmp_path, inputs(rate=2e-4)) == "learning_rate 0.0001 → 0.0002"
    assert record.changed_inputs(tmp_path, inputs(data="cc", a=1)) == "a unset → 1, a changed"
    moved = inputs()
    moved["data"][0]["file"] = "elsewhere"
    assert record.changed_inputs(tmp_path, moved) == ""


def test_the_command_that_continues_a_run_of_llamafactory_names_its_newest_complete_checkpoint(tmp_path):
    file = tmp_path / "a recipe.yaml"
    file.write_text("output_dir: other\n")
    recipe = read_recipe(file, [f"output_dir={tmp_path / 'saves'}", "lora_rank=4"])
    assert checkpoints.command_to_resume(recipe) == ""
    (tmp_path / "saves").mkdir()
    for step in (100, 12):
        checkpoint(tmp_path / "saves", step)
    (tmp_path / "saves/checkpoint-100/trainer_state.json").unlink()
    assert shlex.split(checkpoints.command_to_resume(recipe)) == [
        *("llamafactory-cli", "train", str(file), f"output_dir={tmp_path}/saves", "lora_rank=4"),
        *("overwrite_output_dir=false", f"resume_from_checkpoint={tmp_path}/saves/checkpoint-12"),
    ]


@pytest.mark.parametrize("text", ["{", "[]"])
def test_a_run_whose_inputs_cannot_be_read_is_another(tmp_path, text):
    (tmp_path / STARTED).write_text(text)
    assert record.changed_inputs(tmp_path, inputs()).startswith("its started.json")


def test_set_aside_takes_the_first_free_name(tmp_path):
    for expected in ("run.1", "run.2"):
        (tmp_path / "run").mkdir()
        assert checkpoints.set_aside(tmp_path / "run").name == expected


def test_reserved_only_once(tmp_path):
    folder = tmp_path / "out"
    busy = raises(HeldError, "another command")
    with reserved(folder), busy, reserved(folder):
        pass


@pytest.fixture
def recorded_recipe(tmp_path):
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "config.json").write_text("{}")
    settings = {"learning_rate": 0.1, "logging_steps": 1}
    return write_recipe(tmp_path, model_name_or_path=str(tmp_path / "model"), **settings)


def test_training_json_holds_to_its_schema(recorded_recipe):
    weights = ROOT / "recipes/weights/defect-lora.yaml"
    read = read_recipe(recorded_recipe, ["lora_rank=4"])
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


def test_what_decides_a_run(recorded_recipe, tmp_path):
    before = inputs_of(read_recipe(recorded_recipe), None)
    assert (
        inputs_of(read_recipe(recorded_recipe, ["logging_steps=5", "output_dir=x", "use_cpu=true"]), None)
        == before
    )
    assert inputs_of(read_recipe(recorded_recipe, ["learning_rate=0.2"]), None) != before
    (tmp_path / "model" / "config.json").write_text('{"a": 1}')
    assert inputs_of(read_recipe(recorded_recipe), None)["model"] != before["model"]
    (tmp_path / "a.json").write_text("[]")
    assert inputs_of(read_recipe(recorded_recipe), None)["data"] != before["data"]


def test_the_adapters_that_a_training_begins_with_are_recorded(recorded_recipe, tmp_path):
    adapter = tmp_path / "first"
    adapter.mkdir()
    save_file({"w": np.ones((8, 8), np.float32)}, adapter / "adapter_model.safetensors")
    overrides = [f"adapter_name_or_path={adapter},org/second", "create_new_adapter=true"]
    recorded = inputs_of(read_recipe(recorded_recipe, overrides), None)
    digest = hashlib.sha256((adapter / "adapter_model.safetensors").read_bytes()).hexdigest()
    assert recorded["adapters"] == [
        {"name": str(adapter), "sha256": digest},
        {"name": "org/second", "sha256": None},
    ]
    schema = read_json(ROOT / "core/schemas/training.json")["properties"]["inputs"]
    Draft202012Validator({**schema, "$defs": {"sha256": {"type": "string"}}}).validate(recorded)
    checkpoint(tmp_path / "run")
    write_json(tmp_path / "run" / STARTED, recorded)
    save_file({"w": np.zeros((8, 8), np.float32)}, adapter / "adapter_model.safetensors")
    now = inputs_of(read_recipe(recorded_recipe, overrides), None)
    assert record.changed_inputs(tmp_path / "run", now) == "adapters changed"
    before = {key: value for key, value in recorded.items() if key != "adapters"}
    write_json(tmp_path / "run" / STARTED, before)  # of an earlier version
    assert record.changed_inputs(tmp_path / "run", now) == ""
