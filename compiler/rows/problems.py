"""The problems of one compile: every one counted, the first thousand kept, bad rows in rejected.jsonl."""

import json
import sys
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from itertools import starmap
from math import inf
from pathlib import Path

import orjson

from tuneyard.compiler.rows import AtKey, InList, Location
from tuneyard.core.errors import Problem, show_value, show_values
from tuneyard.core.errors.problem_codes import guide, meaning_of
from tuneyard.core.files import named
from tuneyard.core.language.message import _

KEPT = 1000
NO_LIMIT = sys.maxsize
PLACES = 3
NAMES = 10


@dataclass
class Problems:
    """Collects errors (E…) and warnings (W…) of one source file, then of a compile.

    - `limit`: the most errors and the most warnings that are kept as text.
    - `notes`: lines for people on layouts and columns.
    - `rejected`: the file of bad rows, or None if bad rows end the compile.
    - `dropped`: the number of rows that reading drops, by reason.
    """

    limit: int = KEPT
    rejected: Path | None = None
    warnings: list[Problem] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    counts: Counter[str] = field(default_factory=Counter)
    dropped: Counter[str] = field(default_factory=Counter)
    bad_rows: int = 0
    fatal: bool = False
    _errors: list[Problem] = field(default_factory=list)
    _batch: list[tuple[Sequence[Problem], object]] = field(default_factory=list)

    @property
    def errors(self) -> list[Problem]:
        """The errors that are kept, in the order of their lines. Ends the batch: its rows count."""
        self.end_batch()
        return self._errors

    def bad_row(self, problems: Sequence[Problem], row: object) -> None:
        """Record one source row that cannot be used, with all its problems."""
        self._batch.append((problems, row))

    def bad_file(self, problem: Problem) -> None:
        """Record a file whose rest cannot be read: the compile fails even with `--on-error reject`."""
        self.fatal = True
        self._batch.append(([problem], _NO_ROW))

    def end_batch(self) -> None:
        """Count the bad rows of a batch in the order of their lines."""
        batch = sorted(self._batch, key=lambda entry: _number(entry[0][0]))
        self._batch = []
        errors = [problem for problems, _unused in batch for problem in problems]
        self.counts.update(problem.code for problem in errors)
        self._errors += errors[: self._room(self._errors)]
        bad_rows = [(problems, row) for problems, row in batch if row is not _NO_ROW]
        self.bad_rows += len(bad_rows)
        if self.rejected and bad_rows:
            with named(self.rejected), self.rejected.open("ab") as rejected:
                rejected.writelines(starmap(_rejected_line, bad_rows))

    def _room(self, kept: Sequence[Problem]) -> int:
        """How many more problems are kept as text."""
        return max(self.limit - len(kept), 0)

    def lead(self, problems: Sequence[Problem]) -> None:
        """Record errors of whole columns or inputs before errors of rows, which they explain."""
        self.fatal = self.fatal or bool(problems)
        self.counts.update(problem.code for problem in problems)
        self._errors[:0] = problems

    def add(self, other: "Problems") -> None:
        """Add the problems of the next file."""
        self.counts.update(other.counts)
        self.bad_rows += other.bad_rows
        self.fatal = self.fatal or other.fatal
        self.notes += other.notes
        for mine, others in ((self._errors, other.errors), (self.warnings, other.warnings)):
            mine += others[: self._room(mine)]

    def warn(self, problem: Problem) -> None:
        """Record a warning, which stops nothing without `--strict`."""
        self.counts[problem.code] += 1
        if self._room(self.warnings):
            self.warnings.append(problem)

    def sort_warnings(self) -> None:
        """Sort the warnings by file and line, once all of them are here."""
        files = dict.fromkeys(map(_file_of, [*self._errors, *self.warnings]))
        order = {file: number for number, file in enumerate(files)}
        self.warnings.sort(key=lambda problem: (order[_file_of(problem)], _number(problem)))

    def count(self, severity: str) -> int:
        """The number of problems of a severity: "E" errors, "W" warnings."""
        return sum(self.counts_of(severity).values())

    def counts_of(self, severity: str) -> dict[str, int]:
        """The counts by code of a severity, "E" or "W"."""
        return {code: n for code, n in self.counts.items() if code.startswith(severity)}

    def warning_lines(self) -> list[str]:
        """The first locations of each kind of warning, and how many more there are."""
        lines = []
        for code, total in sorted(self.counts_of("W").items()):
            first_lines = [problem.line() for problem in self.warnings if problem.code == code]
            if self.limit < NO_LIMIT:
                first_lines = first_lines[:PLACES]
            lines += first_lines
            rest = total - len(first_lines)
            if rest:
                label = code
                if meaning_of(code):
                    label = _("{code}: {meaning}", code=code, meaning=meaning_of(code))
                lines.append(_("… {rest} more {label} (--all shows every one)", rest=rest, label=label))
        if lines:
            lines += guide(self.counts_of("W"))
        return lines


@lru_cache(1000)  # the same names often stand in every bad row
def some_of(names: tuple[str, ...], expected: str) -> str:
    """Names for a message: all if they are few, otherwise those most like the expected one."""
    if len(names) <= NAMES:
        return show_values(names)
    from difflib import get_close_matches

    near = get_close_matches(expected, names, NAMES, 0)
    return _("{names}, … and {number} more", names=show_values(near), number=len(names) - NAMES)


_NO_ROW = object()


def _file_of(problem: Problem) -> str:
    """The file of a problem's location."""
    return problem.place.prefix.file if isinstance(problem.place, Location) else problem.place


def _number(problem: Problem) -> tuple[float, float]:
    """The line of a problem's location and the item in it. A problem of a whole file comes last."""
    line = problem.place.line if isinstance(problem.place, Location) else inf
    if isinstance(line, (InList, AtKey)):
        return line.line, line.item
    if isinstance(line, str):
        return inf, 0
    return line, 0


def _rejected_line(problems: Sequence[Problem], row: object) -> bytes:
    """The line of rejected.jsonl for a bad row."""
    reasons = []
    for problem in problems:
        field = f" {problem.field}:" if problem.field else ""
        reasons.append(f"{problem.code}{field} {problem.message}")
    line = {"place": problems[0].place, "problems": reasons, "row": row}
    try:
        return orjson.dumps(line, default=repr, option=orjson.OPT_APPEND_NEWLINE)
    except TypeError:  # half of a character, a huge number, nested too deep for it
        return (json.dumps(line | {"row": show_value(row)}) + "\n").encode()


class UnreadableFileError(Exception):
    """The rest of a file cannot be read: a problem of the file, or at a `location` in it."""

    def __init__(self, code: str, message: str, hint: str = "", location: str = "", field: str = "") -> None:
        super().__init__(message)
        self.code, self.hint, self.location, self.field = code, hint, location, field
