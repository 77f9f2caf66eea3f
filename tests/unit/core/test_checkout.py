"""Which version runs: pyproject.toml's, and the commit as git says it, in every form git keeps it."""

import subprocess
import tomllib
from pathlib import Path

import pytest

from tuneyard import core
from tuneyard.core.installation.checkout import ROOT, head


def git(folder: Path, *words: str) -> str:
    who = ["-c", "user.name=t", "-c", "user.email=t@example.org"]
    return subprocess.check_output(["git", *who, *words], cwd=folder, text=True).strip()


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    git(tmp_path, "init", "--quiet")
    git(tmp_path, "commit", "--quiet", "--allow-empty", "-m", "one")
    return tmp_path


def test_the_version_is_that_of_pyproject_and_of_git() -> None:
    declared = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    assert core.version()["version"] == declared
    assert core.version().get("commit") == head(ROOT)
    assert core.version() is not core.version(), "who changes it changes only his own"


def test_a_long_run_names_the_commit_that_it_began_with(monkeypatch) -> None:
    began = core.version()
    monkeypatch.setattr("tuneyard.core.installation.checkout.head", lambda _: "0" * 40)
    assert core.version() == began


def test_a_branch_packed_refs_and_a_detached_head(repository: Path) -> None:
    commit = git(repository, "rev-parse", "HEAD")
    assert head(repository) == commit
    git(repository, "pack-refs", "--all")
    assert head(repository) == commit
    git(repository, "checkout", "--quiet", "--detach")
    assert head(repository) == commit


def test_a_worktree_has_its_own_head(repository: Path) -> None:
    tree = repository / "tree"
    git(repository, "worktree", "add", "--quiet", "-b", "side", str(tree))
    git(tree, "commit", "--quiet", "--allow-empty", "-m", "two")
    assert head(tree) == git(tree, "rev-parse", "HEAD") != head(repository)
    git(repository, "pack-refs", "--all")
    assert head(tree) == git(tree, "rev-parse", "HEAD")


def test_no_repository_and_one_without_a_commit_have_none(tmp_path: Path) -> None:
    assert head(tmp_path) is None
    git(tmp_path, "init", "--quiet")
    assert head(tmp_path) is None
