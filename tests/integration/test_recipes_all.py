"""Every recipe by existing: LLaMA-Factory's parser takes it, and a shrunk copy of it really trains on CPU."""

from pathlib import Path

import pytest
import torch

from testing.forks import Forks
from tests.conftest import ROOT
from tests.json_files import read_json
from tuneyard.recipes.llamafactory.token_weights import weighted_loss

pytestmark = pytest.mark.slow
NAMES = sorted(path.stem for path in (ROOT / "recipes").glob("*.yaml"))


def in_one_process(forks: Forks, module: str, folder: Path, model: Path, answer: str) -> dict:
    """Run a module of this folder in a process of its own and return the JSON that it leaves."""
    forks.run(f"tests.integration.{module}", folder, model)
    return read_json(folder / answer)


@pytest.fixture(scope="module")
def outcome(llamafactory, tmp_path_factory, tiny_model) -> dict:
    folder = tmp_path_factory.mktemp("shrunk")
    return in_one_process(llamafactory, "recipes_shrunk", folder, tiny_model, "outcome.json")


@pytest.mark.timeout(1600)
@pytest.mark.parametrize("name", NAMES)
def test_parsed_and_trained(outcome, name):
    assert outcome[name]["parsed"] is None
    assert isinstance(outcome[name]["trained"], float), outcome[name]["trained"]
    assert 0 < outcome[name]["trained"] < 10
    kept = {
        "quantization_bit",
        "optim",
        "template",
        "stage",
        "finetuning_type",
        "lora_target",
        "learning_rate",
    }
    numbered = {"lora_target"} if name.startswith("demo-") else set()  # layers 20 to 29 of the base's 30
    assert kept & set(outcome[name]["replaced"]) == numbered


@pytest.fixture(scope="module")
def losses(llamafactory, tmp_path_factory, tiny_model) -> dict:
    folder = tmp_path_factory.mktemp("weighted")
    return in_one_process(llamafactory, "weighted_losses", folder, tiny_model, "losses.json")


@pytest.mark.timeout(1600)
def test_weights_of_one_give_llamafactorys_losses_to_the_last_digit(losses):
    assert len(losses["plain"]) == 4
    assert losses["ones"] == losses["plain"]


@pytest.mark.timeout(1600)
def test_the_weighted_loss_is_the_plain_reference(losses):
    assert losses["weighted"][0] == pytest.approx(losses["reference"], abs=2e-6)
    assert abs(losses["weighted"][0] - losses["plain"][0]) > 1e-3  # the weights do something


def test_a_step_in_which_nothing_weighs_teaches_nothing():
    logits = torch.zeros(1, 3, 4, requires_grad=True)
    nothing = torch.zeros(1, 3)
    for total in (None, nothing.sum()):
        loss = weighted_loss(logits, torch.tensor([[-100, 1, 2]]), nothing, total)
        loss.backward()
        assert loss == 0
        assert torch.isfinite(logits.grad).all()


def test_the_schema_of_recipes_is_current(run):
    run("-m", "tools.recipe_schema", "--check")
