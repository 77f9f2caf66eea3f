"""Marked answers beside LLaMA-Factory: what its templates would learn of each compiled record has none."""

import re

import pytest

from tests.unit.compiler.conftest import Bench
from tests.unit.compiler.test_marks import (
    FORMS,
    compiled,
    marked_rows,
    plain_rows,
    records_of,
    specs_that_read_turns,
)
from tuneyard.compiler.inspect.template import seen_by_model

pytestmark = pytest.mark.slow


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("name", specs_that_read_turns())
def test_llamafactory_learns_no_marked_answer(tmp_path, name, form):
    bench = Bench(tmp_path)
    rows = [*marked_rows(name, form), *plain_rows(name, form)]
    assert not compiled(bench, name, rows, reject=True).failed
    seen = [seen_by_model(record, entry, "qwen") for record, entry in records_of(bench, name)]
    learned = "".join(piece for text in seen for piece in re.findall("⟦(.*?)⟧", text, re.DOTALL))
    assert "Good 0." in learned and "MARKED" not in learned
