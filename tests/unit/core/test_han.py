"""One range of Chinese characters: what is in it, and that nobody has a second one."""

import re

import pytest

from core.han import HAN
from tests.conftest import ROOT

OTHERS = {"compiler/init/look.py"}  # counts punctuation and full-width forms as Chinese too


@pytest.mark.parametrize(
    ("letter", "expected"),
    [("中", True), ("㐀", True), ("豈", True), ("𠀀", True), ("\U00031350", True)]
    + [("䷀", False), ("あ", False), ("。", False), ("a", False)],
)
def test_ideographs_alone_are_in_it(letter: str, expected: bool) -> None:
    assert bool(re.fullmatch(f"[{HAN}]", letter)) is expected


def test_there_is_no_second_range() -> None:
    packages = ("core", "compiler", "recipes", "adapters", "eval")
    files = [path for package in packages for path in (ROOT / package).rglob("*.py")]
    found = {str(path.relative_to(ROOT)) for path in files if "\\u9fff" in path.read_text(encoding="utf-8")}
    assert found == {"core/han.py", *OTHERS}
