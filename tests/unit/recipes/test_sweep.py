"""Grids, judged runs and the table over them, without a training."""

import json
import sys

import pytest

from core.errors import ContentError, RequestError
from recipes import sweep

GRID = {"lora_rank": ["4", "8"], "lora_alpha": ["8", "16"]}
ROWS = [
    {"lora_rank": rank, "lora_alpha": alpha, "eval_loss": int(rank) / int(alpha), "run": "x"}
    for rank in GRID["lora_rank"]
    for alpha in GRID["lora_alpha"]
]


def test_grid():
    assert sweep.parse_grid(["rank=4,8,4", "learning_rate=1e-4"]) == {
        "lora_rank": ["4", "8"],
        "learning_rate": ["1e-4"],
    }
    for wrong in ("rank", "rank=", "rnk=4"):
        with pytest.raises(RequestError, match="expected a setting and its values"):
            sweep.parse_grid([wrong])


def test_table_has_the_best_first():
    lines = sweep.table(ROWS, GRID, "eval_loss").splitlines()
    assert lines[0] == "| lora_rank | lora_alpha | eval_loss |"
    assert lines[2] == "| 4 | 16 | 0.2500 |"
    assert lines[-1] == "| 8 | 8 | 1.0000 |"
    assert sweep.table(ROWS, GRID, "eval_loss") != sweep.table(
        [{**row, "accuracy": row["eval_loss"]} for row in ROWS], GRID, "accuracy"
    )


def test_seeds_have_mean_and_deviation():
    rows = [{"seed": str(n), "train_loss": value, "run": "x"} for n, value in enumerate([1.0, 2.0, 3.0])]
    assert "mean 2.0000, standard deviation 1.0000 over 3 seeds" in sweep.table(
        rows, {"seed": []}, "train_loss"
    )


def test_judged_by_a_command_once(tmp_path):
    write = "import json, pathlib, sys; p = pathlib.Path(sys.argv[1], 'a/set'); p.mkdir(parents=True); "
    write += "(p / 'results.json').write_text(json.dumps({'accuracy': 0.75}))"
    assert sweep.judged(tmp_path, f'python -c "{write}" {{results}}', "accuracy") == 0.75
    assert sweep.judged(tmp_path, "false", "accuracy") == 0.75  # results are there: not judged again
    with pytest.raises(ContentError, match="no results.json with the number"):
        sweep.judged(tmp_path, "true", "f1")


def test_a_judge_that_fails(tmp_path):
    with pytest.raises(ContentError, match="the command that judges it failed"):
        sweep.judged(tmp_path, f"{sys.executable} -c 'raise SystemExit(3)'", "accuracy")


def test_judged_by_its_own_losses(tmp_path):
    history = [{"step": 1, "eval_loss": 2.0}, {"step": 2, "eval_loss": 1.5}, {"step": 3, "eval_loss": 1.75}]
    (tmp_path / "trainer_state.json").write_text(json.dumps({"log_history": history}))
    (tmp_path / "all_results.json").write_text(json.dumps({"train_loss": 0.5}))
    assert sweep.judged(tmp_path, None, "eval_loss") == 1.5
    assert sweep.judged(tmp_path, None, "train_loss") == 0.5


@pytest.mark.parametrize("metric", ["eval_loss", "accuracy"])
def test_a_run_that_diverged_is_the_last_of_the_table(tmp_path, metric):
    state = {"log_history": [{"step": 1, "eval_loss": float("nan")}]}
    (tmp_path / "trainer_state.json").write_text(json.dumps(state))
    scores = [sweep.judged(tmp_path, None, "eval_loss"), 2.0, 1.0]
    rows = [{"learning_rate": str(n), metric: score, "run": "x"} for n, score in enumerate(scores)]
    grid = {"learning_rate": ["0", "1", "2"]}
    assert sweep.table(rows, grid, metric).splitlines()[-1] == "| 0 | nan |"
    sweep.plot(rows, grid, metric, tmp_path / "sweep.png")
    assert (tmp_path / "sweep.png").is_file()


@pytest.mark.parametrize("grid", [GRID, {"lora_rank": ["4", "8"]}], ids=["heat map", "line"])
def test_plots(tmp_path, grid):
    rows = ROWS if len(grid) == 2 else ROWS[::2]
    sweep.plot(rows, grid, "eval_loss", tmp_path / "sweep.png")
    assert (tmp_path / "sweep.png").read_bytes().startswith(b"\x89PNG")
