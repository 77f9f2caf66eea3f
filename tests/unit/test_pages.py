"""Links of the documents lead somewhere, and what is said beside the commands holds."""

import re
from pathlib import Path

import pytest
import yaml

from tests.conftest import PROJECT, ROOT
from tests.integration.test_docs import commands

PAGES = [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md"), *(ROOT / "recipes").glob("*.md")]
ADDRESS = re.compile(r"(?:git clone |git\+)(https?://[^\s\"'`]+)")
LINK = re.compile(r"\]\((?!https?://|mailto:)([^)\s]+)\)")


def anchors(page: Path) -> set[str]:
    """The anchors of a page's headings, as GitHub makes them."""
    heads = re.findall(r"^#+ (.+)$", page.read_text(encoding="utf-8"), re.M)
    return {re.sub(r"[^\w\- ]", "", head.lower()).replace(" ", "-") for head in heads}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_to_files_and_headings(page: Path) -> None:
    for link in LINK.findall(page.read_text(encoding="utf-8")):
        path, _, anchor = link.partition("#")
        target = (page.parent / path) if path else page
        assert target.exists(), f"{link}: no such file"
        assert not anchor or anchor in anchors(target), f"{link}: no such heading"


def test_the_chinese_readme_has_the_commands_and_figures_of_the_english_one() -> None:
    """The commands are run from the English one (tests/integration/test_docs.py)."""
    one, other = ((ROOT / name).read_text(encoding="utf-8") for name in ("README.md", "README.zh.md"))
    commands = [
        [line.partition("  #")[0].rstrip() for line in re.findall(r"^\$ (.*)$", text, re.M)]
        for text in (one, other)
    ]
    assert commands[0] == commands[1]
    tables = [re.findall(r"^\| .*\d ?% .*\|$", text, re.M) for text in (one, other)]
    figures = [[re.findall(r"\d+\.\d", row) for row in table] for table in tables]
    assert figures[0] == figures[1] and len(figures[0]) == 6


def test_pages_have_the_address_of_pyproject() -> None:
    pages = {page: page.read_text(encoding="utf-8") for page in (*PAGES, ROOT / "docs/ci/github-actions.yml")}
    with_address = {page.name for page, text in pages.items() if ADDRESS.search(text)}
    assert {"README.md", "README.zh.md", "install.md"} <= with_address
    for page, text in pages.items():
        assert set(ADDRESS.findall(text)) <= {PROJECT["urls"]["Repository"]}, page


TRANSLATED = sorted((ROOT / "docs/zh").rglob("*.md"))


@pytest.mark.parametrize("page", TRANSLATED, ids=lambda page: str(page.relative_to(ROOT)))
def test_a_chinese_page_has_the_commands_of_the_english_one(page: Path) -> None:
    english = ROOT / "docs" / page.relative_to(ROOT / "docs/zh")
    steps = [step._replace(command=step.command.replace(" --lang zh", "")) for step in commands(page)]
    assert steps == commands(english)
    assert "tutorials" not in page.parts or len(steps) > 5


@pytest.mark.parametrize("page", [ROOT / "CONTRIBUTING.md", *(ROOT / "docs/ways").iterdir()])
def test_the_files_that_a_table_names_exist(page: Path) -> None:
    rows = re.findall(r"^\|.*\|$", page.read_text(encoding="utf-8"), re.M)
    paths = re.findall(r"`((?:adapters|compiler|core|eval|recipes|samples|tests)/[\w./-]+)`", "".join(rows))
    assert [path for path in paths if "NAME" not in path and not (ROOT / path).exists()] == []
    assert len(paths) > 5


def test_each_plot_is_drawn_by_the_file_that_the_map_names() -> None:
    text = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    comparison = re.search(r"^\| plotting of comparisons: (.*) \| `(.*)` \|$", text, re.M)
    assert comparison
    named = dict.fromkeys(re.findall(r"`(\w+\.png)`", comparison[1]), comparison[2])
    named |= dict(re.findall(r"`(\w+\.png)`: `([\w/.]+)`", text))
    assert len(named) == 8
    for plot, path in named.items():
        assert f'{plot}"' in (ROOT / path).read_text(encoding="utf-8"), plot


WAYS = {"defect-reports", "lora-handbook", "qlora-7b", "rte-mnli", "toolkit-0.5b"}
"""The five documents with a page of their own."""


def test_the_ways_are_the_pages_of_the_documents_in_two_languages() -> None:
    names = {f"{way}{language}" for way in WAYS for language in (".md", ".en.md")}
    assert {path.name for path in (ROOT / "docs/ways").iterdir()} == names


@pytest.mark.parametrize("way", sorted(WAYS))
def test_a_way_has_the_same_commands_and_figures_in_both_languages(way: str) -> None:
    chinese, english = (ROOT / f"docs/ways/{way}{language}" for language in (".md", ".en.md"))
    steps = [step._replace(command=step.command.replace(" --lang zh", "")) for step in commands(chinese)]
    assert steps == commands(english)
    assert len(steps) > 1
    figures = [re.findall(r"\d+\.\d+ ?%", page.read_text(encoding="utf-8")) for page in (chinese, english)]
    assert [each.replace(" ", "") for each in figures[0]] == [each.replace(" ", "") for each in figures[1]]


def test_the_chinese_troubleshooting_has_every_symptom_with_its_commands() -> None:
    symptoms = [
        [
            re.findall(r"`(tuneyard [^`]*|[\w.]+)`", text.replace("\n", " "))
            for text in re.split(r"^\*\*", page, flags=re.M)
        ]
        for page in (
            (ROOT / f"docs/{name}troubleshooting.md").read_text(encoding="utf-8") for name in ("", "zh/")
        )
    ]
    assert [sorted(set(named)) for named in symptoms[0]] == [sorted(set(named)) for named in symptoms[1]]
    assert len(symptoms[0]) > 15


def test_the_example_of_a_gate_runs_the_commands_of_the_readme() -> None:
    steps = yaml.safe_load((ROOT / "docs/ci/github-actions.yml").read_text())["jobs"]["check"]["steps"]
    run = " ".join(step.get("run", "") for step in steps)
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    for command in re.findall(r"^\$ tuneyard (data verify .*|recipe check .*)$", readme, re.M):
        verb, target = command.rsplit(" ", 1)
        assert re.search(rf"tuneyard {verb} .*{re.escape(target)}|tuneyard {re.escape(command)}", run), (
            command
        )


def test_the_version_is_one() -> None:
    cited = yaml.safe_load((ROOT / "CITATION.cff").read_text())["version"]
    assert f'version = "{cited}"' in (ROOT / "pyproject.toml").read_text()
