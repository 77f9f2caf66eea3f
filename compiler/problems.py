"""The problems of one compile: every one counted, the first thousand kept, bad rows in rejected.jsonl."""

import json
import re
import shutil
from collections import Counter
from collections.abc import Collection, Container, Iterator, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import lru_cache
from itertools import islice, starmap
from math import inf
from pathlib import Path
from typing import Self

import orjson

from tuneyard.core.errors import Problem, show_value
from tuneyard.core.files import named
from tuneyard.core.problem_codes import guide

KEPT = 1000
PLACES = 3
NAMES = 10
WARNINGS = {  # docs/problems.md tells of every code
    "W201": "an id that came before",
    "W202": "a row that came before",
    "W203": "the same input with another answer",
    "W204": "an empty answer",
    "W205": "a token of a chat template inside the text",
    "W206": "a control character inside the text",
    "W207": "a very long row",
    "W208": "a training input that stands in another split",
    "W209": "a split without rows",
    "W210": "a part of a mixture that could not be filled",
    "W211": "a class of one row in a stratified split",
    "W212": "a row that is nearly the same as one before it",
    "W213": "a training input that nearly stands in another split",
    "W214": "HTML in an answer",
    "W215": "a call that no tool of its row declares so",
    "W216": "a call of a tool in the text of an answer",
    "W220": "arguments of a call that are JSON inside JSON text",
    "W221": "a folder of .txt files, each line of which is a row",
    "W222": "labels far out of balance",
}
_LINE = re.compile(r"(.*)(?::| row )(\d+)(?: (?:record|key) .*)?", re.DOTALL)


@dataclass(slots=True)
class Problems:
    """Collects errors (E…) and warnings (W…) with their places while counting goes on.

    - `limit`: the most errors and the most warnings that are kept as text; None: all.
    - `notes`: lines for people on layouts and columns.
    - `rejected`: the file of bad rows, or None if bad rows end the compile.
    - `stopped_before`: problems of rows before these have stopped the compile.
    - `bad_files`: how often the rest of a file could not be used.
    """

    limit: int | None = KEPT
    rejected: Path | None = None
    warnings: list[Problem] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    counts: Counter[str] = field(default_factory=Counter)
    bad_rows: int = 0
    fatal: bool = False
    stopped_before: bool = False
    bad_files: int = 0
    _errors: list[Problem] = field(default_factory=list)
    _fresh: list[tuple[Sequence[Problem], object]] = field(default_factory=list)
    _undecoded: Counter[str] = field(default_factory=Counter)

    @property
    def errors(self) -> list[Problem]:
        """The errors that are kept and settled, in the order of their lines."""
        errors = []
        for problem in self._errors:
            if problem.code == "E001":  # one stands for all rows of the file
                others = self._undecoded[_where(problem)[0]] - 1
                if others > 0:
                    rows = "is 1 more row" if others == 1 else f"are {others:,} more rows"
                    problem = replace(problem, message=f"{problem.message}; so {rows} of this file")
            errors.append(problem)
        return errors

    def bad_row(self, problems: Sequence[Problem], row: object) -> None:
        """Record one source row that cannot be used, with all its problems."""
        self.bad_rows += 1
        self.counts.update(problem.code for problem in problems)
        self._fresh.append((problems, row))

    def bad_file(self, problem: Problem) -> None:
        """Record a file whose rest cannot be read: the compile fails even with `--on-error reject`."""
        self.fatal = True
        self.bad_files += 1
        self.counts[problem.code] += 1
        self._fresh.append(([problem], _NO_ROW))

    def lead(self, problems: Sequence[Problem]) -> None:
        """Record errors of whole columns or inputs before errors of rows, which they explain."""
        self.fatal = self.fatal or bool(problems)
        self.counts.update(problem.code for problem in problems)
        self._errors[:0] = problems

    def settle(self) -> None:
        """Sort the new problems by line and write down bad rows, after each block of rows and each file."""
        fresh = sorted(self._fresh, key=lambda entry: _where(entry[0][0])[1])
        self._fresh = []
        for problems, _ in fresh:
            if problems[0].code == "E001" and self.limit is not None:  # one row of the file is enough
                file, _ = _where(problems[0])
                self._undecoded[file] += 1
                if self._undecoded[file] > 1:
                    continue
            room = len(problems)
            if self.limit is not None:
                room = max(self.limit - len(self._errors), 0)
            self._errors.extend(problems[:room])
        rows = [(problems, row) for problems, row in fresh if row is not _NO_ROW]
        if self.rejected and rows:
            with named(self.rejected), self.rejected.open("ab") as rejected:
                rejected.writelines(starmap(_rejected_line, rows))

    def unsettled_rows(self) -> list[str]:
        """The places of the bad rows since the problems were settled last."""
        return [problems[0].place for problems, row in self._fresh if row is not _NO_ROW]

    def take_back(self, places: Container[str]) -> None:
        """Forget bad rows that are not settled: they are beyond the rows that are to be read."""
        fresh = []
        for problems, row in self._fresh:
            if row is _NO_ROW or problems[0].place not in places:
                fresh.append((problems, row))
            else:
                self.bad_rows -= 1
                self.counts.subtract(problem.code for problem in problems)
        self._fresh = fresh
        self.counts += Counter()  # drops the codes that are left without a problem

    def join(self, other: "Problems") -> None:
        """Add the problems of the rows that come next, which another process may have found."""
        self.counts.update(other.counts)
        self.bad_rows += other.bad_rows
        self.bad_files += other.bad_files
        self.fatal = self.fatal or other.fatal
        self.notes += other.notes
        errors = other._errors
        for file in self._undecoded:
            if other._undecoded[file]:
                errors = [problem for problem in errors if not _undecoded_in(problem, file)]
        self._undecoded.update(other._undecoded)
        self._errors += errors[: self._room(self._errors)]
        self.warnings += other.warnings[: self._room(self.warnings)]
        if other.rejected and other.rejected.exists():
            self._append_rejected(other.rejected)

    def without(self, codes: Collection[str]) -> "Problems | None":
        """These problems without the warnings of some codes. None if not all warnings were kept as text."""
        if self.count("W") > len(self.warnings):
            return None
        counts = {code: count for code, count in self.counts.items() if code not in codes}
        warnings = [problem for problem in self.warnings if problem.code not in codes]
        return replace(self, counts=Counter(counts), warnings=warnings)

    def _room(self, kept: list[Problem]) -> int | None:
        return None if self.limit is None else max(self.limit - len(kept), 0)

    def _append_rejected(self, part: Path) -> None:
        """Move the rejected rows of a file to the end of this one's."""
        if self.rejected is None:
            raise ValueError(f"{part}: rejected rows, where none are written down")
        with named(self.rejected), part.open("rb") as source, self.rejected.open("ab") as target:
            shutil.copyfileobj(source, target)
        part.unlink()

    def warn(self, problem: Problem) -> None:
        """Record a warning, which stops nothing without `--strict`."""
        self.counts[problem.code] += 1
        if self.limit is None or len(self.warnings) < self.limit:
            self.warnings.append(problem)

    def warn_of(self, code: str, number: int, warnings: Iterator[tuple[str, str]]) -> None:
        """Record `number` warnings of one code, (place, message). Those beyond the limit are never made."""
        if number:
            self.counts[code] += number
        room = number
        if self.limit is not None:
            room = max(self.limit - len(self.warnings), 0)
        self.warnings.extend(Problem(code, place, message) for place, message in islice(warnings, room))

    def first(self) -> list[dict[str, str]]:
        """The first thousand errors and the first thousand warnings, for the manifest."""
        return [asdict(problem) for problem in [*self.errors[:KEPT], *self.warnings[:KEPT]]]

    @classmethod
    def again(cls, counts: dict[str, int], first: Sequence[dict[str, str]], notes: list[str]) -> Self:
        """The problems that a manifest records."""
        problems = [Problem(**problem) for problem in first]
        warnings = [problem for problem in problems if problem.code.startswith("W")]
        errors = [problem for problem in problems if problem.is_error]
        return cls(warnings=warnings, notes=notes, counts=Counter(counts), _errors=errors)

    def listed(self) -> list[Problem]:
        """The kept errors and then the kept warnings, both by file and line."""
        errors = self.errors
        files = dict.fromkeys(_where(problem)[0] for problem in [*errors, *self.warnings])
        order = {file: number for number, file in enumerate(files)}
        warnings = sorted(self.warnings, key=lambda p: (order[_where(p)[0]], _where(p)[1]))
        return [*errors, *warnings]

    def count(self, kind: str) -> int:
        """The number of problems of a kind: "E" errors, "W" warnings."""
        return sum(self.tally(kind).values())

    def tally(self, kind: str) -> dict[str, int]:
        """The counts by code of a kind, "E" or "W"."""
        return {code: n for code, n in self.counts.items() if code.startswith(kind)}

    def warning_lines(self) -> list[str]:
        """The first places of each kind of warning, and how many more there are."""
        lines = []
        for code, total in sorted(self.tally("W").items()):
            first_lines = [problem.line() for problem in self.warnings if problem.code == code]
            if self.limit is not None:
                first_lines = first_lines[:PLACES]
            lines += first_lines
            rest = total - len(first_lines)
            if rest:
                lines.append(f"… {rest} more {code}: {WARNINGS[code]} (--all shows every one)")
        lines += guide(self.tally("W"))
        return lines

    @property
    def stopped(self) -> bool:
        """True if the compile will publish nothing, so that it only goes on checking."""
        if self.stopped_before or self.fatal:
            return True
        return self.bad_rows > 0 and self.rejected is None


@lru_cache(1000)  # the same names often stand in every bad row
def some_of(names: tuple[str, ...], expected: tuple[str, ...]) -> str:
    """Names for a message: all if they are few, otherwise those most like the expected ones."""
    if len(names) <= NAMES:
        return ", ".join(map(show_value, names))
    from difflib import SequenceMatcher

    def likeness(name: str) -> float:
        return max(SequenceMatcher(None, name.lower(), other.lower()).ratio() for other in expected)

    near = sorted(names, key=likeness, reverse=True)[:NAMES]
    return f"{', '.join(map(show_value, near))}, … and {len(names) - NAMES} more"


_NO_ROW = object()


def _where(problem: Problem) -> tuple[str, float]:
    """The file of a problem's place, and the line or row in it. A place without a line comes last."""
    place = _LINE.fullmatch(problem.place)
    if place is None:
        return problem.place, inf
    return place[1], int(place[2])


def _undecoded_in(problem: Problem, file: str) -> bool:
    """True for the problem of a row of this file that is not UTF-8."""
    return problem.code == "E001" and _where(problem)[0] == file


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
