"""The golden file of messages: its form, what a test asserts, and how it is rewritten."""

import sys

import pytest

from tests import messages
from tests.messages import contains, form, normalised, parse, printed_line, raises
from tuneyard.core.errors import RequestError

pytest_plugins = ("pytester",)


def test_every_entry_belongs_to_a_test(request: pytest.FixtureRequest) -> None:
    """Of the files that were collected in whole. `--regenerate` of such a file takes a stale entry out."""
    if request.config.getoption("regenerate"):
        pytest.skip("the entries are being rewritten")
    comparison = request.config.pluginmanager.get_plugin(messages.Comparison.NAME)
    assert sorted(comparison.stale) == []


def test_the_file_is_as_it_would_be_written_again() -> None:
    """After a merge: `pytest --regenerate tests/unit/test_messages.py` sorts its blocks."""
    text = messages.GOLDEN.read_text(encoding="utf-8")
    assert form(parse(text)) == text


def test_a_block_is_read_as_it_is_written() -> None:
    entries = {"tests/b.py::test_two[a b]": ["one\n\n  two", "three"], "tests/a.py::test_one": ["E1: x"]}
    text = form(entries)
    assert text.split("\n")[:3] == ["tests/a.py::test_one", "    E1: x", ""]
    assert parse(text) == entries


@pytest.mark.parametrize(
    ("text", "fact", "expected"),
    [
        ("found 3 rows", "3", True),
        ("found 13 rows", "3", False),
        ("found 3.5 rows", "3", False),
        ("found 1,003 rows", "3", False),
        ("stopped after 0.3.", "0.3", True),
        ("a/b.jsonl:12: E105", "b.jsonl:12", True),
        ("a/b.jsonl:12: E105", "b.jsonl:1", False),
        ("give --seed", "--seed", True),
        ("give --seeds", "--seed", False),
        ("标签“否”错", "否", True),
    ],
)
def test_a_fact_is_a_whole_word_or_number(text: str, fact: str, expected: bool) -> None:
    assert contains(text, fact) == expected


def test_a_message_without_its_fact_fails() -> None:
    for fact in (13, "13", "found; 13"):
        with pytest.raises(AssertionError, match="expected '13' in"), raises(RequestError, fact):
            raise RequestError("found 3 rows")


def test_all_facts_of_a_line_are_in_that_line_alone() -> None:
    text = "a.json: 3 rows\nb.json: 4 rows\nb.json: 4 columns"
    assert printed_line(text, "a.json", 3) == "a.json: 3 rows"
    for facts in (("a.json", 4), ("b.json", 4)):
        with pytest.raises(AssertionError):
            printed_line(text, *facts)


def test_places_of_this_machine_have_one_name(tmp_path) -> None:
    text = f"{tmp_path}/a.json: no; {sys.prefix}/bin\x1b"
    assert normalised(text) == "TMP/a.json: no; VENV/bin\\x1b"


INNER = """
    from tests.messages import golden_text

    def test_rows():
        golden_text("a.jsonl:3: found 5 rows", "a.jsonl:3", 5)

    def test_silent():
        pass
"""


def run(project: pytest.Pytester, *arguments: str) -> pytest.RunResult:
    """Run the tests of a project in a process of their own, without plugins that take time to import."""
    return project.runpytest_subprocess("-p", "no:hypothesispytest", "-p", "no:anyio", *arguments)


@pytest.fixture
def project(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> pytest.Pytester:
    """A folder with one test of a message, and a golden file of its own."""
    (pytester.path / "golden.txt").write_text("")
    pytester.makeconftest(
        "from pathlib import Path\n"
        "from tests import messages\n"
        "from tests.conftest import pytest_addoption, pytest_configure\n"
        "messages.GOLDEN = Path(__file__).with_name('golden.txt')\n"
        "messages.ROOT = Path(__file__).parent\n"
    )
    pytester.makepyfile(test_inner=INNER)
    monkeypatch.setenv("PYTHONPATH", str(messages.ROOT))
    return pytester


@pytest.mark.slow
def test_regenerate_rewrites_the_entries_of_the_tests_that_ran(project: pytest.Pytester) -> None:
    file = project.path / "golden.txt"
    other = "other.py::test_kept\n    of a test that did not run\n"
    (project.path / "other.py").touch()
    stale = "test_inner.py::test_gone\n    of a test that is gone\n"
    file.write_text(f"{other}\n{stale}")
    assert run(project, "--regenerate").ret == 0
    assert file.read_text() == f"{other}\ntest_inner.py::test_rows\n    a.jsonl:3: found 5 rows\n"
    assert run(project).ret == 0


def test_another_wording_fails_with_the_command_that_rewrites_it(project: pytest.Pytester) -> None:
    message = "    a.jsonl:3: found five rows\n"
    file = project.path / "golden.txt"
    file.write_text(f"test_inner.py::test_rows\n{message}\ntest_inner.py::test_silent\n{message}")
    result = run(project)
    assert result.ret == 1
    result.stdout.fnmatch_lines(
        [
            "*-a.jsonl:3: found five rows",
            "*+a.jsonl:3: found 5 rows",
            "*pytest --regenerate 'test_inner.py::test_rows'",
            "*-a.jsonl:3: found five rows",
            "*2 failed*",
        ]
    )
