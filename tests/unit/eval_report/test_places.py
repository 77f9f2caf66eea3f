"""Paths on a page: relative below the working folder, otherwise the last name, wherever a clone lies."""

import shlex
from pathlib import Path

import pytest

from tuneyard.eval.report.setup import argument, command_line, without_places


@pytest.mark.parametrize("folder", ["clone", "a clone/of mine"])
def test_only_paths_below_the_working_folder_stay_relative(
    folder: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    here = tmp_path / folder
    here.mkdir(parents=True)
    monkeypatch.chdir(here)
    assert without_places(f"scored {here}/runs/a and {here.parent}/other/b") == "scored runs/a and b"
    assert without_places(f"in {tmp_path}/results/demo: x={here}/runs/c/") == "in demo: x=runs/c/"
    assert without_places(f"{Path.home()}/models/m") == "m"
    assert without_places("~/models/m at http://localhost:8000/v1") == "m at http://localhost:8000/v1"
    assert argument(f"rte={here}/runs/a") == "rte=runs/a"
    assert argument(f"rte={tmp_path}/my runs/a") == "rte=a"
    command = shlex.join(["tuneyard", "eval", "compare", f"{tmp_path}/results", "--out", f"{here}/o"])
    assert command_line(command) == "tuneyard eval compare results --out o"
    monkeypatch.chdir(tmp_path)
    assert without_places(f"{tmp_path}-2/runs/a") == "a"
