"""Each page of docs/ways/ runs: all its commands, and every `next:` command that they print.

The pages share one checkout (tests/integration/ways.py), so that none trains what another has trained.
"""

import re
import shutil
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import ROOT
from tests.forks import Forks
from tests.integration.conftest import Checkout
from tests.integration.test_docs import commands
from tests.integration.ways import make_ways
from tests.json_files import read_json

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]
WAYS = ROOT / "docs/ways"
PAGES = sorted(WAYS.glob("*.en.md"))
RUNS = ("weighted", "plain")
NEXT = re.compile(r"^next: (.+)$", re.M)
NOT_RUN: dict[str, str] = {}
"""Patterns of `next:` commands that cannot run here, with the reason."""


@pytest.fixture(scope="module")
def ways(forks: Forks, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Checkout]:
    """The checkout of all pages. Its models leave the hub's cache again, which other tests expect empty."""
    yield make_ways(tmp_path_factory.mktemp("ways") / "tuneyard", forks)
    shutil.rmtree(forks.hub_cache)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name.removesuffix(".en.md"))
def test_the_commands_of_a_way_and_their_next_commands_run(ways: Checkout, page: Path) -> None:
    steps = commands(page)
    assert steps
    typed = [" ".join(step.command.split()) for step in steps]
    proposed: list[str] = []
    for step, command in zip(steps, typed, strict=True):
        began = time.monotonic()
        printed = ways.shell(command)
        print(f"{time.monotonic() - began:5.1f} s  {command}")
        missing = [line for line in step.shown if line not in printed]
        assert missing == [], f"$ {command}\n{printed}"
        proposed += NEXT.findall(printed)
    for command in dict.fromkeys(proposed):
        if command in typed or any(re.search(pattern, command) for pattern in NOT_RUN):
            continue
        began = time.monotonic()
        ways.shell(command)
        print(f"{time.monotonic() - began:5.1f} s  next: {command}")


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
