"""Key-token weights on two ranks (gloo): the losses of one process.

Two ranks with one micro batch each see, step by step, the rows of one process that gathers two.
"""

import os
import subprocess
import sys

import pytest
import yaml

from tests.conftest import ROOT
from tests.integration.weighted_losses import WEIGHTS, losses, register, settings

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1600)]
RUNS = {
    "one": ({}, {}),
    "two": ({"gradient_accumulation_steps": 1}, {"FORCE_TORCHRUN": "1", "NPROC_PER_NODE": "2"}),
}


@pytest.fixture(scope="module")
def found(tmp_path_factory, tiny_model) -> dict[str, list[float]]:
    folder = tmp_path_factory.mktemp("ranks")
    register(folder)
    (folder / "weights").mkdir()
    for name, (changed, environment) in RUNS.items():
        recipe = folder / f"{name}.yaml"
        (folder / "weights" / recipe.name).write_text(WEIGHTS)
        recipe.write_text(yaml.safe_dump(settings(folder, str(tiny_model), name, **changed)))
        done = subprocess.run(
            [sys.executable, "-m", "recipes", "train", recipe], cwd=ROOT, capture_output=True, text=True,
            env={**os.environ, "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1", **environment},
        )  # fmt: skip
        assert done.returncode == 0, done.stdout + done.stderr
        assert f"key-token weights from {folder}" in done.stdout
    return {name: losses(folder, name) for name in RUNS}


def test_two_ranks_have_the_losses_of_one(found):
    assert len(found["one"]) == 4
    assert found["two"] == pytest.approx(found["one"], abs=1e-6)
