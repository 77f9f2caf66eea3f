"""make's set-up: a Python that is too old is named before anything is made, half a .venv does not stay."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import ROOT
from tuneyard.eval.backends.generate import PRESETS
from tuneyard.eval.chat import cli as chat


def _make(folder: Path, python: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run make in a folder that holds our Makefile, with a stand-in for Python written in sh."""
    for name in ("Makefile", "pyproject.toml", "requirements-core.lock", "requirements.lock"):
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


PYTHON = """#!/bin/sh
echo "$2 $3 $4" >> calls
made() { mkdir -p "$(dirname "$1")"; touch "$1"; }
case "$2 $3" in
  "recipes base") made models/demo-base/config.json;;
  "compiler compile") made "dataset_info/$4/manifest.json";;
  "recipes train") made "saves/$(basename "$4" .yaml)/training.json";;
  eval.sweep*) made results/demo/sweep.json;;
  "adapters merge") made saves/demo-merge/adapter_config.json;;
  eval.compare*) made results/demo/verdict/table.json; made results/demo/verdict/table.md;;
esac
"""
TRAINED = {name: f"recipes train recipes/demo-{name}.yaml" for name in ("rte", "mnli")}
JUDGED = ["adapters", "eval.compare", "eval.sweep"]


@pytest.fixture
def demo(tmp_path: Path):
    """`make demo` in a folder where the commands only write the files that they are called for."""
    for name in ("rte", "mnli"):
        sources = [f"samples/{name}/train.jsonl", f"samples/{name}/eval.jsonl"]
        for file in (*sources, f"compiler/specs/demo_{name}.yaml", f"recipes/demo-{name}.yaml"):
            (tmp_path / file).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / file).touch()
    (tmp_path / ".venv/bin").mkdir(parents=True)
    (tmp_path / ".venv/bin/python").write_text(PYTHON)
    (tmp_path / ".venv/bin/python").chmod(0o755)

    def called() -> list[str]:
        (tmp_path / "calls").write_text("")
        ended = _make(tmp_path, "exit 1", "demo")
        assert (ended.returncode, ended.stderr) == (0, "")
        return [line for line in (tmp_path / "calls").read_text().splitlines() if "pip " not in line]

    return called


def test_the_demo_makes_everything_once(demo) -> None:
    first = demo()
    assert len(first) == 8 and {"compiler compile demo_rte", *TRAINED.values()} < set(first)
    assert demo() == []


@pytest.mark.parametrize(
    ("lost", "again"),
    [
        ("saves/demo-mnli", [TRAINED["mnli"]]),
        ("models/demo-base", ["recipes base --out", *TRAINED.values()]),
        ("dataset_info/demo_rte", ["compiler compile demo_rte", TRAINED["rte"]]),
        ("results/demo/sweep.json", []),
    ],
)
def test_the_demo_makes_what_is_missing_again_and_what_follows_from_it(demo, tmp_path, lost, again) -> None:
    demo()
    (tmp_path / lost).rename(tmp_path / "aside")
    calls = demo()
    judged = [call for call in calls if call.split()[0] in JUDGED]
    assert sorted(set(calls) - set(judged)) == sorted(again)
    assert [call.split()[0] for call in sorted(judged)] == JUDGED
    assert demo() == []


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
