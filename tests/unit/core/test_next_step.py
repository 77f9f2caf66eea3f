"""The last two lines of a command: where its result is, and the next command, which runs as it is printed."""

import contextlib
import json
import shlex
import shutil
from pathlib import Path

import click
import pytest
from click.testing import Result

from testing.commands import commands
from tests.cli.scoring import invoke
from tests.conftest import ROOT
from tests.fake_runs import demo as write_demo_runs
from tests.json_files import write_json, write_lines
from tests.unit.adapters.make import base_tensors, factors, make, make_base
from tuneyard.cli import cli
from tuneyard.compiler.init.recipe_command import next_recipe
from tuneyard.core.cli.main import TuneyardCommand, next_step, same_options, up_to_date
from tuneyard.core.datasets import DEFAULT_FOLDER, REGISTRY
from tuneyard.recipes.output_dir.after_training import after_training
from tuneyard.recipes.recipe import read_recipe

RECIPE = "recipes/demo-rte.yaml model_name_or_path=me/model"
QUESTIONS = [{"question": f"Question {n}?", "answer": f"Answer {n}."} for n in range(40)]


def tuneyard(*words: object, code: int = 0) -> Result:
    ended = invoke(cli, *words, prog_name="tuneyard")
    assert ended.exit_code == code, f"{words}\n{ended.output}{ended.exception!r}"
    return ended


def last_lines(result: Result) -> tuple[str, str]:
    """The place of the result ("" if the command names its files itself), and the next command."""
    lines = result.stderr.splitlines()
    place = next((line.removeprefix("result: ") for line in lines if line.startswith("result: ")), "")
    (command,) = [line.removeprefix("next: ") for line in lines if line.startswith("next: ")]
    assert lines[-1] == f"next: {command}"
    for part in command.split(" && "):
        require_accepted(part)
    return place, command


def require_accepted(command: str) -> None:
    """Parse a printed command line with the real commands: names, options and their types."""
    program, *words = shlex.split(command)
    assert program == "tuneyard"
    group: click.Command = cli
    context = click.Context(cli, info_name="tuneyard")
    while isinstance(group, click.Group):
        name, inner, words = group.resolve_command(context, words)
        assert inner is not None, command
        group = inner
        context = click.Context(inner, info_name=name, parent=context)
    with context:
        group.parse_args(context, words)


@pytest.fixture(scope="module")
def demo_rte(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in which the dataset demo_rte is compiled."""
    compiled = tmp_path_factory.mktemp("compiled")
    with contextlib.chdir(compiled):
        tuneyard("data", "compile", "demo_rte", "-q")
    return compiled


@pytest.fixture
def with_demo_rte(working_folder: Path, demo_rte: Path) -> Path:
    """A working folder in which the dataset demo_rte is compiled."""
    shutil.copytree(demo_rte, working_folder, dirs_exist_ok=True)
    return working_folder


@pytest.mark.parametrize("context", [*commands()], ids=lambda context: context.command_path)
def test_every_command_has_quiet_and_lang(context: click.Context) -> None:
    assert isinstance(context.command, TuneyardCommand)
    names = [name for option in context.command.get_params(context) for name in option.opts]
    assert names.count("-q") == names.count("--quiet") == names.count("--lang") == 1


def test_from_a_file_to_a_recipe_by_the_printed_commands(working_folder):
    write_lines(working_folder / "my rows.jsonl", QUESTIONS)
    result = tuneyard("data", "init", "my rows.jsonl", "--out", "mine.yaml", "--split", "0.2")
    command = next(line for line in result.stderr.splitlines() if line.startswith("next: "))
    compiled = tuneyard(*shlex.split(command.removeprefix("next: "))[1:], "--dataset-dir", "my data")
    _, command = last_lines(compiled)
    verify, check = command.split(" && ")
    assert verify == "tuneyard data verify mine --dataset-dir 'my data'"
    assert check == (
        "tuneyard recipe check recipes/sft-lora.yaml dataset=mine_train output_dir=saves/mine "
        "'dataset_dir=my data'"
    )
    checked = tuneyard(*shlex.split(check)[1:], "--quick")
    assert checked.exit_code == 0


def test_after_verify_comes_a_recipe_for_the_dataset_that_is_trained(with_demo_rte):
    expected = ["tuneyard", "recipe", "check", "recipes/demo-rte.yaml"]
    assert next_recipe(["demo_rte_eval", "demo_rte_train"], DEFAULT_FOLDER) == expected
    assert next_recipe(["demo_rte_eval"], DEFAULT_FOLDER) == []


def test_for_a_model_that_is_named_a_new_recipe_is_made(working_folder: Path) -> None:
    write_json(working_folder / REGISTRY, {"whole": {"file_name": "a.json"}})
    assert next_recipe(["whole"], working_folder, "models/x") == [
        *("tuneyard", "recipe", "new", "--dataset", "whole", "--model", "models/x"),
        *("--dataset-dir", str(working_folder), "--out", "whole-lora.yaml"),
    ]


@pytest.mark.parametrize(
    ("overrides", "following"),
    [
        ([], "eval nli --model models/demo-base --adapter saves/demo-rte --dataset demo_rte_eval --out"),
        (
            ["eval_dataset=absent"],
            "eval nli --model models/demo-base --adapter saves/demo-rte --dataset",
        ),
        (["finetuning_type=full"], "eval nli --model saves/demo-rte --dataset demo_rte_eval --out"),
        (["stage=pt"], "eval text --model models/demo-base --adapter saves/demo-rte --dataset demo_rte_eval"),
        (["finetuning_type=full", "stage=ppo"], "eval chat --model saves/demo-rte"),
        (["stage=rm", "eval_strategy=steps"], "recipe best saves/demo-rte --metric eval_accuracy"),
        (["stage=rm"], "adapter show saves/demo-rte"),
        (
            ["finetuning_type=oft"],
            "adapter fuse saves/demo-rte --base models/demo-base --out models/",
        ),
        (["use_dora=true"], "adapter fuse saves/demo-rte --base models/demo-base --out models/"),
        (["pissa_init=true"], "recipe train"),
        (
            ["pissa_init=true", "pissa_convert=true"],
            "eval nli --model models/demo-base --adapter saves/demo-rte/pissa_converted --dataset",
        ),
    ],
)
def test_after_a_training_the_adapter_is_scored(with_demo_rte, overrides, following):
    words = after_training(read_recipe(Path("recipes/demo-rte.yaml"), overrides))
    require_accepted(shlex.join(words))
    assert shlex.join(words).startswith(f"tuneyard {following}")


def test_after_a_pissa_training_without_conversion_comes_one_with_it() -> None:
    overrides = ["pissa_init=true", "output_dir=saves/p"]
    words = after_training(read_recipe(Path("recipes/demo-rte.yaml"), overrides))
    assert words[-3:] == ["pissa_init=true", "pissa_convert=true", "output_dir=saves/p-converted"]


@pytest.mark.parametrize(
    ("words", "place", "following"),
    [
        ("data check demo_rte --limit 9 --dataset-dir 'a b'", "", "data compile demo_rte --limit 9"),
        ("data list", "", "data verify demo_rte_train"),
        ("data show demo_rte", "", "data compile demo_rte"),
        ("data stats demo_rte_train", "", "data verify demo_rte_train"),
        ("data diff demo_rte_train demo_rte_train", "", "data stats demo_rte_train"),
        ("data remove demo_rte", "", "data list"),
        (f"recipe check --quick --for cpu {RECIPE}", "", "recipe train"),
        ("adapter show saves/a saves/b", "", "adapter merge saves/a=0.5 saves/b=0.5 --out"),
        ("adapter show saves/a", "", "adapter export saves/a --to ollama"),
        ("adapter merge saves/a=1 saves/b=1 --out saves/m", "saves/m", "adapter show saves/m"),
        (
            "adapter merge a=1 b=1 --out saves/n --base B --same-base",
            "saves/n",
            "adapter fuse saves/n --base B --out",
        ),
        ("doctor", "", "demo"),
        ("demo --dry-run", "", "demo"),
    ],
)
def test_the_place_and_the_next_command(with_demo_rte, words, place, following):
    make("saves/a", factors(1))
    make("saves/b", factors(2))
    make_base("B", base_tensors())
    write_demo_runs(with_demo_rte / "results/demo")
    (with_demo_rte / "results/demo/merge.yaml").write_text("adapters: [a=1]\n")
    result = tuneyard(*shlex.split(words))
    printed_place, command = last_lines(result)
    assert printed_place.startswith(place) and bool(printed_place) == bool(place)
    assert command.startswith(f"tuneyard {following}")
    assert "next:" not in result.stdout


@pytest.mark.parametrize("words", ["data compile demo_rte", "data check demo_rte", "data list", "doctor"])
def test_quiet_leaves_both_lines_out(working_folder: Path, words: str) -> None:
    output = tuneyard(*words.split(), "-q").output
    for text in ("next: ", "result: ", "files: ", "registered in"):
        assert text not in output


def test_json_has_neither_line(working_folder: Path) -> None:
    result = tuneyard("data", "compile", "demo_rte", "--json")
    assert json.loads(result.stdout)["kept"] == 1500
    assert result.stderr == ""


def test_a_command_that_fails_has_no_next_command(working_folder: Path) -> None:
    ended = invoke(cli, "data", "compile", "absent")
    assert ended.exit_code != 0 and "next: " not in ended.output


def test_the_same_options_are_those_of_the_command_line() -> None:
    @click.command(cls=TuneyardCommand)
    @click.option("--source", multiple=True)
    @click.option("--out", "--dataset-dir", default="x")
    @click.option("--duplicates/--no-duplicates", default=True)
    @click.option("--strict", is_flag=True)
    @click.option("--limit", type=int, default=3)
    def command(**_options: object) -> None:
        names = ("--source", "--dataset-dir", "--duplicates", "--strict", "--limit")
        next_step("out dir", ["tuneyard", *same_options(*names)])

    words = ["--source", "a b", "--source", "c", "--no-duplicates", "--strict", "--out", "d"]
    assert invoke(command, *words).stderr.splitlines() == [
        "result: out dir",
        "next: tuneyard --source 'a b' --source c --dataset-dir d --no-duplicates --strict",
    ]
    assert invoke(command).stderr.splitlines() == ["result: out dir", "next: tuneyard"]


@pytest.mark.parametrize(
    ("words", "stdout", "stderr"),
    [
        ((), ["out/rte: up to date"], ["next: tuneyard adapter show out/rte"]),
        (["-q"], ["out/rte: up to date"], []),
        (["--json"], [], []),
    ],
)
def test_a_command_with_nothing_to_do_says_so(
    words: list[str], stdout: list[str], stderr: list[str], working_folder: Path
) -> None:
    @click.command(cls=TuneyardCommand)
    @click.option("--json", "as_json", is_flag=True)
    def command(**_options: object) -> None:
        place = working_folder / "out/rte"
        up_to_date(place, ["tuneyard", "adapter", "show", Path("out/rte")])

    ended = invoke(command, *words)
    assert (ended.stdout.splitlines(), ended.stderr.splitlines()) == (stdout, stderr)


def test_paths_below_the_folder_are_written_from_it(working_folder):
    write_lines(working_folder / "rows.jsonl", QUESTIONS)
    result = tuneyard(
        "data", "compile", "qa", "--source", working_folder / "rows.jsonl", "--out", working_folder / "new"
    )
    assert result.exit_code == 0 and str(working_folder) not in result.output
    assert "rows.jsonl: using column" in result.stderr and "files: new/qa/qa.json" in result.output


def test_a_merge_is_scored_with_its_adapters_on_what_they_were_trained_for(with_demo_rte):
    for name in ("a", "b"):
        folder = make(f"saves/{name}", factors(1), base_model_name_or_path="models/base")
        card = "This model is a fine-tuned version of [m](m) on the demo_rte_train dataset."
        (folder / "README.md").write_text(card)
    result = tuneyard("adapter", "merge", "a=0.5", "b=0.5", "--out", "saves/m")
    assert last_lines(result) == (
        "saves/m",
        "tuneyard eval nli --model models/base --adapter a --adapter b --adapter saves/m "
        "--dataset demo_rte_eval --out results/m",
    )


def test_the_list_proposes_a_dataset_that_is_registered(working_folder):
    """`defect` also writes train.jsonl in the document's own form, which is no dataset of LLaMA-Factory's."""
    tuneyard("data", "compile", "defect", "--source", ROOT / "tests/examples/good/defect")
    listed = tuneyard("data", "list")
    assert last_lines(listed)[1] == "tuneyard data verify defect_train"
    Path("other").mkdir()
    entries = {"far": {"hf_hub_url": "a/b"}, "gone": {"file_name": "x.json"}}
    write_json(Path("other") / REGISTRY, entries)
    listed = tuneyard("data", "list", "--out", "other")
    assert last_lines(listed)[1] == "tuneyard data compile demo_rte --dataset-dir other"
