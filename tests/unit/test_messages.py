"""The golden file of messages has no entry without its test, and the form in which it is written."""

import pytest

from tests import messages
from tests.messages import form, parse


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
