"""Explanations of codes in Chinese: one for each code, below the problems, and nowhere for other readers."""

import re
from pathlib import Path

import pytest

from tests.cli.scoring import invoke
from tests.json_files import write_lines
from tools.reference import list_of_codes
from tuneyard.compiler.cli import cli as data
from tuneyard.core.errors import Problem, ProblemsError
from tuneyard.core.errors.problem_codes import EXPLANATIONS, guide
from tuneyard.core.installation.checkout import ROOT
from tuneyard.core.language.messages import catalogue
from tuneyard.core.language.reader import CHINESE, in_language

CODE = re.compile(r"\b[EWN]\d{3}\b")
LOCALE = ("LC_ALL", "LC_MESSAGES", "LANG")


def codes_of_the_product() -> set[str]:
    """Each code that stands in a string of the product, or that its documents explain."""
    codes: set[str] = set()
    for package in ("core", "compiler", "recipes", "adapters", "eval"):
        for file in (ROOT / package).rglob("*.py"):
            codes.update(re.findall(r'"([EWN]\d{3})"', file.read_text(encoding="utf-8")))
    for name in ("problems", "recipes", "verify"):
        codes.update(CODE.findall((ROOT / f"docs/{name}.md").read_text(encoding="utf-8")))
    return codes


@pytest.fixture
def no_locale(monkeypatch: pytest.MonkeyPatch) -> None:
    for variable in LOCALE:
        monkeypatch.delenv(variable, raising=False)


def test_each_code_has_an_explanation_in_chinese() -> None:
    assert codes_of_the_product() == set(catalogue(EXPLANATIONS))
    for code, meaning_and_fix in catalogue(EXPLANATIONS).items():
        assert re.search("[\u4e00-\u9fff].*。.*[\u4e00-\u9fff]", meaning_and_fix), code


def test_the_document_lists_every_code_and_is_current() -> None:
    text = (ROOT / "docs/zh/problems.md").read_text(encoding="utf-8")
    assert text == list_of_codes(), "make reference"
    assert re.findall(r"^- ([EWN]\d{3})：", text, re.MULTILINE) == sorted(catalogue(EXPLANATIONS))


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
