"""One range of Chinese characters: what is in it, and that nobody has a second one."""

import re

import pytest

from tests.conftest import ROOT
from tuneyard.core.language.han import HAN, closed_up


def test_ideographs_alone_are_in_it() -> None:
    rare = "\U00020000\U00031350"
    assert re.findall(f"[{HAN}]", f"中䷀㐀あ豈。a{rare}") == ["中", "㐀", "豈", *rare]


def test_there_is_no_second_range() -> None:
    packages = ("core", "compiler", "recipes", "adapters", "eval")
    files = [path for package in packages for path in (ROOT / package).rglob("*.py")]
    found = {str(path.relative_to(ROOT)) for path in files if "\\u9fff" in path.read_text(encoding="utf-8")}
    assert found == {"core/language/han.py"}


@pytest.mark.parametrize(
    ("template", "first", "second", "text"),
    [
        ("{first} {second}", "缺少该列", 3, "缺少该列 3"),
        ("{first} {second}", "缺少该列", "id", "缺少该列 id"),
        ("{first} {second}", "缺少", "该列", "缺少该列"),
        ("{first} {second:,} 行", "共", 2000, "共 2,000 行"),
        ("{first}  {second}", "标签", 3, "标签  3"),
        ("为 {first}，应为 {second}", "文本", "整数", "为文本，应为整数"),
    ],
)
def test_a_space_stays_between_chinese_and_a_number_or_a_latin_word(
    template: str, first: object, second: object, text: str
) -> None:
    values = {"first": first, "second": second}
    assert closed_up(template, values).format(**values) == text
