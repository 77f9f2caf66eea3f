"""Explanations of codes in Chinese: one for each code, below the problems, and nowhere for other readers."""

import re
from pathlib import Path

import pytest

from tests.cli.scoring import invoke
from tests.json_files import write_lines
from tuneyard.compiler.cli import cli as data
from tuneyard.core.cli.explain import problem_codes
from tuneyard.core.errors import Problem, ProblemsError
from tuneyard.core.errors.problem_codes import guide
from tuneyard.core.installation.checkout import ROOT
from tuneyard.core.language.reader import CHINESE, in_language

CODE = re.compile(r"\b[EWN]\d{3}\b")
LOCALE = ("LC_ALL", "LC_MESSAGES", "LANG")


@pytest.fixture
def no_locale(monkeypatch: pytest.MonkeyPatch) -> None:
    for variable in LOCALE:
        monkeypatch.delenv(variable, raising=False)


def test_codes_have_explanations_in_chinese() -> None:
    """Those of today: a new code is printed in English until the catalogue has its Chinese."""
    with in_language(CHINESE):
        lines = guide(problem_codes())
    assert [line[:4] for line in lines] == list(problem_codes())
    chinese = [
        line for line in lines if re.fullmatch(r"\w{4}：.*[\u4e00-\u9fff].*。.*[\u4e00-\u9fff].*", line)
    ]
    assert len(chinese) >= 159


def test_each_code_has_an_anchor_and_a_line_of_its_own() -> None:
    english = (ROOT / "docs/problems.md").read_text(encoding="utf-8")
    chinese = (ROOT / "docs/zh/problems.md").read_text(encoding="utf-8")
    assert sorted(re.findall(r"^### ([EWN]\d{3}) \S", english, re.MULTILINE)) == list(problem_codes())
    assert sorted(re.findall(r"^- ([EWN]\d{3})：\S", chinese, re.MULTILINE)) == list(problem_codes())


@pytest.mark.parametrize("folder", ["bad", "recipes/bad"])
def test_each_code_of_an_example_has_an_entry(folder: str) -> None:
    codes = {path.name[:4] for path in (ROOT / "tests/examples" / folder).iterdir() if CODE.match(path.name)}
    assert len(codes) > 40 and codes <= set(problem_codes())


def test_each_code_that_a_document_names_has_an_entry() -> None:
    for path in (ROOT / "docs").rglob("*.md"):
        codes = set(CODE.findall(path.read_text(encoding="utf-8")))
        assert {code for code in codes if code[1] != "9"} <= set(problem_codes()), path


@pytest.mark.parametrize(
    ("variables", "is_chinese"),
    [
        ({}, False),
        ({"LANG": "en_US.UTF-8"}, False),
        ({"LANG": "zh_CN.UTF-8"}, True),
        ({"LC_ALL": "C.UTF-8", "LANG": "zh_CN.UTF-8"}, False),
        ({"LC_MESSAGES": "zh_TW", "LANG": "de_DE.UTF-8"}, True),
        ({"LC_ALL": "", "LANG": "zh_CN.UTF-8"}, True),
    ],
)
def test_the_locale_decides_without_an_option(
    no_locale: None, monkeypatch: pytest.MonkeyPatch, variables: dict[str, str], is_chinese: bool
) -> None:
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert bool(guide(["E104"])) == is_chinese


def test_a_code_is_explained_once_however_many_problems_have_it(no_locale: None) -> None:
    problems = [Problem(code, f"a.json:{line}", "x") for line, code in enumerate(["W204", "E104", "E104"])]
    with in_language(CHINESE):
        lines = str(ProblemsError(problems, "a.json")).splitlines()
    assert [line[:5] for line in lines[-2:]] == ["E104：", "W204："]
    assert str(ProblemsError(problems, "a.json")).splitlines() == lines[:-2]


@pytest.mark.parametrize(("answer", "code"), [(3, "E105"), ("", "W204")])
@pytest.mark.parametrize("by", ["option", "locale"])
def test_a_check_explains_its_codes_and_json_stays_the_same(
    no_locale: None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, by: str, answer: object, code: str
) -> None:
    source = tmp_path / "a.jsonl"
    rows = [{"question": "a", "answer": "b"}, {"question": "c", "answer": answer}]
    write_lines(source, rows)
    command = ["check", "qa", "--source", source, "-q"]
    english = invoke(data, *command)
    english_json = invoke(data, *command, "--json")
    if by == "option":
        command += ["--lang", "zh"]
    else:
        monkeypatch.setenv("LANG", "zh_CN.UTF-8")
    chinese = invoke(data, *command)
    lines = chinese.stderr.splitlines()
    assert [line[:5] for line in lines if line.startswith(code)] == [f"{code}："]
    assert len(lines) == len(english.stderr.splitlines()) + 1
    keep = re.compile(r'"seconds": [0-9.e-]+')
    same = invoke(data, *command, "--json")
    assert keep.sub("", same.stdout) == keep.sub("", english_json.stdout)
