"""An installation other than an editable one is refused: its wheel would contain no code."""

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


def test_the_editable_install_of_the_makefile_still_works(checkout: Path) -> None:
    (checkout / "wheels").mkdir()
    ended = call_hook(checkout, "build_editable('wheels')")
    assert ended.returncode == 0, ended.stderr
    (wheel,) = (checkout / "wheels").glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        (link,) = [name for name in archive.namelist() if name.endswith(".pth")]
        assert archive.read(link).decode().strip() == str(checkout)
