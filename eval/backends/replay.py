"""The backend of --rescore: it gives back the outputs that predictions.jsonl holds, without a model."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from tuneyard.core.documents import json_lines
from tuneyard.core.errors import ContentError, RequestError, show_value
from tuneyard.eval.backends import Backend

if TYPE_CHECKING:
    from tuneyard.eval.backends.scorers import Fields

PREDICTIONS = "predictions.jsonl"


class Replay(Backend):
    """The outputs of an earlier run in `source`, whose run.json has these `settings`."""

    def __init__(self, source: Path, settings: Mapping[str, object]) -> None:
        self.source = source
        self.settings = settings
        self.digest = str(settings.get("model"))
        self.dtype, self.device = str(settings.get("dtype")), str(settings.get("device"))

    def kept(self, model: str, dataset: str) -> "Mapping[int, Fields]":
        """The lines of a model on a dataset by row."""
        lines: dict[int, Fields] = {}
        path = self.source / model / dataset / PREDICTIONS
        for number, line in json_lines(path):
            row = line.get("row")
            if type(row) is not int or row < 0:
                raise ContentError(f"{path}:{number}: row {show_value(row)}, expected one of the examples")
            lines[row] = line
        return lines

    def needs_model(self) -> RequestError:
        """The error for what kept outputs do not have."""
        return RequestError("--rescore has no model: this figure needs one, score without --rescore")
