"""Kept outputs: what a file that somebody edited may hold."""

from collections.abc import Mapping
from pathlib import Path

import pytest

from tests.json_files import write_lines
from tests.messages import raises
from tuneyard.core.errors import ContentError
from tuneyard.eval.models.replay import Replay
from tuneyard.eval.runs.results import PREDICTIONS

ROWS: list[int] = [0, 1]
TEXT = {"reference": "a", "loss": 3.5, "tokens": 4, "truncated": False, "reference_tokens": 1}
CHOICE = {"model_output": "yes", "choices": {"yes": -0.1, "no": -3}, "label_mass": 0.95}
WAYS = {
    "loss": lambda replay: replay.losses(dict, None).score(ROWS),
    "choice": lambda replay: replay.choosing(ROWS, {"yes": [], "no": []}).score(ROWS),
    "chat": lambda replay: replay.chat(dict.fromkeys(ROWS, ""), list, 1),
}


@pytest.mark.parametrize(
    ("way", "line", "name", "value"),
    [
        ("loss", TEXT, "tokens", True),
        ("loss", TEXT, "truncated", None),
        ("loss", TEXT, "prediction_tokens", [4]),
        ("loss", TEXT, "prediction", 5),
        ("choice", CHOICE, "row", 0),
        ("choice", CHOICE, "choices", [1]),
        ("choice", CHOICE, "label_mass", "1"),
        ("chat", CHOICE, "model_output", None),
        ("chat", CHOICE, "transcript", [1]),
    ],
)
def test_a_value_that_is_not_the_commands_own_is_refused_at_its_row(
    tmp_path: Path, way: str, line: Mapping[str, object], name: str, value: object
) -> None:
    write_lines(tmp_path / PREDICTIONS, [{**line, "row": 0}, {**line, "row": 1, name: value}])
    with raises(ContentError, PREDICTIONS, "transcript.0" if name == "transcript" else name):
        WAYS[way](Replay(run=tmp_path).for_rows("", 2))


def test_a_row_beyond_those_of_the_dataset_is_refused(tmp_path: Path) -> None:
    write_lines(tmp_path / PREDICTIONS, [{"row": 0}, {"row": 1}])
    with raises(ContentError, "row 1", "1 examples"):
        Replay(run=tmp_path).for_rows("", 1)
