"""What an audit counts and finds, whichever stage is trained."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

FIRST = 1000
KINDS = {
    "E411": "nothing is learned from the row: all of it is masked or cut off",
    "E412": "the template ends no turn: the model never learns to stop",
    "E413": "LLaMA-Factory's plain tokenizer gives other labels than the batch",
    "E418": "the template writes a token that this tokenizer does not have: it is another model's template",
    "W414": "the answer is truncated by cutoff_len",
    "W415": "the end of the turn is cut off: the model does not learn to stop there",
    "W416": "the prompt is truncated by cutoff_len",
    "W417": "the answer is empty: only the end of the turn is learned",
    "E420": "the template cannot write the row's tools or calls (they lack what it asks for): training stops",
    "E423": "LLaMA-Factory's processor stops at the row's media (unreadable, or none that this model takes)",
    "W419": "the text is truncated by cutoff_len (stage pt without packing)",
    "W422": "chosen and rejected are the same within cutoff_len: nothing tells them apart",
    "W421": "a thought in another form than the template's: it is learned whatever enable_thinking says",
}
Row = Mapping[str, Any]


@dataclass(slots=True)
class Audit:
    """Counts over the rows of a set; `places` holds the first row numbers (from 0) of each finding.

    `turns` counts those that are learned by role (assistant, function), and of these those with a `thought`,
    a thought `removed` and an `empty` one put before them; and the masked observations. `example` is the
    first row (of a pair: its chosen side) as pieces of text, each with whether it is learned; `rejected` what
    is learned of its other side.
    """

    lengths: Counter[int] = field(default_factory=Counter)
    rows: int = 0
    seen: int = 0
    learned: int = 0
    counts: Counter[str] = field(default_factory=Counter)
    places: dict[str, list[int]] = field(default_factory=dict)
    turns: Counter[str] = field(default_factory=Counter)
    sampled: int = 0
    blocks: int = 0
    example: list[tuple[str, bool]] = field(default_factory=list)
    rejected: list[str] = field(default_factory=list)

    def find(self, code: str, row: int) -> None:
        """Count a finding and keep the first places."""
        self.counts[code] += 1
        kept = self.places.setdefault(code, [])
        if len(kept) < FIRST:
            kept.append(row)

    def add(self, later: "Audit") -> None:
        """Add what was found in later rows."""
        self.lengths.update(later.lengths)
        self.rows += later.rows
        self.seen += later.seen
        self.learned += later.learned
        self.counts.update(later.counts)
        self.turns.update(later.turns)
        for code, places in later.places.items():
            kept = self.places.setdefault(code, [])
            kept += places[: FIRST - len(kept)]
        self.sampled += later.sampled
        self.blocks += later.blocks
        self.example = self.example or later.example
        self.rejected = self.rejected or later.rejected


class Auditor(Protocol):
    """Audits batches of loaded rows, each by itself."""

    def audit(self, rows: Row, start: int) -> Audit:
        """Audit a batch (columns of LLaMA-Factory's rows) whose first row has the number `start`."""
