"""Each page of docs/ways/ runs: all its commands, and every `next:` command that they print.

A next command that only checks runs at once, as it asks about what is there then. The others run after the
page.

The pages share one checkout (tests/integration/ways.py), so that none trains what another has trained.
"""

import re
import shutil
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from testing.forks import Forks
from tests.conftest import ROOT
from tests.integration.conftest import Checkout
from tests.integration.test_docs import commands
from tests.integration.test_export_hub import Hub, variables
from tests.integration.ways import make_ways
from tests.json_files import read_json
from tests.serving import serving

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]
WAYS = ROOT / "docs/ways"
PAGES = sorted(WAYS.glob("*.en.md"))
RUNS = ("weighted", "plain")
NEXT = re.compile(r"^next: (.+)$", re.M)
CHECKS = re.compile(r"tuneyard (data verify|recipe check)\b")
TALLY = re.compile(r"tuneyard eval ab tally (\S+)")
RATER = r"""sed -i -E '2,$s/,"","","","","",""\r?$/,4,4,5,3,4,/' """
"""Marks every answer in a sheet, as people do before the tally."""
UPLOAD = re.compile(r"tuneyard (adapter export .* --to hub --repo (\S+).*)")
NOT_RUN = {r"^hf download": "the hub is a stand-in here"}
"""Patterns of `next:` commands that cannot run here, with the reason."""


@pytest.fixture(scope="module")
def ways(forks: Forks, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Checkout]:
    """The checkout of all pages. Its models leave the hub's cache again, which other tests expect empty."""
    yield make_ways(tmp_path_factory.mktemp("ways") / "tuneyard", forks)
    shutil.rmtree(forks.hub_cache)


def upload(ways: Checkout, command: str) -> str:
    """Upload to a stand-in for the hub, in a process of its own: forks have read their hub's address."""
    arguments = UPLOAD.match(command)
    assert arguments
    server = Hub(arguments[2])
    with serving(server):
        settings = " ".join(f"{name}={value}" for name, value in variables(server).items())
        printed = ways.shell(f"{settings} {sys.executable} -m tuneyard {arguments[1]}")
    (files,) = server.commits
    assert {"README.md", "adapter_config.json", "adapter_model.safetensors"} <= files.keys()
    return printed


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name.removesuffix(".en.md"))
def test_the_commands_of_a_way_and_their_next_commands_run(ways: Checkout, page: Path) -> None:
    """The page begins without the trainings of others, as it does for those who follow it alone."""
    shutil.rmtree(ways.root / "saves", ignore_errors=True)
    steps = commands(page)
    assert steps
    typed = [" ".join(step.command.split()) for step in steps]
    proposed: list[str] = []
    run = {*typed}

    def run_next(command: str) -> None:
        if command in run or any(re.search(pattern, command) for pattern in NOT_RUN):
            return
        run.add(command)
        tally = TALLY.match(command)
        if tally:
            ways.shell(RATER + tally[1])
        began = time.monotonic()
        ways.shell(command)
        print(f"{time.monotonic() - began:5.1f} s  next: {command}")

    for step, command in zip(steps, typed, strict=True):
        began = time.monotonic()
        printed = upload(ways, command) if UPLOAD.match(command) else ways.shell(command)
        print(f"{time.monotonic() - began:5.1f} s  {command}")
        missing = [line for line in step.shown if line not in printed]
        assert missing == [], f"$ {command}\n{printed}"
        for following in NEXT.findall(printed):
            if CHECKS.match(following):
                run_next(following)
            else:
                proposed.append(following)
    for following in proposed:
        run_next(following)


def test_the_four_commands_of_the_readme_run(ways: Checkout) -> None:
    """Next to them: the other dataset and the other training, which the first page of docs/ways has."""
    for folder in ("saves", "results"):
        shutil.rmtree(ways.root / folder, ignore_errors=True)
    ways.shell("make compile DATA=mnli")
    ways.shell("llamafactory-cli train recipes/rte.yaml")
    typed = [step.command for step in commands(ROOT / "README.md") if step.where == "way"]
    assert len(typed) == 4
    for command in typed:
        ways.shell(command)
    scored = {path.parent.name for path in (ways.root / "results/nli").glob("*/alpaca_mnli_eval")}
    assert scored == {"base", "rte", "mnli", "merged"}


def test_full_training_takes_the_key_token_weights_beside_its_recipe(ways: Checkout) -> None:
    """They change its loss. Without their file the same recipe trains with LLaMA-Factory's own loss."""
    ways.shell("make compile DATA=defect")
    printed = ways.shell("tuneyard recipe train recipes/defect-full.yaml output_dir=saves/weighted")
    assert "key-token weights from recipes/weights/defect-full.yaml" in printed
    (ways.root / "recipes/weights/defect-full.yaml").unlink()
    printed = ways.shell("tuneyard recipe train recipes/defect-full.yaml output_dir=saves/plain")
    assert "key-token weights" not in printed
    losses = [read_json(ways.root / f"saves/{run}/all_results.json")["train_loss"] for run in RUNS]
    assert abs(losses[0] - losses[1]) > 1e-3
