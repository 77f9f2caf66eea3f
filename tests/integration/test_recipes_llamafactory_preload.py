"""The forkserver asks for no GPU: CUDA refuses each fork of a process that has, and trainings would fail."""

import subprocess
import sys

import pytest

from tests.conftest import ROOT

pytestmark = pytest.mark.slow
PROGRAM = """
import sys, torch
asked = []
torch._C._cuda_getDeviceCount = lambda: asked.append(1) or 0
import {module}
sys.exit(bool(asked))
"""
"""Ends with 1 if an import asks for GPUs: all of torch's questions about them count them first."""


@pytest.mark.parametrize(
    "module, asks", [("tuneyard.recipes.llamafactory.preload", False), ("llamafactory.model", True)]
)
def test_importing_llamafactory_asks_for_gpus_and_the_forkserver_s_imports_do_not(module, asks) -> None:
    done = subprocess.run([sys.executable, "-c", PROGRAM.format(module=module)], cwd=ROOT)
    assert done.returncode == asks
