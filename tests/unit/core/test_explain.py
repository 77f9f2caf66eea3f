"""`tuneyard --explain CODE`, and the registry of the entries."""

import pickle
import re
from types import ModuleType

import pytest

from tests.cli.scoring import invoke
from tests.conftest import ROOT
from tuneyard.cli import cli
from tuneyard.core.cli.explain import _by_code, problem_codes
from tuneyard.core.errors.problem_codes import ProblemCode


@pytest.mark.parametrize(("code", "severity"), [("W204", "warning"), ("e104", "error"), ("E015", "error")])
def test_a_code_is_explained(code: str, severity: str) -> None:
    entry = problem_codes()[code.upper()]
    result = invoke(cli, "--explain", code)
    assert result.exit_code == 0
    assert result.stdout.splitlines()[:2] == [f"{entry}: {severity}: {entry.meaning}", f"fix: {entry.fix}"]
    assert entry.details in result.stdout


@pytest.mark.parametrize("word", ["E999", "", "W20404", "rte", "../../etc/passwd"])
def test_a_word_that_is_no_code_is_refused(word: str) -> None:
    result = invoke(cli, "--explain", word)
    assert result.exit_code == 2 and f"{word.upper()} is no problem code" in result.stderr


def test_ours_leave_the_codes_of_packages_free() -> None:
    assert not [code for code in problem_codes() if code[1] == "9"]


def test_a_code_with_two_entries_is_refused() -> None:
    modules = [ModuleType("one"), ModuleType("two"), ModuleType("three")]
    entry = ProblemCode("W950", "a", "b")
    modules[0].CODE = modules[1].CODE = entry  # type: ignore[attr-defined]  # imported from the first
    assert _by_code(modules) == {"W950": entry}
    modules[2].OTHER = ProblemCode("W950", "a", "c")  # type: ignore[attr-defined]
    with pytest.raises(ValueError, match=r"W950.*three"):
        _by_code(modules)


@pytest.mark.parametrize("code", ["W20", "W2044", "X204", "w204", "", "W２04"])
def test_a_code_is_a_letter_and_three_digits(code: str) -> None:
    with pytest.raises(ValueError, match="three digits"):
        ProblemCode(code, "a", "b")


def test_an_entry_comes_back_whole_from_a_worker() -> None:
    entry = problem_codes()["W202"]
    again = pickle.loads(pickle.dumps(entry))
    assert again == "W202" and type(again) is ProblemCode
    assert (again.meaning, again.fix, again.details) == (entry.meaning, entry.fix, entry.details)
    assert again.message(place="a:1") == entry.message(place="a:1")


def test_no_code_is_written_where_it_is_raised() -> None:
    """Only its entry has it."""
    for package in ("adapters", "compiler", "core", "eval", "recipes"):
        for file in (ROOT / package).rglob("*.py"):
            text = file.read_text(encoding="utf-8")
            written = re.findall(r'(?<!ProblemCode\()(?<!ProblemCode\(\n    )"([EWN]\d{3})"', text)
            assert not written, file
