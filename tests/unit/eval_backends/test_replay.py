"""Kept outputs: what a file that somebody edited may hold."""

from pathlib import Path

import pytest

from tests.json_files import write_lines
from tests.messages import raises
from tuneyard.core.errors import ContentError
from tuneyard.eval.read.results import PREDICTIONS, read_outputs


@pytest.mark.parametrize(
    ("name", "value"), [("loss", "3.5"), ("tokens", True), ("prediction_tokens", [4]), ("row", 2)]
)
def test_a_value_that_is_not_the_commands_own_is_refused_at_its_row(
    tmp_path: Path, name: str, value: object
) -> None:
    line = {"row": 0, "loss": 3.5, "tokens": 4, "prediction_tokens": 4}
    write_lines(tmp_path / PREDICTIONS, [line, {**line, "row": 1, name: value}])
    with raises(ContentError, PREDICTIONS, "row", name):
        read_outputs(tmp_path, 2)
