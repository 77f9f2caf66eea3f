"""A token in a recipe leaves it in no file and no printed line: SECURITY.md, "Secrets"."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from testing.tiny import make_tiny
from tests.cli.scoring import invoke
from tests.json_files import write_json
from tests.messages import printed, printed_line
from tests.unit.adapters.commands import call
from tests.unit.adapters.make import base_tensors, factors, make, make_base
from tests.unit.recipes.make import write_recipe
from tuneyard.core.errors import ContentError, RequestError
from tuneyard.core.text.secrets import is_secret, public_words
from tuneyard.core.training.metrics import metric_of
from tuneyard.core.training.training_run import training_settings
from tuneyard.recipes.__main__ import cli
from tuneyard.recipes.llamafactory.launch import LOG, launch
from tuneyard.recipes.machine.hardware import Machine
from tuneyard.recipes.output_dir.record import changed_inputs, inputs_of, training_record
from tuneyard.recipes.recipe import read_recipe
from tuneyard.recipes.rules.setting_rules import problems_of
from tuneyard.recipes.sweep.grid import parse_grid, plan_runs
from tuneyard.recipes.sweep.results import SweepResults, write_summary
from tuneyard.recipes.sweep.run import commands, evaluate, is_scored

KEYS = (
    "hf_hub_token", "hub_token", "ms_hub_token", "om_hub_token", "swanlab_api_key", "swanlab_lark_secret",
    "swanlab_lark_webhook_url", "openai_key", "MY_API_KEY",
)  # fmt: skip
"""Settings of LLaMA-Factory that hold secrets, and two that somebody may write."""
SECRET = "hf_xSECRETx"
WITHIN: dict[str, tuple[dict[str, object], str]] = {
    "a list of objects": ({"report_to": [{"api_key": SECRET}]}, "report_to[0].api_key"),
    "an object": ({"deepspeed": {"wandb": {"apiKey": SECRET}}}, "deepspeed.wandb.apiKey"),
    "a text of JSON": ({"lr_scheduler_kwargs": json.dumps({"hf_token": SECRET})}, "lr_scheduler_kwargs"),
    "arguments in a text": ({"optim_args": f"api_key={SECRET},fused=true"}, "optim_args"),
    "a header": ({"run_name": f"Authorization: Bearer {SECRET}"}, "run_name"),
    "an address of a model": ({"model_name_or_path": f"https://me:{SECRET}@host/m"}, "model_name_or_path"),
    "an address of a store": ({"ray_storage_path": f"s3://me:{SECRET}@bucket"}, "ray_storage_path"),
    "an argument of an address": ({"media_dir": f"https://host/x?token={SECRET}"}, "media_dir"),
    "a dataset": ({"dataset": f"https://me:{SECRET}@host/a"}, "dataset"),
    "a token among names": ({"run_name": f"mine-{SECRET}{'0' * 20}"}, "run_name"),
}
"""Secrets inside settings of other names, and the place that the refusal names."""
PLAIN = {"skip_special_tokens": True, "include_num_input_tokens_seen": True, "hub_token": None}


@pytest.mark.parametrize("key", KEYS)
@pytest.mark.parametrize("is_override", [False, True])
def test_no_record_of_a_training_has_a_secret(tmp_path: Path, key: str, is_override: bool) -> None:
    changed = {} if is_override else {key: SECRET}
    overrides = [f"{key}={SECRET}", "lora_rank=4"] if is_override else ["lora_rank=4"]
    recipe = read_recipe(write_recipe(tmp_path, **changed), overrides)
    assert recipe.secrets == {key: SECRET}
    record = training_record(recipe, inputs_of(recipe, None), {})
    assert SECRET not in json.dumps(record) + repr(recipe)
    assert recipe.settings["lora_rank"] == 4 and record["overrides"] == ["lora_rank=4"]
    problems = problems_of(recipe, Machine(()))
    (problem,) = [each for each in problems if each.code == "W364"]
    where = "(override)" if is_override else f":{recipe.lines[key]}"
    assert problem.place.endswith(where) and problem.field == key
    assert SECRET not in "\n".join(each.line() for each in problems)


def test_settings_of_other_kinds_stay(tmp_path: Path) -> None:
    path = write_recipe(tmp_path)
    path.write_text(path.read_text() + "\n" + yaml.safe_dump(PLAIN))
    recipe = read_recipe(path)
    assert recipe.secrets == {} and recipe.settings.items() >= PLAIN.items()


def test_an_unknown_key_of_a_secret_is_still_unknown(tmp_path: Path) -> None:
    recipe = read_recipe(write_recipe(tmp_path, hf_token=SECRET))
    assert [each.field for each in problems_of(recipe, Machine(())) if each.code == "E301"] == ["hf_token"]


@pytest.mark.threat("secrets", "recipe check", "recipe plan", "recipe train")
@pytest.mark.parametrize("form", WITHIN)
@pytest.mark.parametrize("command", ["check", "plan", "train"])
def test_a_secret_inside_another_setting_is_refused(tmp_path: Path, form: str, command: str) -> None:
    """The training needs the setting, and would record it: neither is decided silently."""
    changed, place = WITHIN[form]
    path = write_recipe(tmp_path, **changed)
    done = invoke(cli, command, path, standalone_mode=False)
    assert isinstance(done.exception, ContentError), done.output
    line = [text.partition(":")[0] for text in path.read_text().splitlines()].index(next(iter(changed))) + 1
    output = done.output + str(done.exception)
    assert f"{path}:{line}: {place}: " in output and "xSECRETx" not in output
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("words", [["--quick"], ["--quick", "lora_rank=4"]])
def test_printed_commands_have_no_secret(tmp_path: Path, words: list[str]) -> None:
    path = write_recipe(tmp_path)
    text = invoke(cli, "check", "--for", "cpu", path, *words, f"hub_token={SECRET}").output
    assert SECRET not in text
    printed(text, "W364 hub_token", "HF_TOKEN", "export HF_TOKEN=…")


@pytest.mark.parametrize("word", [f"hub_token=[{SECRET}", f"hub_token={{{SECRET}", f"hub_token: {SECRET}='"])
def test_an_error_shows_no_secret(tmp_path: Path, word: str) -> None:
    with pytest.raises(RequestError) as refusal:
        read_recipe(write_recipe(tmp_path), [word])
    text = str(refusal.value)
    assert SECRET not in text and "hub_token" in text


@pytest.mark.threat("secrets", "recipe sweep")
def test_a_sweep_keeps_none(tmp_path: Path) -> None:
    path = write_recipe(tmp_path)
    grid = parse_grid(["lora_rank=4,8", f"hub_token={SECRET}"])
    runs = plan_runs(path, grid, tmp_path / "runs")
    recipes = [recipe for _, recipe in runs]
    assert [recipe.secrets for recipe in recipes] == [{"hub_token": SECRET}] * 2
    (tmp_path / "runs").mkdir()
    rows = [{"lora_rank": "4", "eval_loss": 1.0, "run": "a"}]
    meaning = metric_of("eval_loss")
    write_summary(SweepResults(tmp_path / "runs", grid, "eval_loss", meaning, rows, [], False))
    lines = commands(recipes, ["tuneyard", "recipe", "sweep"], None, Machine(()))
    written = (tmp_path / "runs/sweep.json").read_text()
    assert SECRET not in written + "\n".join(lines) + repr(grid) + repr(recipes)
    assert len(lines) == 2


def test_a_record_of_today_is_read_without_it(tmp_path: Path) -> None:
    nested = {"api_key": SECRET, "rank": 2, "in": [{"token": SECRET}]}
    settings = {"lora_rank": 4, "hf_hub_token": SECRET, "other": nested}
    inputs = {"settings": settings, "data": [], "model": {}}
    write_json(tmp_path / "training.json", {"inputs": inputs})
    write_json(tmp_path / "started.json", inputs)
    assert training_settings(tmp_path) == {"lora_rank": 4, "other": {"rank": 2, "in": [{}]}}
    difference = changed_inputs(
        tmp_path, {**inputs, "settings": {"lora_rank": 8, "other": {"rank": 2, "in": [{}]}}}
    )
    assert difference == "lora_rank 4 → 8"


def test_the_recipe_beside_weights_is_read_without_it(tmp_path: Path) -> None:
    (tmp_path / "recipe.yaml").write_text(f"lora_rank: 4\nhub_token: {SECRET}\n")
    assert training_settings(tmp_path) == {"lora_rank": 4}


@pytest.mark.threat("secrets", "adapter export")
def test_a_model_card_has_none(working_folder: Path) -> None:
    make_base("models/base", base_tensors(), model_type="qwen2")
    make("saves/rte", factors(), base_model_name_or_path="models/base")
    settings = {"learning_rate": 0.001, **dict.fromkeys(KEYS, SECRET)}
    write_json(Path("saves/rte/training.json"), {"inputs": {"settings": settings, "data": []}})
    card = call("export", "saves/rte", "--to", "hub", "--repo", "org/rte", "--dry-run")[0]
    assert SECRET not in card
    printed_line(card, "learning_rate:", "0.001")


def test_the_training_gets_it_from_its_environment(tmp_path: Path) -> None:
    recipe = read_recipe(write_recipe(tmp_path, hf_hub_token="hf_read", hub_token=SECRET))
    program = (
        f"import os, pathlib; pathlib.Path({str(tmp_path / 'token')!r}).write_text(os.environ['HF_TOKEN'])"
    )
    with (tmp_path / "lock").open("w") as lock:
        launch([sys.executable, "-c", program], tmp_path, lock.fileno(), **recipe.secret_variables())
    assert (tmp_path / "token").read_text() == SECRET  # which may write, too
    assert SECRET not in (tmp_path / LOG).read_text()


@pytest.mark.parametrize(
    ("name", "holds_one"),
    [
        ("hf_hub_token", True), ("WANDB_API_KEY", True), ("password", True), ("client_secret", True),
        ("apiKey", True), ("hf-token", True), ("Authorization", True), ("db.passwd", True),
        ("api_keys", True),
        ("hub_tokens", True), ("PWD", True), ("accessToken", True), ("author", False), ("add_tokens", False),
        ("skip_special_tokens", False), ("max_new_tokens", False), ("monkey", False), ("key_tokens", False),
    ],
)  # fmt: skip
def test_names_of_secrets(name: str, holds_one: bool) -> None:
    assert is_secret(name) == holds_one
    assert public_words(["r.yaml", f"{name}=1"]) == (["r.yaml"] if holds_one else ["r.yaml", f"{name}=1"])


FILES = {"deepspeed": "wandb", "fsdp_config": "tracker", "accelerator_config": "hub"}
"""Settings that name a file of JSON, and a key of it."""


@pytest.mark.parametrize("key", FILES)
@pytest.mark.parametrize("command", ["check", "plan", "train"])
@pytest.mark.parametrize(
    "inner", [{"api_key": SECRET}, {"url": f"https://me:{SECRET}@host"}, [{"token": SECRET}]]
)
def test_a_secret_in_a_file_of_settings_is_refused(
    tmp_path: Path, key: str, command: str, inner: object
) -> None:
    write_json(tmp_path / "settings.json", {FILES[key]: inner})
    path = write_recipe(tmp_path, **{key: str(tmp_path / "settings.json")})
    done = invoke(cli, command, path, standalone_mode=False)
    assert isinstance(done.exception, ContentError), done.output
    output = done.output + str(done.exception)
    assert f"{tmp_path / 'settings.json'}: {FILES[key]}" in output and "xSECRETx" not in output
    assert not (tmp_path / "out").exists()


def test_a_token_that_llamafactory_reads_from_the_recipe_alone_has_its_way(tmp_path: Path) -> None:
    recipe = read_recipe(write_recipe(tmp_path, om_hub_token=SECRET))
    (problem,) = [each for each in problems_of(recipe, Machine(())) if each.code == "W364"]
    assert "download the dataset" in problem.line() and recipe.secret_variables() == {}


@pytest.mark.parametrize(
    "evaluation",
    [
        f"true {{results}} --api-key {SECRET}",
        f"true {{results}} --api-key={SECRET}",
        f"true {{results}} --url https://me:{SECRET}@host/v1",
        f"sh -c 'OPENAI_API_KEY={SECRET} true' {{results}}",
        f"true {{results}} -H 'Authorization: Bearer {SECRET}'",
    ],
)
def test_the_command_that_scores_a_sweep_leaves_no_secret(tmp_path: Path, evaluation: str) -> None:
    evaluate(tmp_path, evaluation, has_log=True)
    assert is_scored(tmp_path, evaluation)
    assert all(SECRET not in file.read_text() for file in tmp_path.iterdir() if file.is_file())
    with pytest.raises(ContentError) as failure:
        evaluate(tmp_path, evaluation.replace("true", "false"), has_log=True)
    assert SECRET not in str(failure.value)


@pytest.mark.parametrize("words", [["--api-key", SECRET], [f"--hub-token={SECRET}"], ["--auth", SECRET]])
def test_words_of_a_command_have_no_secret(words: list[str]) -> None:
    shown = public_words(["tuneyard", *words, "--key", "key.json", "--token-losses", "--out", "o"])
    assert SECRET not in " ".join(shown)
    assert shown[-5:] == ["--key", "key.json", "--token-losses", "--out", "o"] and words[0][:5] in shown[1]


def test_the_reason_of_a_failure_has_no_secret(tmp_path: Path) -> None:
    """A library may print the token that it got from its environment."""
    program = "import os; raise ValueError('401 for ' + os.environ['HF_TOKEN'])"
    with (tmp_path / "lock").open("w") as lock, pytest.raises(ContentError) as failure:
        launch([sys.executable, "-c", program], tmp_path, lock.fileno(), HF_TOKEN="plainword")
    assert "401 for (hidden)" in str(failure.value)


def test_json_of_a_command_has_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MY_API_KEY", "plainword")
    path = write_recipe(tmp_path, template="plainword", learning_rate="https://me:plainword2@host")
    path.write_text(path.read_text().replace("https://me:plainword2@host", "fast-plainword"))
    output = invoke(cli, "check", "--quick", "--json", path).output
    assert "plainword" not in output and json.loads(output.splitlines()[0])["problems"]


@pytest.mark.slow
def test_no_file_of_a_real_training_has_one(tmp_path: Path) -> None:
    """Not training_args.bin either, the trainer's own, in the folder and in each checkpoint."""
    make_tiny(tmp_path / "model")
    path = write_recipe(
        tmp_path, model_name_or_path="model", dataset="a", dataset_dir=".", output_dir="out", max_steps=2,
        save_steps=1, template="qwen", hf_hub_token=SECRET, bf16=False, report_to="none",
    )  # fmt: skip
    rows = [{"instruction": f"Is {number} even?", "input": "", "output": "yes"} for number in range(8)]
    write_json(tmp_path / "a.json", rows)
    command = [Path(sys.executable).with_name("tuneyard"), "recipe", "train", path, f"hub_token={SECRET}"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert SECRET not in done.stdout + done.stderr
    path.unlink()
    files = [file for file in tmp_path.rglob("*") if file.is_file()]
    assert (tmp_path / "out/checkpoint-1/training_args.bin") in files
    assert [file for file in files if SECRET.encode() in file.read_bytes()] == []
