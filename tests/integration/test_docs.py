"""Every command in README and docs runs, in the order of the page, in a copy of the checkout.

A page needs what the demo leaves and nothing of other pages, so two workers share the pages between them.
`tuneyard` runs in forks of one process with its imports: as a program it is tests/cli/test_tuneyard.py's.
The base model is narrow and its scores mean nothing; with the demo's own, test_demo.py runs all steps.

Blocks fenced as ```console hold commands behind `$ `; a command may hold a text up to its EOF. What stands
below a command must be in what it says, line by line. `cd` holds to the end of the page. Blocks marked
```console gpu need hardware or a hub that CI has not: of them the recipes that they name are put through
`tuneyard recipe check`. Blocks marked ```console lf run in a
folder of LLaMA-Factory's own files, where that is here. Blocks marked ```console way are those of a published
document: test_ways.py runs them.
"""

import re
import shutil
from pathlib import Path
from typing import NamedTuple

import pytest
import yaml

from testing.commands import commands as all_commands
from testing.forks import Forks
from tests.conftest import ROOT
from tests.integration.conftest import Checkout, copy_tracked_files, made_once
from tests.real_data import real_path

pytestmark = [pytest.mark.slow, pytest.mark.timeout(2700)]
DOCS = ROOT / "docs"
PAGES = [ROOT / "README.md", ROOT / "recipes/README.md", *sorted(DOCS.rglob("*.md"))]
# A page and its translation have the same commands (tests/unit/test_pages.py): one of the two runs.
PAGES = [page for page in PAGES if DOCS / "zh" not in page.parents]
PAGES = [page for page in PAGES if DOCS / "ways" not in page.parents]  # they are test_ways.py's
BLOCK = re.compile(r"^```console(?P<where> gpu| lf| way)?\n(?P<body>.*?)^```$", re.M | re.S)
COMMAND = re.compile(r"^\$ (?P<line>(?:.*\\\n)*.*)\n(?P<below>(?:(?!\$ ).*\n)*)", re.M)
ALREADY_RUN = re.compile(r"^make (test|test-slow|lint|setup|setup-core|clean|bench|demo)\b|^git clone")


class Step(NamedTuple):
    """A command of a page: where it runs, its text, and the lines that it is shown to say."""

    where: str
    command: str
    shown: list[str]


def commands(page: Path) -> list[Step]:
    """All commands of a page; a backslash goes on with the next line, `<<'EOF'` up to a line EOF."""
    steps = []
    for block in BLOCK.finditer(page.read_text(encoding="utf-8")):
        for found in COMMAND.finditer(block["body"]):
            line, below = found["line"].replace("\\\n", " "), found["below"]
            if line.endswith("<<'EOF'"):
                text, end, below = below.partition("EOF\n")
                line += f"\n{text}{end}"
            steps.append(Step((block["where"] or "").strip(), line, below.splitlines()))
    return steps


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
        made.append(f"tuneyard recipe check --quick --for gpu {recipe}{overrides} {data}")
    return made


STEPS = (
    "tuneyard data compile demo_rte",
    "tuneyard data compile demo_mnli",
    "tuneyard recipe train recipes/demo-rte.yaml",
    "tuneyard recipe train recipes/demo-mnli.yaml max_steps=2",
    "tuneyard eval sweep --model models/demo-base --dataset demo_rte_eval --dataset demo_mnli_eval --limit 20"
    " --adapter rte=saves/demo-rte --adapter mnli=saves/demo-mnli --grid 0,1 --out results/demo",
    "echo 'adapters: [demo-rte=1, demo-mnli=0.5]' > results/demo/merge.yaml",
)
"""What the demo does. It writes merge.yaml where weights are better than the base."""


@pytest.fixture(scope="session")
def checkout(narrow_smollm: Path, forks: Forks, tmp_path_factory: pytest.TempPathFactory) -> Checkout:
    """This worker's copy of a checkout in which the steps of the demo have run on the narrow base model."""

    def make(folder: Path) -> None:
        checkout = copy_tracked_files(folder)
        checkout.forks = forks
        shutil.copytree(narrow_smollm, folder / "models/demo-base")
        for command in STEPS:
            checkout.shell(command)

    finished = made_once(tmp_path_factory, "steps-of-demo", make)
    root = shutil.copytree(finished, tmp_path_factory.mktemp("checkout") / "tuneyard", symlinks=True)
    return Checkout(root, forks)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_the_commands_of_a_page_run(checkout: Checkout, page: Path) -> None:
    folder = Path()
    for where, command, shown in commands(page):
        if ALREADY_RUN.match(command):
            continue
        if command.startswith("cd "):
            folder /= command.removeprefix("cd ")
        elif where == "gpu":
            for check in checks(command):
                checkout.shell(check)
        elif where == "":
            said = checkout.shell(f"cd {folder} && {command}")
            assert [line for line in shown if line not in said] == [], f"$ {command}\n{said}"


def test_the_commands_in_a_llamafactory_folder_find_what_is_shown(checkout: Checkout, tmp_path: Path) -> None:
    shutil.copytree(real_path("lf"), tmp_path / "lf")
    (tmp_path / "lf").chmod(0o755)  # the original may be read-only, and `data view` writes its page
    page = (ROOT / "README.md").read_text(encoding="utf-8")
    of_this = [step.command for step in commands(ROOT / "README.md") if step.where == "lf"]
    said = "".join(checkout.shell(f"cd {tmp_path}/lf && {command}") for command in of_this)
    shown = re.findall(r"^(?:identity: 91|examples/train_lora).*$", page, re.M)
    assert len(shown) == 3
    for line in shown:
        assert line in said


NOT_RUN = {
    "tuneyard eval cmmlu": "its data and its base come from a hub",
    "tuneyard eval ab tally": "people have to rate first",
    "tuneyard adapter rename": "the names of the demo's adapters are right",
}


@pytest.mark.parametrize("name", [context.command_path for context in all_commands()])
def test_the_examples_of_a_help_run(checkout: Checkout, name: str) -> None:
    if name in NOT_RUN:
        pytest.skip(NOT_RUN[name])
    command = next(found.command for found in all_commands() if found.command_path == name)
    for example in command.examples:
        checkout.shell(f"mkdir -p build; {example}")
