"""The result of verifying a dataset."""

from array import array
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

from tuneyard.compiler.verify.audit import Audit
from tuneyard.core.errors import Problem
from tuneyard.core.language.message import _

FIRST = 1000
"""So many problems of each code are kept with their locations."""


@dataclass
class Verdict:
    """The result of verifying one dataset; `problems` has the first of each code.

    `rows_of_code` has the numbers of the records that problems are about, among the selected ones.

    `no_answer` is the reason for a row in which LLaMA-Factory finds no answer.

    `is_compiled` is false if no manifest lists the file or the entry, so that they are compared with none.

    `dropped` counts the loaded rows that its processor skips.

    `unread_turn_keys` has the number of records with each key inside messages that is not read and changes no
    answer. `notes` are lines about the whole dataset.

    `trained` is the number of rows that a training draws by the entry's `split` and `num_samples`.
    """

    dataset: str
    records: int = 0
    loaded: int = 0
    same: int = 0
    stage: str = "sft"
    problems: list[Problem] = field(default_factory=list)
    rows_of_code: "dict[str, array[int]]" = field(default_factory=dict)
    counts: Counter[str] = field(default_factory=Counter)
    audit: Audit | None = None
    cutoff: int = 0
    packing: bool = False
    not_checked: list[str] = field(default_factory=list)
    dropped: int = 0
    no_answer: str = _("LLaMA-Factory finds no answer in it")
    is_compiled: bool = True
    unread_turn_keys: Counter[str] = field(default_factory=Counter)
    notes: list[str] = field(default_factory=list)
    trained: int | None = None

    def add(self, problem: Problem, row: int | None = None) -> None:
        """Count a finding, of a `row` if it is about one record; keep it while there are few of its code."""
        self.counts[problem.code] += 1
        if self.counts[problem.code] <= FIRST:
            self.problems.append(problem)
        if row is not None:
            self.rows_of_code.setdefault(problem.code, array("I")).append(row)

    def lead(self, problems: Sequence[Problem]) -> None:
        """Count findings on the whole dataset, and list them before all others."""
        self.counts.update(problem.code for problem in problems)
        self.problems[:0] = problems

    @property
    def failed(self) -> bool:
        """True if rows are lost or something else is wrong."""
        return any(code.startswith("E") for code in self.counts)
