"""One range of Chinese characters: what is in it, and that nobody has a second one."""

import re

from tests.conftest import ROOT
from tuneyard.core.language.han import HAN


def test_ideographs_alone_are_in_it() -> None:
    rare = "\U00020000\U00031350"
    assert re.findall(f"[{HAN}]", f"中䷀㐀あ豈。a{rare}") == ["中", "㐀", "豈", *rare]


def test_there_is_no_second_range() -> None:
    packages = ("core", "compiler", "recipes", "adapters", "eval")
    files = [path for package in packages for path in (ROOT / package).rglob("*.py")]
    found = {str(path.relative_to(ROOT)) for path in files if "\\u9fff" in path.read_text(encoding="utf-8")}
    assert found == {"core/language/han.py"}
