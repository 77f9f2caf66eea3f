"""The table of stages and methods in docs/recipes.md is what tools/stages/outcomes.json renders."""

import json

from tools.stages.cells import CELLS
from tools.stages.table import OUTCOMES, PAGE, page_with, table

TEXT = OUTCOMES.read_text(encoding="utf-8")


def test_the_page_has_the_table_of_the_last_run() -> None:
    page = PAGE.read_text(encoding="utf-8")
    assert page == page_with(page, table(json.loads(TEXT))), "run `make stages`"


def test_every_cell_is_in_it_and_each_refusal_says_why() -> None:
    outcomes = json.loads(TEXT)
    assert list(outcomes["cells"]) == CELLS
    for cell in outcomes["cells"].values():
        assert cell["outcome"] != "refused" or (cell["command"] and cell["reason"])
