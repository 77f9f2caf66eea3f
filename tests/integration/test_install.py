"""An installed wheel does what a checkout does: in a fresh environment, and beside other packages."""

import json
import shutil
import subprocess
import sys
import sysconfig
import venv
import zipfile
from dataclasses import dataclass
from pathlib import Path

import pytest

from testing.peers import BASE_PYTHON
from tests.fake_runs import demo as write_demo_runs
from tests.integration.conftest import copy_tracked_files
from tests.integration.peft_oracle import save_adapter

pytestmark = pytest.mark.slow
TOP_LEVEL = ("adapters", "compiler", "core", "eval", "recipes", "samples", "tests")


@dataclass(frozen=True)
class Installed:
    """An environment with the wheel in it, and an empty folder to work in."""

    environment: Path
    work: Path

    @property
    def packages(self) -> Path:
        """The environment's site-packages."""
        return next((self.environment / "lib").glob("python*/site-packages"))

    def tuneyard(self, *words: object, code: int = 0) -> str:
        """What both streams of `tuneyard WORDS` say, which ends with `code`."""
        done = subprocess.run(
            [self.environment / "bin/tuneyard", *map(str, words)],
            cwd=self.work,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        assert done.returncode == code, f"exit {done.returncode}, expected {code}\n{done.stdout}"
        assert "Traceback" not in done.stdout
        return done.stdout


def pip_install(environment: Path, *words: object) -> subprocess.CompletedProcess[str]:
    """Install into an environment with the pip of this Python's installation."""
    pip = [BASE_PYTHON, "-m", "pip", "--python", environment / "bin/python", "install", "--quiet"]
    command = [str(word) for word in (*pip, "--disable-pip-version-check", "--no-compile", *words)]
    return subprocess.run(command, capture_output=True, text=True)


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel of this checkout, built from a copy: a build leaves files beside what it reads."""
    checkout = copy_tracked_files(tmp_path_factory.mktemp("wheel") / "checkout").root
    build = "from setuptools import build_meta; build_meta.build_wheel('wheels')"
    done = subprocess.run([sys.executable, "-c", build], cwd=checkout, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    (wheel,) = (checkout / "wheels").glob("tuneyard-*.whl")
    return wheel


@pytest.fixture(scope="module")
def beside(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Installed:
    """The wheel in an environment that has LLaMA-Factory already: it sees the packages of this one."""
    folder = tmp_path_factory.mktemp("beside")
    venv.create(folder / "env", with_pip=False, symlinks=True)
    installed = Installed(folder / "env", folder / "work")
    installed.work.mkdir()
    there = sysconfig.get_path("purelib")
    (installed.packages / "there.pth").write_text(f"{there}\n")
    done = pip_install(installed.environment, "--no-deps", "--no-index", wheel)
    assert done.returncode == 0, done.stderr
    return installed


def test_the_wheel_holds_tuneyard_and_every_file_beside_the_code(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
    for name in names:
        assert name.startswith(("tuneyard/", "tuneyard-")), name
    checkout = wheel.parents[1]
    for folder in (*TOP_LEVEL[:5], "samples"):
        for path in (checkout / folder).rglob("*"):
            if path.is_file() and path.suffix not in (".md", ".pyc"):
                assert f"tuneyard/{path.relative_to(checkout)}" in names
    assert wheel.stat().st_size < 2_000_000


def test_from_a_raw_file_to_a_verdict_in_an_empty_folder(beside: Installed, tiny_model: Path) -> None:
    """Compile, list, check, verify, merge and compare, with no file of the checkout in reach."""
    from peft.utils import SAFETENSORS_WEIGHTS_NAME
    from transformers import AutoModelForCausalLM

    work = beside.work
    rows = [json.dumps({"question": f"q {row}", "answer": f"a {row}"}) for row in range(50)]
    (work / "qa.jsonl").write_text("\n".join(rows) + "\n")
    assert "read 50  kept 50" in beside.tuneyard("data", "compile", "qa", "--source", "qa.jsonl")
    assert "50 rows" in beside.tuneyard("data", "list")
    assert "read 1500  kept 1500" in beside.tuneyard("data", "compile", "demo_rte")
    beside.tuneyard("data", "verify", "qa")
    recipe = (
        "recipe",
        "check",
        "recipes/demo-rte.yaml",
        f"model_name_or_path={tiny_model}",
        "dataset_dir=dataset_info",
    )
    beside.tuneyard(*recipe, "lora_target=q_proj", "template=qwen")
    base = AutoModelForCausalLM.from_pretrained(tiny_model)
    for seed, name in enumerate(("a", "b")):
        save_adapter(base, tiny_model, work / f"saves/{name}", seed=seed, r=4, target_modules=["q_proj"])
    beside.tuneyard("adapter", "merge", "a=0.5", "b=0.5", "--out", "saves/merge")
    assert (work / "saves/merge" / SAFETENSORS_WEIGHTS_NAME).is_file()
    write_demo_runs(work / "results/demo")
    beside.tuneyard("eval", "compare", "results/demo", "--out", "verdict")
    assert (work / "verdict/report.html").is_file()
    assert "installed in" in beside.tuneyard("doctor", code=0)


def test_the_demo_finds_its_files_in_the_package(beside: Installed) -> None:
    listed = beside.tuneyard("demo", "--dry-run", "-q").splitlines()
    assert len(listed) == 8
    assert "tuneyard recipe train recipes/demo-rte.yaml" in listed[3]


def test_the_names_of_a_users_own_packages_stay_free(beside: Installed) -> None:
    for name in TOP_LEVEL:
        assert not (beside.packages / name).exists()
    (beside.work / "core").mkdir()
    (beside.work / "core/__init__.py").write_text("raise SystemExit('the user has a core of his own')\n")
    assert "tuneyard" in beside.tuneyard("--version")
    shutil.rmtree(beside.work / "core")


def test_a_fresh_environment_gets_what_needs_no_torch(wheel: Path, tmp_path: Path) -> None:
    """Needs the package index."""
    venv.create(tmp_path / "env", with_pip=False, symlinks=True)
    fresh = Installed(tmp_path / "env", tmp_path / "work")
    fresh.work.mkdir()
    done = pip_install(fresh.environment, wheel)
    if done.returncode:
        pytest.skip(f"the core's packages cannot be installed: {done.stderr.strip().splitlines()[-1]}")
    assert not list(fresh.packages.glob("torch"))
    assert "kept 1500" in fresh.tuneyard("data", "compile", "demo_rte")
    checked = fresh.tuneyard(
        "recipe", "check", "recipes/demo-rte.yaml", "model_name_or_path=no-such-folder", "--quick", code=1
    )
    assert "E306" in checked and "E320" not in checked
    write_demo_runs(fresh.work / "results/demo")
    fresh.tuneyard("eval", "compare", "results/demo", "--out", "verdict")
    refused = fresh.tuneyard("data", "verify", "demo_rte", code=2)
    assert "llamafactory is not installed" in refused and "tuneyard[train]" in refused
    refused += fresh.tuneyard("demo", code=2)
    assert refused.count("tuneyard[train]") == 2
    assert "make setup" not in refused + fresh.tuneyard("doctor", code=0)
