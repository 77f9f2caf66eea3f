"""Every stage with LoRA, every method with sft: each goes the way that the table of docs/recipes.md names.

`make stages` runs all cells of the table there, of which these are a cross.
"""

import json
from collections.abc import Iterator

import pytest

from testing import ROOT
from testing.stages.cells import METHODS, STAGES, cell_name
from testing.stages.walk import RunCell, cells_below

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1200)]
CROSS = [cell_name(stage, "lora") for stage in STAGES]
CROSS += [cell_name("sft", method) for method in METHODS if method != "lora"]
OUTCOMES = ROOT / "tools/stages/outcomes.json"
COMPARED = ("outcome", "command", "code")
"""The way that a cell went, where it was refused, and by which code; messages have tests of their own."""


@pytest.fixture(scope="module")
def run_cell(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunCell]:
    with cells_below(tmp_path_factory.mktemp("stages")) as run:
        yield run


@pytest.mark.parametrize("name", CROSS)
def test_a_cell_has_the_outcome_of_the_table(run_cell: RunCell, name: str) -> None:
    of_table = json.loads(OUTCOMES.read_text(encoding="utf-8"))["cells"][name]
    outcome = run_cell(name)
    assert {key: outcome.get(key) for key in COMPARED} == {key: of_table.get(key) for key in COMPARED}
