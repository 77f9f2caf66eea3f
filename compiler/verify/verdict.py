"""The result of verifying a dataset."""

from dataclasses import dataclass, field
from pathlib import Path

from tuneyard.compiler.verify.audit import FIRST, Audit
from tuneyard.compiler.verify.trained import Training
from tuneyard.core.errors import Problem


@dataclass(slots=True)
class Verdict:
    """The result of verifying one dataset; `problems` has the first of each code.

    `problems_of_row` has those of them that are about one record, by its number among the selected ones.

    `why_no_answer` is the reason for which the loader may lose the texts of answers.

    `is_compiled` is false if no manifest lists the file or the entry, so that they are compared with none.

    `is_read` is false if LLaMA-Factory cannot load the rows, so that there are no counts.

    `trained` is how many rows the recipe trains, None without a recipe. `dropped` has the numbers (from 0, in
    LLaMA-Factory's order) of loaded rows that its processor skips.
    """

    dataset: str
    is_read: bool = True
    records: int = 0
    loaded: int = 0
    same: int = 0
    stage: str = "sft"
    problems: list[Problem] = field(default_factory=list)
    problems_of_row: dict[int, list[Problem]] = field(default_factory=dict)
    counts: dict[str, int] = field(default_factory=dict)
    audit: Audit | None = None
    cutoff: int = 0
    packing: bool = False
    not_checked: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    trained: int | None = None
    dropped: list[int] = field(default_factory=list)
    why_no_answer: str = ""
    is_compiled: bool = True

    def note_training(self, training: Training, recipe: Path) -> None:
        """Add the rows of the dataset that a recipe trains."""
        if training.problem:
            self.add(training.problem)
        if training.not_counted:
            self.notes.append(f"not counted: the rows that are trained ({training.not_counted})")
        self.trained = training.rows
        if training.rows is not None:
            why = f" ({'; '.join(training.steps)})" if training.steps else ""
            self.notes.append(f"{recipe} trains {training.rows} of these {self.loaded} rows{why}")

    def add(self, problem: Problem, count: int = 1, row: int | None = None) -> None:
        """Count a finding, of a `row` if it is about one record; keep it while there are few of its code."""
        self.counts[problem.code] = self.counts.get(problem.code, 0) + count
        if sum(kept.code == problem.code for kept in self.problems) < FIRST:
            self.problems.append(problem)
            if row is not None:
                self.problems_of_row.setdefault(row, []).append(problem)

    @property
    def failed(self) -> bool:
        """True if rows are lost or something else is wrong."""
        return any(code.startswith("E") for code in self.counts)
