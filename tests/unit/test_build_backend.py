"""An installation other than an editable one is refused: its wheel would lack the files beside the code."""

import shutil
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest

from tests.conftest import ROOT


def call_hook(checkout: Path, call: str) -> subprocess.CompletedProcess[str]:
    """Call a PEP 517 hook of `checkout` in a process of its own, as pip and uv do."""
    build_system = tomllib.loads((checkout / "pyproject.toml").read_text(encoding="utf-8"))["build-system"]
    backend, paths = build_system["build-backend"], build_system["backend-path"]
    code = f"import sys; sys.path[:0] = {paths!r}; import {backend} as backend; print(backend.{call})"
    return subprocess.run([sys.executable, "-c", code], cwd=checkout, capture_output=True, text=True)


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """The files that the build reads, in a folder that it may write into."""
    folder = tmp_path / "checkout"
    folder.mkdir()
    for name in ("pyproject.toml", "build_backend.py"):
        (folder / name).write_bytes((ROOT / name).read_bytes())
    return folder


@pytest.mark.parametrize(
    "call", ["get_requires_for_build_wheel()", "build_wheel('wheels')", "build_sdist('wheels')"]
)
def test_a_wheel_is_refused_and_the_set_up_command_named(checkout: Path, call: str) -> None:
    ended = call_hook(checkout, call)
    assert ended.returncode == 1
    assert 'run "make setup"' in ended.stderr and "make setup-core" in ended.stderr
    assert "Traceback" not in ended.stderr
    assert not (checkout / "wheels").exists()


def test_the_editable_install_finds_tuneyard_alone(checkout: Path) -> None:
    """What it adds to an environment names the packages under `tuneyard`, and puts no folder on sys.path."""
    shutil.copytree(ROOT / "tuneyard", checkout / "tuneyard", symlinks=True)
    (checkout / "core").mkdir()
    (checkout / "core/__init__.py").write_text("HERE = 1\n")
    (checkout / "wheels").mkdir()
    ended = call_hook(checkout, "build_editable('wheels')")
    assert ended.returncode == 0, ended.stderr
    (wheel,) = (checkout / "wheels").glob("*.whl")
    installed = checkout.parent / "installed"
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(installed)
    program = (
        f"import site, sys; before = list(sys.path); site.addsitedir({str(installed)!r})\n"
        "from tuneyard.core import HERE\n"
        f"assert HERE and {str(checkout)!r} not in sys.path, sys.path\n"
        "try:\n    import core\nexcept ImportError:\n    print('only tuneyard')\n"
    )
    ran = subprocess.run(
        [sys.executable, "-I", "-S", "-c", program], cwd=installed, capture_output=True, text=True
    )
    assert ran.stdout == "only tuneyard\n", ran.stderr
