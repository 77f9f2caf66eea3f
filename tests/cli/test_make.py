"""make's set-up: a Python that is too old is named before anything is made, half a .venv does not stay."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import ROOT
from tuneyard.eval.chat import cli as chat
from tuneyard.eval.models.generate import PRESETS


def _make(folder: Path, python: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run make in a folder that holds our Makefile, with a stand-in for Python written in sh."""
    for name in (
        "Makefile",
        "pyproject.toml",
        "requirements-core.lock",
        "requirements.lock",
        "requirements-dev.lock",
    ):
        shutil.copy2(ROOT / name, folder)  # as old as it is: a newer lock would install again
    stub = folder / "python-stub"
    stub.write_text(f"#!/bin/sh\n{python}\n")
    stub.chmod(0o755)
    command = ["make", f"PYTHON={stub}", "UV=", *arguments]
    # `make test` hands its own flags and level on: as a sub-make, ours would say which folder it is in.
    own = {
        name: value for name, value in os.environ.items() if name not in ("MAKEFLAGS", "MAKELEVEL", "MFLAGS")
    }
    return subprocess.run(command, cwd=folder, env=own, capture_output=True, text=True)


@pytest.mark.parametrize("version", [(2, 7), (3, 6), (3, 10)])
def test_a_python_that_is_too_old_is_named_before_anything_is_made(
    tmp_path: Path, version: tuple[int, int]
) -> None:
    code = f"import sys; sys.version_info = {(*version, 0)!r}; exec(sys.argv[1])"
    own = f'exec "{sys.executable}" -c "{code}" "$2"'
    ended = _make(tmp_path, own, "setup-core")
    assert ended.returncode == 2
    said = f"error: {tmp_path / 'python-stub'} is Python {version[0]}.{version[1]}, Tuneyard needs 3.11"
    assert said in ended.stderr
    assert not (tmp_path / ".venv").exists()


def test_half_a_venv_does_not_stay(tmp_path: Path) -> None:
    own = 'case "$1" in -m) mkdir -p .venv/bin; echo "ensurepip is not available" >&2; exit 1;; esac'
    ended = _make(tmp_path, own, "setup-core")
    assert ended.returncode == 2
    assert "ensurepip is not available" in ended.stderr
    assert not (tmp_path / ".venv").exists()


def test_setting_up_again_makes_nothing_anew(tmp_path: Path) -> None:
    (tmp_path / ".venv/bin").mkdir(parents=True)
    (tmp_path / ".venv/bin/python").write_text("#!/bin/sh\necho installs\n")
    (tmp_path / ".venv/bin/python").chmod(0o755)
    assert "installs" in _make(tmp_path, "exit 1", "setup-core").stdout
    again = _make(tmp_path, "exit 1", "--dry-run", "setup-core")
    assert (again.returncode, (tmp_path / ".venv/.core").is_file()) == (0, True)


def test_what_a_target_lacks_is_said_before_anything_is_installed(tmp_path: Path) -> None:
    ended = _make(tmp_path, "exit 1", "compile")
    assert ended.returncode == 2
    assert "say which: make compile DATA=rte" in ended.stderr and ended.stdout == ""
    assert not (tmp_path / ".venv").exists()


def test_several_datasets_are_words_of_one_command(tmp_path: Path) -> None:
    made = _make(tmp_path, "exit 0", "--dry-run", "compile", "DATA=rte mnli", "ARGS=--limit 10")
    assert "-m tuneyard data compile rte mnli" in made.stdout


def test_the_demo_is_the_command_of_the_package(tmp_path: Path) -> None:
    words = ("--dry-run", "demo", "MODEL=models/mine", "ARGS=--out there")
    assert "-m tuneyard demo --model models/mine --out there" in _make(tmp_path, "exit 0", *words).stdout


@pytest.mark.parametrize("target", ["chat", "ask"])
def test_a_talk_uses_the_five_decoding_values_of_the_guide(target: str, tmp_path: Path) -> None:
    command = _make(tmp_path, "exit 0", "--dry-run", target, "ARGS=--temperature 0").stdout
    assert command.index("--preset document") < command.index("--temperature 0")
    longest = next(one.default for one in chat.params if one.name == "max_new_tokens")
    assert {"max_new_tokens": longest, **PRESETS["document"]} == {
        "max_new_tokens": 512,
        "repetition_penalty": 1.3,
        "no_repeat_ngram_size": 3,
        "temperature": 0.8,
        "top_p": 0.9,
    }
