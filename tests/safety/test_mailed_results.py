"""Results that come by mail: figures that no run has are refused at their place. SECURITY.md, "Texts"."""

import json
from pathlib import Path

import pytest
from click.testing import CliRunner

from tests.fake_runs import GOLD, read_runs, write_run
from tests.json_files import read_json, write_json
from tests.messages import raises
from tuneyard.core.errors import ContentError, RequestError
from tuneyard.eval.compare.__main__ import cli
from tuneyard.eval.runs.results import PLOTS, check_files, replaced_files

NAN, INFINITY = float("nan"), float("inf")
WRONG = {
    "n": (-1, 8.5, True, "20", None),
    "accuracy": (7, -0.5, NAN, INFINITY, True),
    "majority": (7, -0.1, NAN, INFINITY, -INFINITY, 10**400, "x", True, [0.5]),
    "majority_label": (3, None, ["yes"]),
    "macro_f1": (1.5, NAN, {}),
    "unparsed": (-1, 1.5, 10**400),
    "too_long": (-3, "1"),
    "refused": (None, -1),
}
"""Values of results.json by their key. The majority class's share decides the verdict."""
WRONG_METRICS: dict[str, object] = {
    "value": NAN, "n": -1, "unit": [], "higher_is_better": 1, "stderr": -1, "ci95": [1],
}  # fmt: skip


@pytest.fixture
def scored(tmp_path: Path) -> Path:
    """A folder of results of one model."""
    write_run(tmp_path / "r", "a", "s", GOLD, ["yes"] * len(GOLD), majority=0.5)
    return tmp_path / "r"


def change(scored: Path, key: str, value: object) -> None:
    path = scored / "a/s/results.json"
    path.write_text(json.dumps({**read_json(path), key: value}))


@pytest.mark.parametrize(("key", "value"), [(key, value) for key in WRONG for value in WRONG[key]])
def test_a_figure_that_no_run_has_is_refused(scored: Path, key: str, value: object) -> None:
    """`majority: Infinity` was compared with, and one of 400 digits was a traceback."""
    change(scored, key, value)
    with raises(ContentError, "results.json", key):
        read_runs(scored)


@pytest.mark.parametrize("key", WRONG_METRICS)
def test_a_metric_that_no_run_has_is_refused(scored: Path, key: str) -> None:
    change(scored, "metrics", {"brier": {"value": 0.5, key: WRONG_METRICS[key]}})
    with raises(ContentError, "results.json", f"metrics.brier.{key}"):
        read_runs(scored)


def test_figures_of_a_run_with_a_single_row_are_taken(scored: Path) -> None:
    """Its interval and its standard error are null."""
    change(scored, "metrics", {"brier": {"value": 0.5, "stderr": None, "ci95": None}})
    assert len(read_runs(scored)[0]) == 1


@pytest.mark.parametrize("runs", [7, None, "a\0b", "\ud800", [None], ["a\0b"], ["\ud800"], {"a": 1}, [["a"]]])
def test_a_table_json_of_another_form_is_none_of_a_comparison(tmp_path: Path, runs: object) -> None:
    """It was a traceback; what this command did not write stays."""
    write_json(tmp_path / "table.json", {PLOTS: ["a.png"], "runs": runs})
    assert replaced_files(tmp_path, [], force=False) == []
    with raises(RequestError, "table.json"):
        check_files(tmp_path, ["table.json"], PLOTS)


def test_a_comparison_into_such_a_folder_is_one_line(scored: Path, tmp_path: Path) -> None:
    write_run(scored, "base", "s", GOLD, ["no"] * len(GOLD))
    (tmp_path / "out").mkdir()
    write_json(tmp_path / "out/table.json", {PLOTS: [], "runs": True})
    done = CliRunner().invoke(cli, [str(scored), "--out", str(tmp_path / "out")])
    assert isinstance(done.exception, RequestError) and "table.json" in str(done.exception)
