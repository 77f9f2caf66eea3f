"""An editable install finds the packages under `tuneyard`, and nothing else of the checkout."""

import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

from tests.conftest import ROOT


def test_the_editable_install_finds_tuneyard_alone(tmp_path: Path) -> None:
    """What it adds to an environment names the packages under `tuneyard`, and puts no folder on sys.path."""
    checkout = tmp_path / "checkout"
    (checkout / "core").mkdir(parents=True)
    shutil.copy2(ROOT / "pyproject.toml", checkout)
    shutil.copytree(ROOT / "tuneyard", checkout / "tuneyard", symlinks=True)
    (checkout / "core/__init__.py").write_text("HERE = 1\n")
    (checkout / "wheels").mkdir()
    build = "from setuptools import build_meta; build_meta.build_editable('wheels')"
    built = subprocess.run([sys.executable, "-c", build], cwd=checkout, capture_output=True, text=True)
    assert built.returncode == 0, built.stderr
    (wheel,) = (checkout / "wheels").glob("*.whl")
    installed = tmp_path / "installed"
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
