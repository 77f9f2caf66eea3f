"""`tuneyard demo`: which steps run again, and whose files it leaves alone.

The steps only write their files here; tests/integration/test_demo.py runs them for real.
"""

import json
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
from click.testing import CliRunner

from tests.messages import raises
from tuneyard.core.cli import demo
from tuneyard.core.cli.main import cli as tuneyard
from tuneyard.core.errors import ContentError, RequestError, TuneyardError

Calls = list[list[str]]
Demo = Callable[..., Calls]
TRAINED = {name: f"recipe train recipes/demo-{name}.yaml" for name in ("rte", "mnli")}
FLAT_TOP = {"best": "rte=1,mnli=1", "not_shown_worse": ["base"], "comparisons": [{}, {}]}
JUDGED = ["adapter merge", "eval compare", "eval sweep"]


def write_result(words: Sequence[str]) -> None:
    """Write what a step's command leaves behind."""
    base = json.dumps({"dtype": "bfloat16"})
    table = "Ship rte.\n\n| accuracy | mean |\n| --- | --- |\n| base | 41.4 % |\n\n| other | x |\n"
    accuracy = json.dumps({"accuracy": 0.5})
    files = {
        "recipe base": {"models/demo-base/origin.json": "{}", "models/demo-base/config.json": base},
        "data compile": {f"dataset_info/{words[2]}/manifest.json": "{}"},
        "recipe train": {f"saves/{Path(words[2]).stem}/training.json": "{}"},
        "eval sweep": {
            "results/demo/base/demo_rte_eval/results.json": accuracy,
            "results/demo/base/demo_mnli_eval/results.json": accuracy,
            "results/demo/base/demo_mnli_eval/predictions.jsonl": "{}",
            "results/demo/merge.yaml": "adapters: [saves/demo-rte=1]\n",
            "results/demo/sweep.json": json.dumps({"points": {"base": [0, 0]}, "flat_top": FLAT_TOP}),
        },
        "adapter merge": {"saves/demo-merge/adapter_config.json": "{}"},
        "eval compare": {
            "results/demo/verdict/table.md": table,
            "results/demo/verdict/table.json": "{}",
        },
    }
    for name, text in files[" ".join(words[:2])].items():
        Path(name).parent.mkdir(parents=True, exist_ok=True)
        Path(name).write_text(text)


@pytest.fixture
def run_demo(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Demo:
    """Run the demo in an empty folder; the result is the commands that it started."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(demo, "need", lambda *_modules: None)

    def run(*options: str, fails_at: str = "") -> Calls:
        calls: Calls = []

        def execute(words: Sequence[str], _title: str) -> None:
            calls.append(list(words))
            if fails_at and fails_at in " ".join(words):
                raise ContentError("killed")
            write_result(words)

        monkeypatch.setattr(demo, "_execute", execute)
        ended = CliRunner().invoke(tuneyard, ["demo", *options])
        if isinstance(ended.exception, TuneyardError):
            if not fails_at:
                raise ended.exception
        else:
            assert ended.exit_code == 0, ended.output
            assert "Ship rte." in ended.output
            assert "results/demo/verdict/report.html" in ended.output
            assert len(ended.output.splitlines()) < 80
        return calls

    return run


def names(calls: Calls) -> list[str]:
    return [" ".join(words[:2]) for words in calls]


def test_every_step_runs_once(run_demo: Demo) -> None:
    first = run_demo()
    assert len(first) == 8
    assert first[5][-2:] == ["--dtype", "bf16"] and "--grid" not in first[5]
    assert "1 of the 2 other pairs are not shown to be worse than rte=1,mnli=1" in demo.pair_lines()[-1]
    assert run_demo() == []


@pytest.mark.parametrize(
    ("lost", "expected"),
    [
        ("saves/demo-mnli", [TRAINED["mnli"]]),
        ("models/demo-base", ["recipe base --out", *TRAINED.values()]),
        ("dataset_info/demo_rte", ["data compile demo_rte", TRAINED["rte"]]),
        ("results/demo/sweep.json", []),
    ],
)
def test_a_lost_result_is_made_again_with_all_that_uses_it(
    run_demo: Demo, tmp_path: Path, lost: str, expected: list[str]
) -> None:
    run_demo()
    (tmp_path / lost).rename(tmp_path / "aside")
    calls = run_demo()
    assert sorted(name for name in names(calls) if name in JUDGED) == JUDGED
    others = [" ".join(words[:3]) for words in calls if " ".join(words[:2]) not in JUDGED]
    assert sorted(others) == sorted(expected)
    assert run_demo() == []


def test_the_merge_of_an_earlier_sweep_is_not_named(run_demo: Demo) -> None:
    run_demo()
    assert "demo-merge" in demo.result_lines(Path())[-1]
    demo.WEIGHTS.unlink()
    assert "demo-merge" not in demo.result_lines(Path())[-1]


def test_a_sweep_that_was_cut_off_is_resumed_and_an_outdated_one_starts_anew(run_demo: Demo) -> None:
    assert names(run_demo(fails_at="eval sweep"))[-1] == "eval sweep"
    Path("results/demo").mkdir(exist_ok=True)
    resumed = run_demo()
    assert names(resumed) == ["eval sweep", "adapter merge", "eval compare"]
    assert resumed[0][-1] == "--resume"
    shutil.rmtree("saves/demo-rte")
    again = run_demo()
    assert names(again) == ["recipe train", "eval sweep", "adapter merge", "eval compare"]
    assert again[1][-1] == "--force"


def test_a_step_that_was_cut_off_runs_again(run_demo: Demo) -> None:
    assert names(run_demo(fails_at="demo-mnli.yaml")) == [
        "recipe base", "data compile", "data compile", "recipe train", "recipe train",
    ]  # fmt: skip
    assert names(run_demo()) == ["recipe train", "eval sweep", "adapter merge", "eval compare"]


def test_another_model_is_trained_and_scored_again_without_the_bundled_one(
    run_demo: Demo, tmp_path: Path
) -> None:
    run_demo()
    model = tmp_path / "mine"
    model.mkdir()
    (model / "config.json").write_text("{}")
    calls = run_demo("--model", "mine")
    assert names(calls) == ["recipe train", "recipe train", "eval sweep", "adapter merge", "eval compare"]
    assert f"model_name_or_path={model}" in calls[0] and "--dtype" not in calls[2]
    assert run_demo("--model", str(model)) == []
    (model / "config.json").write_text('{"changed": true}')
    assert len(run_demo("--model", "mine")) == 5


def test_a_changed_recipe_trains_again(run_demo: Demo, tmp_path: Path) -> None:
    run_demo()
    (tmp_path / "recipes").mkdir()
    (tmp_path / "recipes/demo-rte.yaml").write_text("learning_rate: 1.0e-4\n")
    assert names(run_demo()) == ["recipe train", "eval sweep", "adapter merge", "eval compare"]


@pytest.mark.parametrize("folder", ["results/demo", "saves/demo-merge"])
def test_a_folder_of_the_user_stays(run_demo: Demo, tmp_path: Path, folder: str) -> None:
    (tmp_path / folder).mkdir(parents=True)
    (tmp_path / folder / "mine.txt").write_text("mine")
    with raises(RequestError, folder, "--out"):
        run_demo()
    assert (tmp_path / folder / "mine.txt").read_text() == "mine"
    assert not (tmp_path / "models").exists()
    assert len(run_demo("--out", "elsewhere")) == 8


def test_a_dry_run_lists_the_steps_and_makes_nothing(run_demo: Demo, tmp_path: Path) -> None:
    runner = CliRunner()
    listed = runner.invoke(tuneyard, ["demo", "--dry-run"]).stdout.splitlines()
    assert [line.split()[0] for line in listed] == ["to"] * 8 and not any(tmp_path.iterdir())
    run_demo()
    shutil.rmtree("saves/demo-mnli")
    listed = runner.invoke(tuneyard, ["demo", "--dry-run"]).stdout.splitlines()
    assert [line.split()[0] for line in listed] == ["made"] * 4 + ["to"] * 4


def test_two_demos_do_not_run_in_one_folder(run_demo: Demo, tmp_path: Path) -> None:
    demo.NOTES.mkdir(parents=True)
    with demo._alone(), raises(RequestError, "another", "--out"):
        run_demo()


def test_the_log_and_its_last_lines_are_shown_if_a_step_fails(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    demo.NOTES.mkdir(parents=True)
    with raises(ContentError, str(demo.LOG.resolve()), 2, "absent_name"):
        demo._execute(["data", "compile", "absent_name"], "")
    assert "$ tuneyard data compile absent_name" in demo.LOG.read_text()
