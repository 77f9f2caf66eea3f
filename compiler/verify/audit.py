"""Counts and findings of an audit, for every training stage, and the map that makes it.

Batches of rows are audited by processes (`--workers`), each a fork that shares the rows.
"""

from array import array
from collections import Counter
from collections.abc import Callable, Generator, Mapping
from contextlib import closing
from dataclasses import dataclass, field
from itertools import repeat
from typing import Any

from tuneyard.core.execution import WorkItem
from tuneyard.core.execution.options import executor_of
from tuneyard.core.language.message import _
from tuneyard.core.records import answers

SEVERAL_PAY = 4_000_000  # bytes of rows from which on several processes pay
AUDIT_MESSAGES = {
    "E411": _("nothing is learned from the row: all of it is masked or cut off"),
    "E412": _("the template ends no turn: the model never learns to stop"),
    "W414": _("the answer is truncated by cutoff_len"),
    "W415": _("the end of the turn is cut off: the model does not learn to stop there"),
    "W416": _("the prompt is truncated by cutoff_len"),
    "E420": "the template cannot write the row's tools or calls (they lack what it asks for): training stops",
    "E423": "LLaMA-Factory's processor stops at the row's media (unreadable, or none that this model takes)",
    "W419": _("the text is truncated by cutoff_len (stage pt without packing)"),
    **answers.MESSAGES,
    "W421": _("a thought in another form than the template's: it is learned whatever enable_thinking says"),
}
Row = Mapping[str, Any]


@dataclass
class Audit:
    """Counts over the rows of a set; `findings` has the numbers (from 0) of the rows by code.

    `turns` counts those that are learned by role (assistant, function), and of these those with a `thought`,
    a thought `removed` and an `empty` one put before them; and the masked observations. `example` is the
    first row (of a pair: its chosen side) as pieces of text, each with whether it is learned; `rejected` what
    is learned of its other side. `seen` and `learned` count tokens after the cut, `uncut` those before it.
    """

    lengths: Counter[int] = field(default_factory=Counter)
    rows: int = 0
    seen: int = 0
    learned: int = 0
    uncut: int = 0
    findings: "dict[str, array[int]]" = field(default_factory=dict)
    turns: Counter[str] = field(default_factory=Counter)
    blocks: int = 0
    example: list[tuple[str, bool]] = field(default_factory=list)
    rejected: list[str] = field(default_factory=list)

    def find(self, code: str, row: int) -> None:
        """Add a finding in a row."""
        self.findings.setdefault(code, array("I")).append(row)

    def add(self, later: "Audit") -> None:
        """Add the audit of later rows."""
        for name in ("rows", "seen", "learned", "uncut", "blocks"):
            setattr(self, name, getattr(self, name) + getattr(later, name))
        self.lengths.update(later.lengths)
        self.turns.update(later.turns)
        for code, rows in later.findings.items():
            self.findings.setdefault(code, array("I")).extend(rows)
        self.example = self.example or later.example
        self.rejected = self.rejected or later.rejected


AuditBatch = Callable[[Row, int], Audit]
"""Audits a batch (columns of LLaMA-Factory's rows) whose first row has the number given."""


_audited: list[tuple[AuditBatch, Any]] = []
"""What this process and its forks audit: the last one."""


def audited(
    dataset: str, audit: AuditBatch | None, rows: Any, starts: range, workers: int
) -> Generator[Audit | None]:
    """Yield the audit of each batch of rows (a `datasets.Dataset`) that begins at `starts`.

    None for each without an `audit`.
    """
    if audit is None:
        yield from repeat(None, len(starts))
        return
    items = [
        WorkItem(f"{dataset}, rows {start + 1} to {start + starts.step}", _audit_batch, (start, starts.step))
        for start in starts
    ]
    _audited.append((audit, rows))
    try:
        with executor_of(workers, None) as executor, closing(executor.map(items)) as results:
            for result in results:
                yield result.record_or_raise()
    finally:
        _audited.pop()


def _audit_batch(start: int, size: int) -> Audit:
    audit, rows = _audited[-1]
    return audit(rows[start : start + size], start)
