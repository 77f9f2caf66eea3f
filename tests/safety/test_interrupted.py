"""Deleted folders under a command, and what an interrupted one left. SECURITY.md, "Interruptions"."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import ROOT
from tuneyard.core.language.messages import relative_paths


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
    assert relative_paths(f"{folder}/a: missing") == f"{folder}/a: missing"
