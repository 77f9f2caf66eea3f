"""Every command in README and docs runs, in the order of the page, in a copy of the checkout.

Blocks fenced as ```console hold commands behind `$ `. Those marked ```console gpu need hardware or
a hub that CI has not: of them the recipes that they name are put through `python -m recipes check`.
"""

import re
from pathlib import Path

import pytest
import yaml

from core import reference
from core.cli import examples_of
from tests.conftest import ROOT
from tests.integration.conftest import Demo

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]
PAGES = [ROOT / "README.md", ROOT / "recipes/README.md", *sorted((ROOT / "docs").glob("*.md"))]
BLOCK = re.compile(r"^```console(?P<where> gpu)?\n(?P<body>.*?)^```$", re.M | re.S)
ALREADY_RUN = re.compile(r"^make (test|test-slow|lint|setup|setup-core|clean|bench)\b|^git clone|^cd ")


def commands(page: Path) -> list[tuple[bool, str]]:
    """All commands of a page as (needs a GPU, command); a backslash goes on with the next line."""
    return [
        (bool(block["where"]), line.replace("\\\n", " "))
        for block in BLOCK.finditer(page.read_text(encoding="utf-8"))
        for line in re.findall(r"^\$ ((?:.*\\\n)*.*)$", block["body"], re.M)
    ]


def checks(command: str) -> list[str]:
    """Return the checks of a command's recipes for a GPU node, each with the overrides that follow it.

    The documents' data is not in the checkout: the demo's is named in its place.
    """
    found = re.finditer(r"(?<!\S)(recipes/[\w.-]+\.yaml)((?: +[a-z_]+=[^\s,]+(?=\s|$))*)", command)
    made = []
    for recipe, overrides in (one.groups() for one in found):
        data = "dataset=demo_rte_train"
        if "eval_dataset" in yaml.safe_load((ROOT / recipe).read_text(encoding="utf-8")):
            data += " eval_dataset=demo_rte_eval"
        made.append(f"python -m recipes check --quick --for gpu {recipe}{overrides} {data}")
    return made


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_the_commands_of_a_page_run(demo: Demo, page: Path) -> None:
    for needs_gpu, command in commands(page):
        if ALREADY_RUN.match(command):
            continue
        if not needs_gpu:
            demo.checkout.shell(command)
            continue
        for check in checks(command):
            demo.checkout.shell(check)


NEEDS_A_HUB = ("tuneyard eval cmmlu",)
"""Their data and their base come from a hub."""


@pytest.mark.parametrize("name", [context.command_path for context in reference.commands()])
def test_the_examples_of_a_help_run(demo: Demo, name: str) -> None:
    if name in NEEDS_A_HUB:
        pytest.skip("a model and a benchmark from a hub")
    command = next(found.command for found in reference.commands() if found.command_path == name)
    for example in examples_of(command):
        demo.checkout.shell(f"mkdir -p build; {example}")
