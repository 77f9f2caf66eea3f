"""SECURITY.md names each file of tests here, and each of them names its paragraph."""

import ast
import re
from pathlib import Path

from testing.commands import command_names
from tests.conftest import ROOT, Run

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


def test_the_table_is_that_of_today(run: Run) -> None:
    """`make reference` writes it."""
    run("-m", "tools.security_table", "--check")


def test_the_table_has_every_command_and_shows_what_no_test_tries() -> None:
    table = PAGE.partition("<!-- made by `make reference` -->")[2].partition("<!-- end -->")[0]
    header, _line, *rows = [row.split("|")[1:-1] for row in table.splitlines() if row.startswith("|")]
    threats = [threat.strip() for threat in header[1:]]
    cells = {row[0].strip(): dict(zip(threats, map(str.strip, row[1:]), strict=True)) for row in rows}
    assert list(cells) == command_names() and len(cells) > 40
    assert cells["recipe check"]["code"] == "✓" and cells["demo"]["code"] == "reads no file"
    assert any("not tested" in marks.values() for marks in cells.values())
