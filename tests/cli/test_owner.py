"""Whose an output folder is: no command of eval deletes, or offers to delete, what another command scored."""

from pathlib import Path

import pytest

from testing.tiny import write_adapter
from tests.cli.scoring import call, cli_of, even_rows
from tests.json_files import write_json
from tests.messages import raises
from tests.runs_cut import tree
from tuneyard.core.errors import RequestError
from tuneyard.core.files import HeldError, reserved
from tuneyard.eval import nli, suite
from tuneyard.eval.__main__ import COMMANDS
from tuneyard.eval.ab import __main__ as ab
from tuneyard.eval.scoring.command import ScoringCommand
from tuneyard.eval.sweep import __main__ as sweep

pytestmark = pytest.mark.usefixtures("unrendered")
NAMES = ("ab", "cmmlu", "defect", "dialogue", "nli", "preference", "qa", "text", "tools")
ROWS = even_rows(6)


@pytest.fixture
def rows(tmp_path: Path) -> Path:
    path = tmp_path / "rows.json"
    write_json(path, ROWS)
    return path


def scored_by(command: str, out: Path) -> Path:
    """Write what a command's run begins with and one finished dataset."""
    (out / "base/rows").mkdir(parents=True)
    (out / "base/rows/results.json").write_text("{}")
    identity = {"settings": {"command": command}, "models": {"base": ""}, "datasets": {"rows": ""}}
    write_json(out / "run.json", identity)
    return out


def test_every_scoring_command_is_covered() -> None:
    commands = {name: cli_of(name) for name in COMMANDS}
    commands["ab"] = ab.ask
    scoring = {name: one for name, one in commands.items() if isinstance(one, ScoringCommand)}
    assert sorted(scoring) == sorted(NAMES)
    assert {one.module for one in scoring.values()} == {f"eval.{name}" for name in NAMES}


@pytest.mark.parametrize("name", [*NAMES, "sweep", "suite"])
def test_force_over_another_commands_run_is_refused(name, tmp_path) -> None:
    owner = "qa" if name == "nli" else "nli"
    out = scored_by(f"eval.{owner}", tmp_path / "out")
    before = tree(out)
    command = cli_of(name)
    arguments = ["--model", tmp_path, "--out", out, "--force"]
    if name == "suite":
        steps = tmp_path / "suite.yaml"
        steps.write_text("base: {command: nli, data: rows.json}")
        arguments.insert(0, steps)
    with raises(RequestError, "1", owner):
        call(command, *arguments)
    assert tree(out) == before


def test_a_sweep_is_left_alone_by_nli_and_starts_anew_by_itself(tiny_model, rows, tmp_path) -> None:
    adapter = write_adapter(tmp_path / "left")
    given = ["--model", tiny_model, "--data", rows, "--out", tmp_path / "out"]
    swept = [*given, "--adapter", f"l={adapter}", "--grid", "0,1"]
    call(sweep.cli, *swept)
    before = tree(tmp_path / "out")
    assert {"points.json", "table.md", "rows.png"} <= before.keys()
    for how in ([], ["--resume"], ["--force"]):
        with raises(RequestError, "tuneyard eval sweep", "4") as refused:
            call(nli.cli, *given, *how)
        assert "--force" not in str(refused.value)
    assert tree(tmp_path / "out") == before
    call(sweep.cli, *swept, "--force")
    assert tree(tmp_path / "out") == before


@pytest.mark.parametrize("how", ["--resume", "--force"])
def test_a_run_that_another_process_writes_is_left_alone(tiny_model, rows, tmp_path, how) -> None:
    given = ["--model", tiny_model, "--data", rows, "--out", tmp_path / "out"]
    call(nli.cli, *given)
    next((tmp_path / "out").rglob("results.json")).unlink()
    before = tree(tmp_path / "out")
    with reserved(tmp_path / "out"), raises(HeldError, "another command"):
        call(nli.cli, *given, how)
    assert tree(tmp_path / "out") == before


def test_a_suite_is_left_alone_by_the_command_of_its_step(tiny_model, rows, tmp_path) -> None:
    steps = tmp_path / "suite.yaml"
    steps.write_text("even: {command: nli, data: rows.json}")
    out = tmp_path / "out"
    call(suite.cli, steps, "--model", tiny_model, "--out", out)
    before = tree(out)
    for folder in (out, out / "even"):
        with raises(RequestError, "tuneyard eval suite", "1"):
            call(nli.cli, "--model", tiny_model, "--data", rows, "--out", folder, "--force")
    assert tree(out) == before
    call(suite.cli, steps, "--model", tiny_model, "--out", out, "--force")
    assert tree(out) == before
