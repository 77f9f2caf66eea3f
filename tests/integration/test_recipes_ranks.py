"""Trainings on several processes (gloo, CPU): the losses of one process.

Two ranks with one micro batch each see, step by step, the rows of one process that gathers two.
"""

import shutil
import subprocess
from pathlib import Path

import pytest
import yaml

from testing.forks import Forks
from tests.conftest import ROOT
from tests.integration.weighted_losses import WEIGHTS, losses, register, settings
from tests.serving import free_port

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1600)]
TWO = {"gradient_accumulation_steps": 1}
RANKS = {"FORCE_TORCHRUN": "1", "NPROC_PER_NODE": "2"}


class Trainings:
    """A folder with data, recipes and what they trained; each training is run once."""

    def __init__(self, folder: Path, model: Path, forks: Forks, llamafactory: Forks) -> None:
        register(folder)
        (folder / "weights").mkdir()
        self.folder, self.model, self.forks, self.llamafactory = folder, model, forks, llamafactory

    def recipe(self, name: str, changed: dict[str, object]) -> Path:
        path = self.folder / f"{name}.yaml"
        path.write_text(yaml.safe_dump(settings(self.folder, str(self.model), name, **changed)))
        return path

    def train(self, recipe: Path, added: dict[str, str], *more: str) -> subprocess.CompletedProcess[str]:
        """Run `recipe train`; once more, as a user would, where a signal ended a rank.

        That is a crash inside torch or gloo, seen once in CI and not what these tests ask.
        """
        environment = {**self.forks.env, **added}
        program = str(shutil.which("tuneyard", path=environment["PATH"]))
        for arguments in (more, ()):
            done = subprocess.run(
                [program, "recipe", "train", recipe, *arguments],
                cwd=ROOT, env=environment, capture_output=True, text=True,
            )  # fmt: skip
            if "a rank was ended by SIG" not in done.stderr:
                break
        return done

    def weighted(self, name: str, changed: dict[str, object], added: dict[str, str]) -> list[float]:
        """Return the losses of `recipes train` with key-token weights."""
        recipe = self.recipe(name, changed)
        (self.folder / "weights" / recipe.name).write_text(WEIGHTS)
        done = self.train(recipe, added)
        assert done.returncode == 0, self.told(done, name)
        assert f"key-token weights from {self.folder}" in done.stdout
        return losses(self.folder, name)

    def told(self, done: subprocess.CompletedProcess[str], name: str) -> str:
        """Return what a training printed, with the end of LLaMA-Factory's own log."""
        log = self.folder / name / "train.log"
        return done.stdout + done.stderr + (log.read_text()[-6000:] if log.is_file() else "")

    def plain(self, name: str) -> list[float]:
        """Return the losses of `llamafactory-cli train` in one process."""
        self.llamafactory.run("llamafactory.cli", "train", self.recipe(name, {}))
        return losses(self.folder, name)

    def on_nodes(self, name: str, changed: dict[str, object], *nodes: dict[str, str]) -> list[float]:
        """Return the losses of `llamafactory-cli train`, started once for each node."""
        recipe, started = self.recipe(name, changed), []
        for number, added in enumerate(nodes):
            with (self.folder / f"{name}.{number}.log").open("w") as log:
                command = [self.llamafactory.python, "-m", "llamafactory.cli", "train", recipe]
                environment = {**self.llamafactory.env, **added}
                started.append(subprocess.Popen(command, cwd=ROOT, env=environment, stdout=log, stderr=log))
        for number, process in enumerate(started):
            said = (self.folder / f"{name}.{number}.log").read_text
            assert process.wait() == 0, said()[-3000:]
        return losses(self.folder, name)


@pytest.fixture(scope="module")
def trainings(tmp_path_factory, tiny_model, forks, llamafactory) -> Trainings:
    return Trainings(tmp_path_factory.mktemp("ranks"), tiny_model, forks, llamafactory)


@pytest.fixture(scope="module")
def in_forks(llamafactory) -> dict[str, str]:
    """Variables with which torchrun starts each rank as a fork; a Python of its own takes 20 CPU s."""
    return {"PYTHON_EXEC": str(llamafactory.python)}


@pytest.fixture(scope="module")
def one(trainings) -> list[float]:
    """The weighted losses of one process."""
    return trainings.weighted("one", {}, {})


def test_two_ranks_with_weights(trainings, one):
    assert len(one) == 4
    assert trainings.weighted("two", TWO, RANKS) == pytest.approx(one, abs=1e-6)


def test_two_ranks_with_weights_under_deepspeed_zero_2(trainings, one, in_forks):
    changed = {**TWO, "deepspeed": "recipes/deepspeed/z2.json"}
    assert trainings.weighted("zero", changed, RANKS | in_forks) == pytest.approx(one, abs=1e-6)


def test_weights_under_deepspeed_zero_3_with_all_parameters_trained(trainings, in_forks):
    """One rank: on CPUs transformers cannot load a model for several (E337).

    Gathering weights over ranks is the trainer's own part, which the ranks of ZeRO-2 show.
    """
    full = {"finetuning_type": "full", "learning_rate": 1e-4}
    one = trainings.weighted("full-one", full, {})
    assert len(one) == 4
    changed = {**full, "deepspeed": "recipes/deepspeed/z3.json"}
    one_rank = {**RANKS, "NPROC_PER_NODE": "1"} | in_forks
    assert trainings.weighted("full-zero-3", changed, one_rank) == pytest.approx(one, abs=1e-6)


def test_two_nodes_by_the_variables_of_torchrun(trainings, in_forks):
    node = {
        "FORCE_TORCHRUN": "1", "NNODES": "2", "NPROC_PER_NODE": "1",
        "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port()), **in_forks,
    }  # fmt: skip
    nodes = [{**node, "NODE_RANK": rank} for rank in ("0", "1")]
    assert trainings.on_nodes("nodes", TWO, *nodes) == trainings.plain("plain")
