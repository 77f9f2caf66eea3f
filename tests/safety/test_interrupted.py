"""Deleted folders under a command, and what an interrupted one left. SECURITY.md, "Interruptions"."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.cli.scoring import invoke
from tests.conftest import ROOT
from tests.folders import names
from tests.json_files import write_json, write_lines
from tuneyard.adapters.model.store import adapters_in, open_adapter
from tuneyard.compiler.cli import cli
from tuneyard.core.datasets.compiled import MANIFEST, read_manifests
from tuneyard.core.errors import TuneyardError
from tuneyard.core.language.message import relative
from tuneyard.eval.data.origin import compiles_for
from tuneyard.eval.runs.find import find_scored_runs
from tuneyard.eval.runs.results import PredictionLog, begin_scoring_run
from tuneyard.eval.scoring import found_here
from tuneyard.eval.scoring.found_here import adapter_folders
from tuneyard.recipes.output_dir.curve import read_curve


@pytest.mark.parametrize(
    ("words", "code"),
    [
        ("data list", 2),
        ("data check x.csv", 2),
        ("recipe check /nowhere.yaml", 2),
        ("eval compare a --out b", 2),
        ("adapter list", 2),
        ("doctor", 2),
        ("nonsense", 2),
        ("data check --help", 0),
    ],
)
def test_a_deleted_current_folder_is_one_clear_line(tmp_path: Path, words: str, code: int) -> None:
    folder = tmp_path / "gone"
    folder.mkdir()
    program = f'rmdir "$PWD" && exec {sys.executable} -m tuneyard {words}'
    environment = {**os.environ, "PWD": str(folder), "PYTHONPATH": str(ROOT), "LC_ALL": "C.UTF-8"}
    done = subprocess.run(
        ["sh", "-c", program], cwd=folder, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == code, done.stderr
    if code:
        assert done.stderr.startswith(f"error: {folder}: ") and len(done.stderr.splitlines()) == 1


def test_a_message_is_printed_after_the_current_folder_was_deleted(tmp_path, monkeypatch) -> None:
    folder = tmp_path / "gone"
    folder.mkdir()
    monkeypatch.chdir(folder)
    folder.rmdir()
    assert relative(folder / "a") == f"{folder}/a"


MARK = ".tuneyard-0123456789abcdef"
KILLED = f".rte{MARK}"
"""What a killed command staged. It may have every file but the last, or half of one."""


def test_nobody_reads_what_a_killed_command_staged(working_folder: Path) -> None:
    for file in (
        f"dataset_info/{KILLED}/{MANIFEST}",
        f"saves/{KILLED}/adapter_config.json",
        f"saves/run/{KILLED}/adapter_config.json",
        f"saves/{KILLED}/trainer_state.json",
        f"models/{KILLED}/config.json",
        f"models/{KILLED}/model.safetensors",
        f"results/{KILLED}/results.json",
        f"results/model/{KILLED}/results.json",
    ):
        Path(file).parent.mkdir(parents=True, exist_ok=True)
        Path(file).write_text('{"half')
    assert read_manifests(Path("dataset_info")) == {} and compiles_for(Path("x.json"), None) == []
    assert adapters_in(Path("saves")) == adapters_in(Path("saves/run")) == "" and adapter_folders() == []
    assert found_here._model_here() is None
    for read in (
        lambda: open_adapter("nope"),
        lambda: read_curve(Path("saves"), "eval_loss"),
        lambda: find_scored_runs(Path("results")),
    ):
        with pytest.raises(TuneyardError) as refused:
            read()
        assert KILLED not in str(refused.value)


def test_a_users_swap_file_beside_results_stays(tmp_path: Path) -> None:
    """`.run.json.*` was deleted: vim has the unsaved text of run.json in .run.json.swp."""
    out = tmp_path / "out"
    (out / "base/rte").mkdir(parents=True)
    mine = {out / ".run.json.swp", out / "base/rte/.results.json.swp", out / "base/rte/.predictions.jsonl.1"}
    left = {
        out / ".run.json.tuneyard-0123456789abcdef",
        out / "base/rte/.metrics.json.tuneyard-00000000000000ff",
    }
    for path in mine | left:
        path.write_text("x")
    identity = {"settings": {"command": "eval.nli"}, "models": {"base": "1"}, "datasets": {"rte": "1"}}
    begin_scoring_run(out, identity, force=False)
    PredictionLog(out / "base/rte", [[0]])
    assert names(out) == [".run.json.swp", "base", "run.json"]
    assert names(out / "base/rte") == [".predictions.jsonl.1", ".results.json.swp", "predictions.jsonl"]


def test_a_list_of_datasets_changes_nothing_in_a_mailed_folder(working_folder: Path) -> None:
    rows = [{"sentence1": f"{n}", "sentence2": "b", "label": n % 2, "idx": n} for n in range(4)]
    write_lines(Path("rte.jsonl"), rows)
    words = ["compile", "rte", "--source", "train=rte.jsonl", "--out", "mailed"]
    assert invoke(cli, *words).exit_code == 0
    Path("mailed/dataset_info.json").write_text("{}")
    for name in (KILLED, ".y.tuneyard-old"):
        Path("mailed", name).mkdir()
    before = names("mailed")
    listed = invoke(cli, "list", "--out", "mailed")
    assert "4 rows  rte" in listed.stdout and "stale: dataset_info.json lacks its entry" in listed.stdout
    assert names("mailed") == before and Path("mailed/dataset_info.json").read_text() == "{}"
    assert invoke(cli, *words).exit_code == 0
    assert names("mailed") == ["dataset_info.json", "rte"]
    assert "stale" not in invoke(cli, "list", "--out", "mailed").stdout


def test_hidden_folders_and_files_of_a_source_have_no_rows(working_folder: Path) -> None:
    rows = [{"sentence1": f"{n}", "sentence2": "b", "label": n % 2, "idx": n} for n in range(4)]
    files = (
        "train/a.jsonl",
        "train/.b.jsonl",
        f"train/.c.jsonl{MARK}",
        f".train{MARK}/a.jsonl",
        ".eval/a.jsonl",
    )
    for name in files:
        Path("source", name).parent.mkdir(parents=True, exist_ok=True)
        write_lines(Path("source", name), rows)
    checked = invoke(cli, "check", "rte", "--source", "source")
    assert "rte  read 4  kept 4  " in checked.stdout and "eval" not in checked.stderr

    message = [{"type": "message", "user": "U1", "text": "hi", "ts": "1.0"}]
    for channel in ("general", f".general{MARK}"):
        Path("slack", channel).mkdir(parents=True)
        write_json(Path("slack", channel, "2024-01-01.json"), message * 3)
    write_json(Path("slack/channels.json"), [])
    proposed = invoke(cli, "init", "slack")
    assert "read 3  kept 3" in proposed.stderr and MARK not in proposed.stderr
