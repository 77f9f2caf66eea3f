"""The backend of --rescore: the outputs that predictions.jsonl holds, without a model."""

from pathlib import Path
from typing import TYPE_CHECKING

from tuneyard.core.documents import json_lines
from tuneyard.core.documents.schema_errors import is_number
from tuneyard.core.errors import ContentError, RequestError, show_value, unexpected
from tuneyard.eval.backends import Backend

if TYPE_CHECKING:
    from tuneyard.eval.backends.scorers import Fields

PREDICTIONS = "predictions.jsonl"
NUMBERS = ("loss", "tokens", "prompt_tokens", "prediction_tokens", "reference_tokens")


class Replay(Backend):
    """The outputs of an earlier run. Its run.json has the facts that a model would give."""

    def needs_model(self) -> RequestError:
        """The error for what kept outputs do not have."""
        return RequestError("--rescore has no model: this figure needs one, score without --rescore")


def read_outputs(folder: Path, rows: int) -> "dict[int, Fields]":
    """The kept lines of a model on a dataset by row.

    `ContentError` for a row that the dataset lacks, and for a length or loss that is no number.
    """
    lines: dict[int, Fields] = {}
    for number, line in json_lines(folder / PREDICTIONS):
        place = f"{folder / PREDICTIONS}:{number}"
        row = line.get("row")
        if type(row) is not int or not 0 <= row < rows:
            raise ContentError(f"{place}: row {show_value(row)}, expected one of the {rows} examples")
        for name in NUMBERS:
            value = line.get(name)
            if value is not None and not is_number(value):
                raise unexpected(place, name, value, "a number")
        lines[row] = line
    return lines
