"""SECURITY.md names each file of tests here, and each of them names its paragraph."""

import ast
import re
from pathlib import Path

from tests.conftest import ROOT
from tools import security_table

PAGE = (ROOT / "SECURITY.md").read_text(encoding="utf-8")
TESTS = [path for path in Path(__file__).parent.glob("test_*.py") if path.name != Path(__file__).name]


def test_each_paragraph_has_its_tests() -> None:
    assert set(re.findall(r"`(test_\w+\.py)`", PAGE)) == {path.name for path in TESTS}


def test_each_file_of_tests_names_its_paragraph() -> None:
    for path in TESTS:
        docstring = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or ""
        (paragraph,) = re.findall(r'SECURITY\.md, "(\w+)"', docstring)
        text = PAGE.partition(f"### {paragraph}\n")[2].partition("\n#")[0]
        assert f"`{path.name}`" in text, path.name


def test_the_table_is_that_of_today() -> None:
    """`make reference` writes it."""
    assert security_table.page() == PAGE


def test_the_table_has_every_command_and_shows_what_no_test_tries() -> None:
    rows = [line.split("|") for line in PAGE.partition(security_table.BEGIN)[2].splitlines() if "|" in line]
    names = [row[1].strip() for row in rows[2:]]
    assert names == security_table.command_names() and len(names) > 40
    pairs = security_table.tried()
    assert ("recipe check", "code") in pairs and ("demo", "code") not in pairs
    assert sum(row.count(" ✓ ") + row.count(" ✓") for row in PAGE.splitlines() if row.startswith("| ")) > 0
