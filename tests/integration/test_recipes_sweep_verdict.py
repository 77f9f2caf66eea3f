"""The verdict of `eval compare` on a sweep's folder, to which `recipe sweep` leads."""

import pytest

from tests.cli.scoring import call
from tests.fake_runs import answers, write_run
from tests.json_files import read_json, write_json
from tests.messages import printed_line, raises
from tests.unit.recipes.test_sweep import report_on
from tuneyard.core.errors import ContentError
from tuneyard.eval.compare.__main__ import cli
from tuneyard.recipes.sweep.grid import Grid

pytestmark = pytest.mark.usefixtures("without_plots")


def grid_with_seeds(folder, axis="lora_rank", **rights):
    """Runs of settings of an axis with the numbers of correct answers of their seeds, scored."""
    gold = ["yes", "no"] * 60
    rows = []
    for setting, numbers in rights.items():
        for seed, right in enumerate(numbers):
            run_folder = folder / f"run-{len(rows)}"
            write_run(run_folder / "results", "run", "s", gold, answers(gold, right, right))
            write_run(run_folder / "results", "base", "s", gold, answers(gold, 60, 99))
            rows.append({axis: setting, "seed": str(seed), "accuracy": right / 120, "run": str(run_folder)})
    axes = {axis: list(rights), "seed": [str(seed) for seed in range(len(numbers))]}
    return rows, Grid(axes, {})


def verdict(folder) -> dict:
    """The table of `eval compare` on a sweep's folder. `ContentError` if the results cannot be compared."""
    call(cli, folder, "--out", folder / "verdict", "--force", "-q")
    return read_json(folder / "verdict/table.json")


def test_seeds_of_a_setting_are_replicates_and_the_verdict_is_that_of_compare(tmp_path):
    rows, grid = grid_with_seeds(tmp_path, r4=[78, 84, 80, 86, 82], r8=[83, 79, 87, 81, 85])
    text, found = report_on(tmp_path, rows, grid)
    cells = " ".join(text.split())
    assert "| r8 | 0.6917 ± 0.0264 | 5 |" in cells and "| r8 | 2 | 0.7250 |" in cells
    assert [setting["seeds"] for setting in found["settings"]] == [5, 5]
    assert found["settings"][1]["mean"] == pytest.approx(83 / 120)
    table = verdict(tmp_path)
    expected = "Ship lora_rank r8: 69.2 %, against 50.0 % for the base."
    assert table["datasets"]["s"]["verdict"].startswith(expected)
    assert table["models"] == ["base", "lora_rank r4", "lora_rank r8"]
    assert (tmp_path / "sweep.png").read_bytes().startswith(b"\x89PNG")


def test_one_seed_a_setting_is_chosen_on_one_half_and_reported_on_the_other(tmp_path, capsys):
    rows, grid = grid_with_seeds(tmp_path, r4=[100], r8=[84])
    del grid.axes["seed"]
    text, _ = report_on(tmp_path, rows, grid)
    table = verdict(tmp_path)
    printed_line(capsys.readouterr().err, "note: ", tmp_path, "a sweep, its best setting", "table.md")
    (choice,) = table["choice"]
    assert choice["model"] == "lora_rank r4" and "One seed each" in text
    assert "Ship lora_rank r4" in table["datasets"]["s"]["verdict"]


@pytest.mark.parametrize("seeds", [1, 2])
def test_values_with_slashes_are_settings_of_their_own_in_the_verdict(tmp_path, seeds):
    rights = {"m/a": [70] * seeds, "m/b/1": [65] * seeds, "m/c=1": [110] * seeds}
    rows, grid = grid_with_seeds(tmp_path, "model_name_or_path", **rights)
    report_on(tmp_path, rows, grid)
    assert verdict(tmp_path)["datasets"]["s"]["verdict"].startswith("Ship model_name_or_path m-c-1: ")


def test_results_without_examples_give_a_table_and_no_verdict(tmp_path):
    rows, grid = grid_with_seeds(tmp_path, r4=[100, 90], r8=[84, 92])
    (tmp_path / "run-2/results/run/s/predictions.jsonl").unlink()
    text, _ = report_on(tmp_path, rows, grid)
    assert "| r4 " in text
    with raises(ContentError, "predictions.jsonl"):
        verdict(tmp_path)


def test_runs_that_were_scored_against_different_bases_have_no_verdict(tmp_path):
    rows, grid = grid_with_seeds(tmp_path, r4=[100, 90], r8=[84, 92])
    report_on(tmp_path, rows, grid)
    assert verdict(tmp_path)["datasets"]["s"]["verdict"]
    file = tmp_path / "run-2/results/base/s/results.json"
    result = read_json(file)
    write_json(file, {**result, "hashes": {**result["hashes"], "model": "another"}})
    with raises(ContentError, "(model)", "--no-base"):
        verdict(tmp_path)
