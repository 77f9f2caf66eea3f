"""token_losses.jsonl: the loss of every token of a dataset's rows, from `tuneyard eval text --token-losses`.

One line a row: `{"row": 3, "ids": [1, 17, 9, 2], "losses": [null, null, 0.25, 1.5]}`. `row` is the number of
the record in the dataset's file, from 1. `ids` are those on which LLaMA-Factory trains. A loss is -log p in
nats, null for a token that training masks.
"""

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from tuneyard.core.errors import ContentError, unexpected
from tuneyard.core.files import parse_json, require
from tuneyard.core.files.bounded_reading import LARGEST_RECORD, lines_of, open_regular
from tuneyard.core.language.message import _

TOKEN_LOSSES = "token_losses.jsonl"


class TokenLosses(NamedTuple):
    """Ids of a row and the loss of each: nats, None for a masked token. `row` counts from 1."""

    row: int
    ids: Sequence[int]
    losses: Sequence[float | None]

    @property
    def mean(self) -> float | None:
        """Mean over the loss tokens, None if the row has none."""
        learned = [loss for loss in self.losses if loss is not None]
        if not learned:
            return None
        return math.fsum(learned) / len(learned)

    def line(self) -> bytes:
        """The row's line in the file."""
        return json.dumps({"row": self.row, "ids": self.ids, "losses": self.losses}).encode() + b"\n"


class TokenLossFile:
    """Reader of token_losses.jsonl by row. It keeps only the place of each line in memory.

    If the file is still `growing`, a last line without line break is skipped: its writer was killed. If a row
    has several lines, the last one counts.
    """

    def __init__(self, path: Path, *, growing: bool = False) -> None:
        """Find the lines. `RequestError` if the file is missing, `ContentError` for a line without a row."""
        require(path, _("file of token losses"))
        self.path = path
        self._offsets: dict[int, int] = {}
        offset = 0
        for number, line in lines_of(path):
            if not (growing and not line.endswith(b"\n")):
                self._offsets[_row(line, path, number)] = offset
            offset += len(line)

    @property
    def rows(self) -> list[int]:
        """Numbers of the rows in the file, ascending."""
        return sorted(self._offsets)

    def __contains__(self, row: int) -> bool:
        """True if the file has this row's losses."""
        return row in self._offsets

    def read(self, row: int) -> TokenLosses | None:
        """A row's losses, None if the file lacks the row. `ContentError` if ids and losses do not fit."""
        offset = self._offsets.get(row)
        if offset is None:
            return None
        with open_regular(self.path) as file:
            file.seek(offset)
            fields = json.loads(file.readline(LARGEST_RECORD))
        ids, losses = fields.get("ids"), fields.get("losses")
        is_list = isinstance(ids, list) and all(type(token) is int for token in ids)
        if not (is_list and _all_losses(losses) and len(ids) == len(losses)):
            raise ContentError(
                _(
                    "{path}: row {row}: expected `ids` (whole numbers) and as many `losses` "
                    "(numbers or null). Score the dataset again with --token-losses",
                    path=self.path,
                    row=row,
                )
            )
        return TokenLosses(row, ids, losses)


def _row(line: bytes, path: Path, number: int) -> int:
    fields = parse_json(line, path, number)
    row = None
    if isinstance(fields, dict):
        row = fields.get("row")
    if type(row) is not int or row < 1:
        raise unexpected(f"{path}:{number}", "row", row, _("a whole number from 1"))
    return row


def _all_losses(losses: object) -> bool:
    if not isinstance(losses, list):
        return False
    return all(loss is None or (type(loss) in (int, float) and math.isfinite(loss)) for loss in losses)
