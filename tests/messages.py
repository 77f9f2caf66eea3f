"""What tests assert of messages: class of the error, code, place, name, figure.

    with raises(ContentError, "sweep.yaml:5", "E351", 20):
        …

The wording of verdicts and of one message for each code of a recipe is in tests/golden/messages.txt, for
reviews. `golden_text` compares a text with the entry of its test there. (Messages of codes of data are in
docs/problems.md, help texts in docs/reference.md, and tests compare both.) After a change of wording, rewrite
the entries of the tests that you run, and read the diff:

    .venv/bin/python -m pytest --regenerate tests/unit/eval_report/test_verdict.py
"""

import difflib
import re
import sys
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import click
import pytest

ROOT = Path(__file__).resolve().parent.parent
GOLDEN = ROOT / "tests/golden/messages.txt"
INDENT = " " * 4
_CONTROL = re.compile("[\x00-\x09\x0b-\x1f\x7f\x85\u2028\u2029\ud800-\udfff]")

_recorded: list[str] = []
"""The messages of the test that runs, so far."""
_temporary = Path("/nonexistent")
"""The folder in which all tests have theirs."""


@contextmanager
def raises(
    error: type[BaseException] | tuple[type[BaseException], ...], *facts: object
) -> Iterator[pytest.ExceptionInfo[BaseException]]:
    """`pytest.raises`; the message contains each fact as a whole word."""
    with pytest.raises(error) as caught:
        yield caught
    printed(message_of(caught.value), *facts)


def message_of(error: BaseException) -> str:
    """The sentence that a user reads."""
    if isinstance(error, click.ClickException):
        return error.format_message()
    return str(error)


def golden_text(text: str, *facts: object) -> None:
    """A text contains each fact as a whole word, and its wording is the golden one."""
    printed(text, *facts)
    _recorded.append(normalised(text))


def printed_line(text: str, *facts: object) -> str:
    """The only line of a text that contains each fact as a whole word."""

    def has_all(line: str) -> bool:
        return all(contains(line, str(fact)) for fact in facts)

    lines = [line for line in text.split("\n") if has_all(line)]
    assert len(lines) == 1, f"expected one line with {facts}, found {lines} in:\n{text}"
    return lines[0]


def printed(text: str, *facts: object) -> None:
    """A text contains each fact as a whole word. The fact 3 is not in "13", "0.3" or "3.5".

    Rows of a table write several facts in one string: "sweep.yaml:5; E351; 20".
    """
    for fact in facts:
        for part in str(fact).split("; "):
            assert contains(text, part), f"expected {part!r} in: {text}"


def contains(text: str, fact: str) -> bool:
    """Whether a fact is in a text, and no part of a longer word or number there."""
    pattern = re.escape(fact)
    if re.match("[0-9A-Za-z_]", fact):
        pattern = rf"(?<![0-9A-Za-z_])(?<!\d[.,]){pattern}"
    if re.search("[0-9A-Za-z_]$", fact):
        pattern = rf"{pattern}(?![0-9A-Za-z_])(?![.,]\d)"
    return re.search(pattern, text) is not None


def normalised(text: str) -> str:
    """Name folders alike on every machine, and escape what an editor would not show."""
    temporary = re.escape(str(_temporary))
    text = re.sub(rf"{temporary}/[^/\s\"':,;]+", "TMP", text)
    text = text.replace(sys.prefix, "VENV").replace(str(ROOT), "CLONE")
    text = _CONTROL.sub(lambda sign: sign[0].encode("unicode_escape").decode(), text)
    return "\n".join(line.rstrip() for line in text.rstrip("\n").split("\n"))


def compare(test: str) -> None:
    """Fail if the messages of a test are not its golden ones."""
    expected = golden().get(test, [])
    if _recorded == expected:
        return
    before = "\n".join(expected).split("\n")
    after = "\n".join(_recorded).split("\n")
    difference = "\n".join(difflib.unified_diff(before, after, "golden", "now", n=0, lineterm=""))
    pytest.fail(
        f"the wording is not that of {GOLDEN.relative_to(ROOT)}:\n{difference}\n"
        "If it is meant, rewrite the entry and read its diff:\n"
        f"  .venv/bin/python -m pytest --regenerate '{test}'",
        pytrace=False,
    )


_golden: dict[str, list[str]] | None = None


def golden() -> dict[str, list[str]]:
    """The messages by test, read once."""
    global _golden
    if _golden is None:
        _golden = parse(GOLDEN.read_text(encoding="utf-8"))
    return _golden


def parse(text: str) -> dict[str, list[str]]:
    """Read the golden file: the id of a test, its messages indented once, their further lines twice."""
    messages_by_test: dict[str, list[str]] = {}
    messages: list[str] = []
    for line in text.split("\n"):
        if line.startswith(INDENT * 2):
            messages[-1] += "\n" + line.removeprefix(INDENT * 2)
        elif line.startswith(INDENT):
            messages.append(line.removeprefix(INDENT))
        elif line:
            messages = messages_by_test.setdefault(line, [])
    return messages_by_test


def form(messages_by_test: Mapping[str, list[str]]) -> str:
    """The golden file's text: one block a test, sorted by id, so that changes of two people merge."""
    blocks = []
    for test, messages in sorted(messages_by_test.items()):
        lines = [test]
        for message in messages:
            first, *further = message.split("\n")
            lines.append(INDENT + first)
            lines += [INDENT * 2 + line for line in further]
        blocks.append("\n".join(lines) + "\n")
    return "\n".join(blocks)


def stale(tests: Iterable[str], arguments: Iterable[str]) -> list[str]:
    """Entries whose test is gone: its file does not exist, or was collected in whole and lacks the test.

    `tests` are the ids of all collected tests, `arguments` those of the command line.
    """
    ids = set(tests)
    chosen = {argument.partition("::")[0] for argument in arguments if "::" in argument}
    whole = {test.partition("::")[0] for test in ids} - {relative(path) for path in chosen}
    entries = []
    for test in golden():
        file = test.partition("::")[0]
        if (file in whole and test not in ids) or not (ROOT / file).is_file():
            entries.append(test)
    return entries


def relative(path: str) -> str:
    """A path of the command line as test ids have it."""
    absolute = Path(path).resolve()
    return str(absolute.relative_to(ROOT)) if absolute.is_relative_to(ROOT) else path


class Comparison:
    """Compares the messages of each test with its golden entry, or rewrites the entries (in one process)."""

    NAME = "golden messages"

    def __init__(self, config: pytest.Config) -> None:
        self.config = config
        self.messages_by_test: dict[str, list[str]] = {}
        self.stale: set[str] = set()

    @property
    def rewrites(self) -> bool:
        """Whether the golden file is rewritten."""
        return bool(self.config.getoption("regenerate"))

    @pytest.hookimpl(tryfirst=True)
    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        """Look for stale entries while nothing is deselected yet. --lf does not collect whole files."""
        if not self.config.getoption("lf", False):
            self.stale |= set(stale([item.nodeid for item in items], self.config.args))

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_call(self, item: pytest.Item) -> Iterator[None]:
        """Compare when a test has passed, or keep what it recorded."""
        global _temporary
        folders: pytest.TempPathFactory = item.config._tmp_path_factory  # type: ignore[attr-defined]
        _temporary = folders.getbasetemp()
        _recorded.clear()
        yield
        if self.rewrites:
            self.messages_by_test[item.nodeid] = [*_recorded]
        else:
            compare(item.nodeid)

    @pytest.hookimpl(tryfirst=True)
    def pytest_sessionfinish(self) -> None:
        """Write the file."""
        if self.rewrites:
            entries = {**parse(GOLDEN.read_text(encoding="utf-8")), **self.messages_by_test}
            remaining = {test: texts for test, texts in entries.items() if texts and test not in self.stale}
            GOLDEN.write_text(form(remaining), encoding="utf-8")
