"""SECURITY.md names each file of tests here, and each of them names its paragraph."""

import ast
import re
from pathlib import Path

from tests.conftest import ROOT

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
