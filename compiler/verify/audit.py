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

from tuneyard.core.errors.problem_codes import ProblemCode
from tuneyard.core.execution import WorkItem
from tuneyard.core.execution.options import executor_of
from tuneyard.core.language.message import _
from tuneyard.core.records import answers

NOTHING_LEARNED = ProblemCode(
    "E411", _("a row that teaches nothing"), _("Raise `cutoff_len`, or delete the row.")
)
ENDLESS_TURN = ProblemCode(
    "E412",
    _("a template that ends no turn"),
    _("Take another template."),
)
CUT_ANSWER = ProblemCode(
    "W414",
    _("an answer that `cutoff_len` cuts"),
    _("Raise `cutoff_len`."),
    _("Half an answer would be learned as a whole one."),
)
CUT_END = ProblemCode("W415", _("a turn whose end is cut off"), _("Raise `cutoff_len`."))
CUT_PROMPT = ProblemCode("W416", _("a prompt that is cut"), _("Raise `cutoff_len`."))
CUT_TEXT = ProblemCode(
    "W419",
    _("a text that `cutoff_len` cuts"),
    _("Raise `cutoff_len`, write `packing: true`, or split the text."),
)
UNWRITABLE_TOOLS = ProblemCode(
    "E420",
    _("tools or calls that the template cannot write"),
    _("Give tools `parameters.properties`; write calls as JSON."),
)
FOREIGN_THOUGHT = ProblemCode(
    "W421",
    _("a thought in another form than the template's"),
    _("Put `<think>` and `</think>` on lines of their own, and a blank line after them."),
)
UNPROCESSABLE_MEDIA = ProblemCode(
    "E423",
    _("media at which the model's processor stops, or no processor"),
    _("Check the file and the model folder."),
)


SEVERAL_PAY = 4_000_000  # bytes of rows from which on several processes pay
AUDIT_MESSAGES = {
    NOTHING_LEARNED: _("nothing is learned from the row: all of it is masked or cut off"),
    ENDLESS_TURN: _("the template ends no turn: the model never learns to stop"),
    CUT_ANSWER: _("the answer is truncated by cutoff_len"),
    CUT_END: _("the end of the turn is cut off: the model does not learn to stop there"),
    CUT_PROMPT: _("the prompt is truncated by cutoff_len"),
    UNWRITABLE_TOOLS: _(
        "the template cannot write the row's tools or calls (they lack what it asks for): training stops"
    ),
    UNPROCESSABLE_MEDIA: _(
        "LLaMA-Factory's processor stops at the row's media (unreadable, or none that this model takes)"
    ),
    CUT_TEXT: _("the text is truncated by cutoff_len (stage pt without packing)"),
    **answers.MESSAGES,
    FOREIGN_THOUGHT: _(
        "a thought in another form than the template's: it is learned whatever enable_thinking says"
    ),
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
        WorkItem(
            _(
                "{dataset}, rows {first} to {last}",
                dataset=dataset,
                first=start + 1,
                last=start + starts.step,
            ),
            _audit_batch,
            (start, starts.step),
        )
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
