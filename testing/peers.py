"""Other tools to compare with, installed on demand and only for the tests and benches that ask for them."""

import subprocess
import sys
from pathlib import Path

import pytest

from testing import ROOT

BASE_PYTHON = Path(sys.base_prefix) / "bin" / "python3"  # has pip, which an environment of uv has not


def installed(name: str, *requirements: str, alone: bool = False) -> Path:
    """Return a folder for PYTHONPATH with `requirements`, installed once under build/peers/NAME.

    A tool that runs `alone`, without our packages, may have other versions of them. Skips the test where the
    package index cannot be reached.
    """
    folder = ROOT / "build" / "peers" / name
    if not (folder / ".done").is_file():
        pip = [str(BASE_PYTHON), "-m", "pip", "--python", sys.executable]
        command = [*pip, "install", "--quiet", "--no-compile", "--disable-pip-version-check"]
        constraint = [] if alone else ["--constraint", str(ROOT / "requirements-dev.lock")]
        target = ["--target", str(folder), "--upgrade"]
        done = subprocess.run([*command, *constraint, *target, *requirements], capture_output=True, text=True)
        if done.returncode:
            pytest.skip(f"{name} cannot be installed: {done.stderr.strip().splitlines()[-1]}")
        (folder / ".done").touch()
    return folder
