"""The content of the page of `data view`: counts over all rows of a dataset, and a sample of its rows.

`compiler/view` fills it and `compiler/view/page.py` writes it into the page as JSON, whose keys are the
fields' names. Counts that name problems, labels or lengths cover all rows; `rows` has those on the page.
"""

import json
from dataclasses import dataclass, field
from typing import Any

SEED = 42
"""The seed of the sample of rows."""
MASKED, LEARNED, CUT = 0, 1, 2
"""States of a token: no loss, loss, cut (LLaMA-Factory drops it because of cutoff_len)."""

TokenSpan = tuple[int, int] | tuple[int, int, float | None] | tuple[int, int, float | None, float]
"""One token over its block's text: length in characters, state, its loss if losses were read, and its weight
if it is learned with key-token weights.

A token that is a part of a character has the length 0, and the last token of that character has its length.
"""


@dataclass
class PageBlock:
    """A part of the sequence that the model reads: one role and one kind of content.

    `role` is system, user, assistant, function, observation, or template (text that the template adds between
    the messages). `part` is text, thought, tool_call, tool_result or image. The texts of a side's blocks,
    joined, are its decoded sequence; `spans` cover all of `text`.
    """

    role: str
    part: str
    text: str
    spans: list[TokenSpan] = field(default_factory=list)


@dataclass
class PageSide:
    """One sequence of a row. `name` is chosen or rejected (pairs), `mark` good or bad (KTO), "" otherwise."""

    name: str
    mark: str
    turns: list[PageBlock]


@dataclass
class PageRow:
    """A row of the page. `row` is its number from 1, in the order of the dataset's file.

    `tokens` counts those before the cut, of all sides; `cut` those that cutoff_len drops. `dropped` is the
    reason if LLaMA-Factory leaves the row out, otherwise "". `loss` is the mean loss of its scored answer
    tokens. `sides` is empty without a tokenizer, and for a row that cannot be tokenised. `images` are
    thumbnails as data: URIs. `raw` is the record's JSON text. `note` says what else a
    reader of this row must know.
    """

    row: int
    raw: str
    label: str = ""
    problems: list[str] = field(default_factory=list)
    tokens: int = 0
    learned: int = 0
    cut: int = 0
    dropped: str = ""
    loss: float | None = None
    sides: list[PageSide] = field(default_factory=list)
    images: list[str] = field(default_factory=list)
    note: str = ""


@dataclass
class CodeCount:
    """A problem code, its message with the fix, and the number of rows of the dataset that have it.

    0 rows is a note on the dataset or its training as a whole.

    Besides the codes of `verify` and `compile` there are `dropped` and `cut`.
    """

    code: str
    message: str
    rows: int


@dataclass
class ViewPayload:
    """Everything that the page shows.

    `model` is "" if the rows have no tokens; `note` then says why and how to get them. `stage` is sft, rm,
    kto or pt (dpo reads the rows of rm). `labels` are labels with their rows. `bins` are the histogram of
    tokens per row before the cut, each (from, to, rows) with both ends included; of a pair the longer side
    counts. `over_cutoff` is the number of rows that cutoff_len cuts.

    `rows` are those of `all_rows` on the page, a sample. `left_off` rows were sampled too, but would
    have made the page larger than its limit. The other counts are over all rows: `tokens` before the cut,
    `learned` those with loss after it, and `cut` those that cutoff_len drops.
    """

    dataset: str
    file: str
    model: str = ""
    template: str = ""
    stage: str = "sft"
    cutoff_len: int = 0
    note: str = ""
    all_rows: int = 0
    left_off: int = 0
    tokens: int = 0
    learned: int = 0
    cut: int = 0
    bins: list[tuple[int, int, int]] = field(default_factory=list)
    over_cutoff: int = 0
    labels: list[tuple[str, int]] = field(default_factory=list)
    problems: list[CodeCount] = field(default_factory=list)
    rows: list[PageRow] = field(default_factory=list)


def json_of(part: Any) -> str:
    """The payload or a part of it as one line of JSON, with the fields' names as keys."""
    return json.dumps(part, ensure_ascii=False, separators=(",", ":"), allow_nan=False, default=vars)
