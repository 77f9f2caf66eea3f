"""python -m eval.compare as a user runs it."""

import json
import os
from pathlib import Path

import pytest

from eval.compare import cli
from tests.conftest import ROOT, Run
from tests.fake_runs import answers, demo, write_run

GOLDEN = ROOT / "tests" / "golden" / "compare" / "demo.md"
PLOTS = [
    "accuracy.png",
    "calibration.png",
    "confusion.png",
    "model_comparison.png",
    "overall_accuracy_comparison.png",
    "type_accuracy_comparison.png",
]


def test_the_demo_page_is_golden(run: Run, tmp_path: Path) -> None:
    demo(tmp_path)
    done = run("-X", "importtime", "-m", "eval.compare", tmp_path, "--out", tmp_path)
    assert (
        done.stdout
        == GOLDEN.read_text(encoding="utf-8")
        == (tmp_path / "table.md").read_text(encoding="utf-8")
    )
    assert json.loads((tmp_path / "table.json").read_text())["mean"]["ship"] == "mnli"
    assert (tmp_path / "accuracy.png").read_bytes().startswith(b"\x89PNG")
    assert "accuracy.png, demo_mnli_eval/confusion.png, demo_mnli_eval/calibration.png," in done.stderr
    imported = {line.rpartition("|")[2].strip() for line in done.stderr.splitlines()}
    assert "numpy" in imported and not {"torch", "transformers", "scipy", "pandas"} & imported


def test_typed_runs_get_the_three_plots(run: Run, tmp_path: Path) -> None:
    gold = ["网络", "主机", "存储"] * 20
    for model, right in [("before", 20), ("after", 50)]:
        kinds = {"subtype": ["网卡故障", "主板故障", "硬盘故障", "网络丢包"] * 15}
        write_run(tmp_path / model, model, "defect", gold, answers(gold, right, right), kinds=kinds)
    done = run("-m", "eval.compare", tmp_path / "before", tmp_path / "after", "--out", tmp_path / "ab")
    assert sorted(path.name for path in (tmp_path / "ab").glob("*.png")) == PLOTS
    assert "Ship after" in done.stdout and "Glyph" not in done.stderr


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["nowhere", "--out", "{out}"], 2, "nowhere: results not found"),
        (["{tmp}", "--out", "{out}"], 2, "no results.json here or two levels below"),
        ([], 2, "Missing argument"),
        (["{tmp}"], 2, "Missing option '--out'"),
    ],
)
def test_requests_that_cannot_be_served(
    run: Run, tmp_path: Path, arguments: list[str], code: int, message: str
) -> None:
    out = tmp_path / "out"
    done = run("-m", "eval.compare", *(a.format(tmp=tmp_path, out=out) for a in arguments), code=code)
    assert message in done.stderr and not done.stdout
    assert not out.exists()


def test_damaged_runs_write_nothing(run: Run, tmp_path: Path) -> None:
    demo(tmp_path / "runs")
    path = tmp_path / "runs" / "rte" / "demo_rte_eval" / "predictions.jsonl"
    path.write_bytes(path.read_bytes()[:-9])
    done = run("-m", "eval.compare", tmp_path / "runs", "--out", tmp_path / "out", code=1)
    assert f"{path}:300: no JSON object" in done.stderr and not (tmp_path / "out").exists()


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_that_cannot_be_written(run: Run, tmp_path: Path) -> None:
    demo(tmp_path / "runs")
    (tmp_path / "closed").mkdir(mode=0o500)
    done = run("-m", "eval.compare", tmp_path / "runs", "--out", tmp_path / "closed" / "x", code=2)
    assert "Permission denied" in done.stderr


def test_a_file_in_the_place_of_out(tmp_path: Path) -> None:
    demo(tmp_path / "runs")
    (tmp_path / "file").write_text("mine")
    with pytest.raises(OSError, match="file"):
        cli.main([str(tmp_path / "runs"), "--out", str(tmp_path / "file")], standalone_mode=False)
    assert (tmp_path / "file").read_text() == "mine"
