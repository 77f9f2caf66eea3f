"""Which version runs: pyproject.toml's, and the commit as git says it."""

import subprocess
from pathlib import Path

from tests.conftest import PROJECT
from tuneyard.core.installation.checkout import ROOT, version


def git(folder: Path, *words: str) -> str:
    who = ["-c", "user.name=t", "-c", "user.email=t@example.org"]
    return subprocess.check_output(["git", *who, *words], cwd=folder, text=True).strip()


def test_the_version_is_that_of_pyproject_and_of_git() -> None:
    release = version()
    assert release["version"] == PROJECT["version"]
    assert ("commit" in release) == (ROOT / ".git").exists()


def test_a_long_run_names_the_commit_that_it_began_with(monkeypatch) -> None:
    began = version()
    monkeypatch.delattr("subprocess.run")
    assert version() == began


def test_a_folder_of_a_repository_and_one_without_a_commit_have_none(tmp_path: Path) -> None:
    git(tmp_path, "init", "--quiet")
    for folder in (ROOT / "core", tmp_path):
        assert "commit" not in version(folder)
