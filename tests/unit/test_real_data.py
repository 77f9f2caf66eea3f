"""Tests of real data find it by a variable alone, and say in one line that they did not run without it."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import ROOT

REAL_TESTS = """
import pytest
from tests.real_data import real_path

@pytest.mark.parametrize("name", ["qa/a.jsonl", "qa/b.jsonl", "mnli"])
def test_of_a_file(name):
    assert real_path(name).exists()

def test_of_tokens():
    real_path("qwen2.5", "TUNEYARD_TOKENIZERS")

def test_of_another_kind():
    pytest.skip("no browser")
"""


def run(folder: Path, *options: str, **variables: str) -> tuple[int, list[str]]:
    """Run the tests above in a process with these variables alone. The exit code, and all printed lines."""
    (folder / "conftest.py").write_text(
        "from tests.conftest import pytest_addoption, pytest_configure, pytest_terminal_summary\n"
    )
    (folder / "test_real.py").write_text(REAL_TESTS)
    environment = {name: value for name, value in os.environ.items() if not name.startswith("TUNEYARD_")}
    plain = ("-p", "no:hypothesispytest", "-p", "no:anyio", "-p", "no:cacheprovider")
    ended = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", *plain, *options, "test_real.py"],
        cwd=folder,
        env={**environment, "PYTHONPATH": str(ROOT), **variables},
        capture_output=True,
        text=True,
    )
    return ended.returncode, (ended.stdout + ended.stderr).splitlines()


@pytest.mark.parametrize("options", [(), ("-n", "2")])
def test_a_run_without_real_data_says_so_in_one_line(tmp_path: Path, options: tuple[str, ...]) -> None:
    code, lines = run(tmp_path, *options)
    expected = (
        "4 tests of real data were skipped: set TUNEYARD_DATA and TUNEYARD_TOKENIZERS (see CONTRIBUTING.md)"
    )
    assert [line for line in lines if "TUNEYARD" in line] == [expected]
    assert code == 0


def test_what_the_folder_of_real_data_lacks_is_counted(tmp_path: Path) -> None:
    data = tmp_path / "data"
    (data / "qa").mkdir(parents=True)
    (data / "qa/b.jsonl").touch()
    code, lines = run(tmp_path, TUNEYARD_DATA=str(data), TUNEYARD_TOKENIZERS=str(tmp_path))
    (line,) = [line for line in lines if "TUNEYARD" in line]
    assert line.startswith("3 tests of real data were skipped: set TUNEYARD_DATA and")
    assert code == 0
    (data / "qa/a.jsonl").touch()
    (data / "mnli").mkdir()
    (tmp_path / "qwen2.5").mkdir()
    code, lines = run(tmp_path, TUNEYARD_DATA=str(data), TUNEYARD_TOKENIZERS=str(tmp_path))
    assert not [line for line in lines if "TUNEYARD" in line]
    assert any("4 passed, 1 skipped" in line for line in lines)


@pytest.mark.parametrize("variable", ["TUNEYARD_DATA", "TUNEYARD_TOKENIZERS"])
def test_a_variable_that_names_no_folder_stops_the_run(tmp_path: Path, variable: str) -> None:
    code, lines = run(tmp_path, **{variable: "/nowhere/data"})
    assert code == pytest.ExitCode.USAGE_ERROR
    assert any(f"{variable}=/nowhere/data" in line for line in lines)


@pytest.mark.parametrize("folders", [(), ("data",), ("data", "tokenizers")])
def test_ci_takes_the_shared_folders_that_are_there(tmp_path: Path, folders: tuple[str, ...]) -> None:
    (tmp_path / "clone/.ci").mkdir(parents=True)
    shutil.copy(ROOT / ".ci/run", tmp_path / "clone/.ci/run")
    printing = "@echo $@,$$TUNEYARD_DATA,$$TUNEYARD_TOKENIZERS"
    (tmp_path / "clone/Makefile").write_text(f"test lint test-slow:\n\t{printing}\n")
    for folder in folders:
        (tmp_path / "shared" / folder).mkdir(parents=True)
    ours = ("TUNEYARD_", "MAKE", "MFLAGS")  # of `make test`, which the inner make would speak of
    environment = {name: value for name, value in os.environ.items() if not name.startswith(ours)}
    command = [tmp_path / "clone/.ci/run"]
    ended = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    rows = [line.split(",") for line in ended.stdout.splitlines()]
    assert [row[0] for row in rows] == ["test", "lint", "test-slow"]
    for row in rows:
        for name, folder in zip(("data", "tokenizers"), row[1:], strict=True):
            assert bool(folder) is (name in folders)
            assert not folder or Path(folder).resolve() == tmp_path / "shared" / name
