"""--dataset-dir: every command of `eval` that looks datasets up takes the folder of their registry."""

import sys
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

from tests.cli.scoring import PAIRS, call, results
from tests.json_files import write_json
from tests.messages import raises
from tuneyard.cli import cli
from tuneyard.core.errors import RequestError
from tuneyard.eval.nli import cli as nli
from tuneyard.eval.suite import cli as suite
from tuneyard.recipes.output_dir.after_training import after_training
from tuneyard.recipes.recipe import read_recipe

OWN_WORDS = {"prove": ["--fused", "fused"]}
"""Options without which a command refuses to begin."""


def scoring_commands() -> Iterator[click.Command]:
    """Walk the commands of `tuneyard eval`: those that take datasets, or run commands that do."""
    group = cli.get_command(click.Context(cli), "eval")
    assert isinstance(group, click.Group)
    context = click.Context(group)
    for name in group.list_commands(context):
        command = group.get_command(context, name)
        assert command is not None
        for each in command.commands.values() if isinstance(command, click.Group) else [command]:
            flags = [flag for option in each.params for flag in option.opts]
            if {"--model", "--out"} <= set(flags) or "--dataset" in flags:
                yield each


COMMANDS = {str(command.name): command for command in scoring_commands()}


@pytest.fixture
def registry(tmp_path: Path) -> Path:
    """A registry in a folder of its own, with a dataset and its training split."""
    folder = tmp_path / "my data"
    folder.mkdir()
    entries = {}
    for name in ("pairs_eval", "pairs_train"):
        entries[name] = {"file_name": f"{name}.json"}
        records = [{**row, "instruction": f"{name}: {row['instruction']}"} for row in PAIRS]
        write_json(folder / f"{name}.json", records)
    write_json(folder / "dataset_info.json", entries)
    return folder


def test_the_walk_finds_the_commands() -> None:
    expected = {"ab", "cmmlu", "defect", "dialogue", "nli", "preference", "prove", "qa", "suite"}
    assert {*expected, "sweep", "text", "tools"} <= set(COMMANDS)


@pytest.mark.parametrize("name", COMMANDS)
def test_each_command_looks_datasets_up_there(name: str, registry: Path, tmp_path: Path) -> None:
    command = COMMANDS[name]
    flags = [flag for option in command.params for flag in option.opts]
    assert "--dataset-dir" in flags
    words = ["--model", "none", "--out", tmp_path / "out", *OWN_WORDS.get(name, [])]
    with raises(RequestError, tmp_path / "nowhere"):
        call(command, *words, "--dataset-dir", tmp_path / "nowhere")
    if "--dataset" in flags:
        with raises(RequestError, "absent", registry / "dataset_info.json", "pairs_eval"):
            call(command, *words, "--dataset", "absent", "--dataset-dir", registry)
    assert not (tmp_path / "out").exists()


def test_a_suite_gives_it_to_its_steps(registry: Path, tmp_path: Path) -> None:
    steps = tmp_path / "suite.yaml"
    steps.write_text("pairs: {command: nli, dataset: absent}\n")
    with raises(RequestError, registry / "dataset_info.json", "pairs_eval"):
        call(suite, steps, "--model", "none", "--out", tmp_path / "out", "--dataset-dir", registry)


def test_a_run_records_it_and_is_resumed_and_scored_again_with_it(
    registry: Path, working_folder: Path, tiny_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    words = ["--model", tiny_model, "--dataset", "pairs_eval", "--dataset-dir", registry, "--out", "old"]
    monkeypatch.setattr(sys, "argv", ["tuneyard", *map(str, words)])
    call(nli, *words, "--shots", "1")
    scored = Path("old/base/pairs_eval")
    figures = results(scored)
    assert figures["settings"]["dataset_dir"] == str(registry)
    assert results(Path("old/base (1 shot)/pairs_eval"))["shots"]["from"] == "pairs_train"
    (scored / "results.json").unlink()
    call(nli, *words, "--shots", "1", "--resume")
    assert results(scored) == figures
    call(nli, "--rescore", "old", "--out", "new")
    again = results(Path("new/base/pairs_eval"))
    assert again["n"] == figures["n"] and again["settings"]["dataset_dir"] == str(registry)


def test_a_training_on_another_folder_is_scored_with_it(registry: Path, working_folder: Path) -> None:
    recipe = working_folder / "recipe.yaml"
    recipe.write_text(
        "{model_name_or_path: base, stage: sft, finetuning_type: lora, dataset: pairs_train, "
        f"dataset_dir: '{registry}', output_dir: saves/pairs}}"
    )
    words = after_training(read_recipe(recipe, []))
    assert words[2] == "nli"  # no spec: the answers of the whole file are two labels
    assert words[words.index("--dataset-dir") + 1] == str(registry)
    assert words[words.index("--dataset") + 1] == "pairs_eval"
