"""What `recipes train` settles before it touches an output_dir."""

import os
from pathlib import Path

import pytest
import yaml

from tests.cli.scoring import invoke
from tests.folders import names
from tests.json_files import read_json, write_json, write_lines
from tests.messages import printed, raises
from tests.unit.recipes.make import write_recipe
from tuneyard.compiler.cli import cli as compiler
from tuneyard.core.errors import ContentError, ProblemsError, RequestError
from tuneyard.core.execution.state import CURRENT, NEW, UNFINISHED
from tuneyard.core.training.training_run import STARTED, TRAINING
from tuneyard.recipes.__main__ import cli as recipe_cli
from tuneyard.recipes.checking import checked
from tuneyard.recipes.llamafactory.answer import Facts, Rows
from tuneyard.recipes.machine.hardware import machine
from tuneyard.recipes.output_dir import record
from tuneyard.recipes.output_dir.record import inputs_of
from tuneyard.recipes.output_dir.resume import why_not_resumed
from tuneyard.recipes.recipe import read_recipe
from tuneyard.recipes.recipe.model_source import require_model
from tuneyard.recipes.training import train as training
from tuneyard.recipes.training.train import TrainRequest, train
from tuneyard.recipes.training.train import state as training_state


@pytest.fixture
def offline_recipe(tmp_path, monkeypatch):
    """Return a recipe for a hub id, overwriting, where there is neither network nor cache."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    settings = {"cache_dir": str(tmp_path / "hub"), "overwrite_output_dir": True, "cutoff_len": 64}
    return read_recipe(write_recipe(tmp_path, model_name_or_path="nobody/nothing", **settings))


def test_without_its_model_a_training_renames_and_writes_nothing(offline_recipe, tmp_path):
    before = sorted(tmp_path.rglob("*"))
    with raises(RequestError, "nobody/nothing") as refused:
        train(TrainRequest(offline_recipe))
    assert "\n" not in str(refused.value)
    assert sorted(tmp_path.rglob("*")) == before
    offline_recipe.output_dir.mkdir()
    (offline_recipe.output_dir / STARTED).write_text('{"settings": {}}')
    with raises(RequestError, "nobody/nothing"):
        train(TrainRequest(offline_recipe))
    assert not (tmp_path / "out.1").exists()
    assert names(offline_recipe.output_dir) == [STARTED]


def finished(recipe, **world):
    recipe.output_dir.mkdir()
    write_json(recipe.output_dir / STARTED, inputs_of(recipe, None))
    write_json(recipe.output_dir / TRAINING, world)


def test_a_finished_run_needs_no_model(offline_recipe):
    finished(offline_recipe, world_size=1, global_batch=8)
    assert train(TrainRequest(offline_recipe)) == CURRENT


def test_a_run_of_another_world_size_is_not_this_one(offline_recipe, monkeypatch):
    finished(offline_recipe, world_size=2, global_batch=16)
    facts = ("world size 2", "global batch 16", "world size 1", "global batch 8", "--force")
    with raises(ContentError, *facts):
        train(TrainRequest(offline_recipe))  # though overwrite_output_dir is true
    for here, message in (
        ("this", "world size 2 (global batch 16) → world size 1"),
        ("gpu", "already finished"),
    ):
        found = checked.quick_check(offline_recipe, machine(here)).problems
        assert message in next(problem.message for problem in found if problem.code == "W341")
    monkeypatch.setenv("FORCE_TORCHRUN", "1")
    monkeypatch.setenv("NPROC_PER_NODE", "2")
    assert train(TrainRequest(offline_recipe)) == CURRENT
    monkeypatch.setenv("NPROC_PER_NODE", "3")
    with raises(RequestError, "nobody/nothing"):  # it would train, had it the model
        train(TrainRequest(offline_recipe, force=True))


def test_a_run_that_was_cut_off_is_not_resumed_on_another_world_size(offline_recipe, monkeypatch):
    """Its steps would take other batches from there on, without a word from LLaMA-Factory."""
    offline_recipe.output_dir.mkdir()
    world = {"world_size": 2, "global_batch": 16}
    write_json(offline_recipe.output_dir / STARTED, {**inputs_of(offline_recipe, None), **world})
    checkpoint = offline_recipe.output_dir / "checkpoint-3"
    monkeypatch.setattr(record, "checkpoints", lambda _: {checkpoint: ""})
    monkeypatch.setattr(training, "require_model", lambda _: None)
    monkeypatch.setattr(training, "launch", lambda *_: pytest.fail("it was resumed"))
    with raises(ContentError, "2", "16", "1"):
        train(TrainRequest(offline_recipe, is_checked=True))
    now = {"world_size": 1, "global_batch": 8}
    assert record.changed_world_size(offline_recipe.output_dir, world) is None
    monkeypatch.setattr(record, "checkpoints", lambda _: {checkpoint: "cut off"})
    assert record.changed_world_size(offline_recipe.output_dir, now) is None  # nothing to resume from


def test_what_llamafactory_resumes_wrongly_starts_again(offline_recipe, monkeypatch, capsys):
    """After a resume, pissa_convert subtracts the weights of the checkpoint instead of PiSSA's start."""
    offline_recipe = read_recipe(
        offline_recipe.path, ["pissa_init=true", "pissa_convert=true", "overwrite_output_dir=false"]
    )
    (offline_recipe.output_dir / "checkpoint-3").mkdir(parents=True)
    world = {"world_size": 1, "global_batch": 8}
    write_json(offline_recipe.output_dir / STARTED, {**inputs_of(offline_recipe, None), **world})
    monkeypatch.setattr(training, "require_model", lambda _: None)

    def launch(command, *_, uses_torchrun):
        assert not uses_torchrun
        raise ContentError(Path(command[-1]).read_text())

    monkeypatch.setattr(training, "launch", launch)
    with pytest.raises(ContentError) as stopped:
        train(TrainRequest(offline_recipe, is_checked=True))
    settings = yaml.safe_load(str(stopped.value))
    assert settings["overwrite_output_dir"] is True
    assert "resume_from_checkpoint" not in settings
    assert "starting again" in capsys.readouterr().out


@pytest.mark.parametrize("override", ["deepspeed=recipes/deepspeed/z2.json", "lora_rank=8"])
def test_deepspeed_is_trained_under_torchrun_on_any_number_of_gpus(offline_recipe, monkeypatch, override):
    recipe = read_recipe(offline_recipe.path, [override])
    monkeypatch.setattr(training, "require_model", lambda _: None)

    def launch(*_, uses_torchrun, **__):
        raise ContentError(str(uses_torchrun))

    monkeypatch.setattr(training, "launch", launch)
    with pytest.raises(ContentError) as stopped:
        train(TrainRequest(recipe, is_checked=True))
    assert str(stopped.value) == str(override.startswith("deepspeed"))


@pytest.mark.parametrize("overrides", [["stage=rm"], ["stage=ppo"], ["pissa_convert=true"]])
def test_what_llamafactory_cannot_resume(offline_recipe, overrides):
    assert why_not_resumed(read_recipe(offline_recipe.path, overrides))
    assert not why_not_resumed(offline_recipe)


def test_weights_in_the_cache_will_do(offline_recipe, tmp_path):
    cached = tmp_path / "hub/models--nobody--nothing"
    (cached / "snapshots/abc").mkdir(parents=True)
    (cached / "refs").mkdir()
    (cached / "refs/main").write_text("abc")
    (cached / "snapshots/abc/config.json").write_text("{}")
    with raises(RequestError, "nobody/nothing"):
        require_model(offline_recipe)
    (cached / "snapshots/abc/model.safetensors").write_bytes(b"")
    require_model(offline_recipe)


def test_rows_that_llamafactory_drops_are_refused_before_anything_is_written(
    offline_recipe, tmp_path, monkeypatch
):
    monkeypatch.setattr(training, "require_model", lambda _: None)
    answer = Facts(data={"a": Rows(1, 1, [(1, "LLaMA-Factory drops it")])}, template_error="none here")
    monkeypatch.setattr(checked, "ask", lambda *_, **__: answer)
    before = sorted(tmp_path.rglob("*"))
    with raises(ProblemsError, "row 1", "a.json", "E323 a", "LLaMA-Factory"):
        train(TrainRequest(offline_recipe))
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize(
    ("settings", "has_gpus", "computes", "expected"),
    [
        ({"bf16": True}, False, True, {"use_cpu": True}),
        ({"bf16": True}, False, False, {"use_cpu": True, "bf16": False}),
        ({"bf16": True, "use_cpu": True}, False, False, {"bf16": False}),
        ({"bf16": True, "use_cpu": True}, True, False, {"bf16": False}),
        ({"bf16": True}, True, False, {}),
        ({"fp16": False}, False, False, {"use_cpu": True}),
    ],
)
def test_what_a_training_on_a_cpu_needs_is_added_and_printed(
    tmp_path, monkeypatch, capsys, settings, has_gpus, computes, expected
):
    monkeypatch.setattr(training, "cpu_computes_bf16", lambda: computes)
    monkeypatch.setattr(training, "is_wandb_configured", lambda: False)
    recipe = read_recipe(write_recipe(tmp_path, **settings))
    schedule = checked.quick_check(recipe, machine("cpu")).schedule
    assert training._added_settings(recipe, schedule, has_gpus=has_gpus) == expected
    printed = capsys.readouterr().out
    assert ("use_cpu=true" in printed) is ("use_cpu" in expected)
    assert ("bf16=false" in printed) is ("bf16" in expected)


@pytest.fixture
def compiled_recipe(working_folder):
    """A recipe for a dataset that is compiled here, and a model folder without weights."""
    rows = [{"question": f"{n}?", "answer": f"{n}."} for n in range(40)]
    write_lines(working_folder / "rows.jsonl", rows)
    assert invoke(compiler, "compile", "qa", "--source", "rows.jsonl", "--out", "compiled").exit_code == 0
    (working_folder / "model").mkdir()
    (working_folder / "model/config.json").write_text("{}")
    settings = {"dataset": "qa", "dataset_dir": "compiled", "model_name_or_path": "model"}
    return write_recipe(working_folder, **settings)


def state_of(path, *overrides):
    return training_state(TrainRequest(read_recipe(path, overrides)))


def test_the_state_of_a_training(compiled_recipe):
    output_dir = read_recipe(compiled_recipe).output_dir
    assert state_of(compiled_recipe) == NEW
    assert not output_dir.exists()
    output_dir.mkdir()
    inputs = inputs_of(read_recipe(compiled_recipe), None)
    write_json(output_dir / STARTED, {**inputs, "world_size": 1, "global_batch": 8})
    assert state_of(compiled_recipe) == UNFINISHED
    write_json(output_dir / TRAINING, {"world_size": 1, "global_batch": 8})
    assert state_of(compiled_recipe) == CURRENT
    for path in Path().rglob("*"):
        os.utime(path, (1, 1))
    assert state_of(compiled_recipe, "logging_steps=3") == CURRENT


def more_rows():
    rows = [{"question": f"{n}?", "answer": f"{n}."} for n in range(43)]
    write_lines(Path("rows.jsonl"), rows)
    assert invoke(compiler, "compile", "qa", "--source", "rows.jsonl", "--out", "compiled").exit_code == 0


def other_texts():
    path = Path("compiled/qa/qa.json")
    path.write_text(path.read_text().replace("39.", "40."))


@pytest.mark.parametrize(
    ("change", "overrides", "changes"),
    [
        (more_rows, [], ["qa changed, 40 → 43 rows"]),
        (other_texts, [], ["qa changed"]),
        (lambda: Path("model/config.json").write_text('{"a": 1}'), [], ["model changed"]),
        (lambda: None, ["learning_rate=0.5"], ["learning_rate unset → 0.5"]),
        (lambda: None, ["seed=1", "lora_rank=2"], ["lora_rank unset → 2", "seed unset → 1"]),
        (lambda: Path("out/started.json").unlink(), [], ["not started by `tuneyard recipe train`"]),
    ],
)
def test_a_changed_input_of_a_training_is_named(compiled_recipe, change, overrides, changes):
    finished(read_recipe(compiled_recipe), world_size=1, global_batch=8)
    assert state_of(compiled_recipe) == CURRENT
    change()
    state = state_of(compiled_recipe, *overrides)
    assert (state.kind, list(state.changes)) == ("stale", changes)


def test_another_number_of_processes_is_a_change(compiled_recipe):
    finished(read_recipe(compiled_recipe), world_size=2, global_batch=16)
    state = state_of(compiled_recipe)
    assert state.kind == "stale"
    printed(state.changes[0], "world size 2", "global batch 16", "world size 1", "global batch 8")


def test_a_dataset_of_an_earlier_record_without_rows_is_the_same(compiled_recipe):
    recipe = read_recipe(compiled_recipe)
    finished(recipe, world_size=1, global_batch=8)
    started = read_json(recipe.output_dir / STARTED)
    assert started["data"][0].pop("rows") == 40
    write_json(recipe.output_dir / STARTED, started)
    assert state_of(compiled_recipe) == CURRENT
    more_rows()
    assert list(state_of(compiled_recipe).changes) == ["qa changed"]


def test_the_command_ends_at_once_for_a_finished_training(offline_recipe):
    finished(offline_recipe, world_size=1, global_batch=8)
    result = invoke(recipe_cli, "train", offline_recipe.path)
    assert result.exit_code == 0
    assert result.stdout.splitlines()[-1] == f"{offline_recipe.output_dir}: up to date"
    assert "next: tuneyard eval" in result.stderr
    assert "result:" not in result.stderr


def edit_entry():
    path = Path("compiled/dataset_info.json")
    registry = read_json(path)
    registry["qa"]["num_samples"] = 20
    write_json(path, registry)


@pytest.mark.parametrize(
    ("change", "changes"),
    [
        (edit_entry, ["the entry of qa in dataset_info.json changed"]),
        (lambda: Path("zero.json").write_text('{"zero_optimization": {"stage": 3}}'), ["zero.json changed"]),
        (lambda: Path("judge/config.json").write_text('{"a": 1}'), ["judge changed"]),
        (lambda: Path("first/adapter_model.safetensors").write_bytes(b"1"), ["first changed"]),
    ],
)
def test_a_file_that_another_setting_names_is_an_input(compiled_recipe, change, changes):
    Path("zero.json").write_text("{}")
    for name in ("judge/config.json", "first/adapter_config.json"):
        Path(name).parent.mkdir()
        Path(name).write_text("{}")
    Path("first/adapter_model.safetensors").write_bytes(b"0")
    settings = ["deepspeed=zero.json", "reward_model=judge", "ref_model_adapters=first"]
    recipe = read_recipe(compiled_recipe, settings)
    finished(recipe, world_size=1, global_batch=8)
    assert state_of(compiled_recipe, *settings) == CURRENT
    change()
    state = state_of(compiled_recipe, *settings)
    assert (state.kind, list(state.changes)) == ("stale", changes)
    started = read_json(recipe.output_dir / STARTED)
    del started["files"]
    for data in started["data"]:
        del data["entry_sha256"]
    write_json(recipe.output_dir / STARTED, started)
    assert state_of(compiled_recipe, *settings) == CURRENT  # an earlier version did not record them
