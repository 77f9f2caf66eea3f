"""The problems of one compile: every one counted, the first thousand kept, bad rows put aside."""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path

import orjson

from core.errors import Problem

KEPT = 1000
PLACES = 3
CODES = {
    "E001": "bytes that are not text in the encoding",
    "E002": "broken JSON in a line or record",
    "E003": "a JSON list that cannot be read on",
    "E004": "a compressed file that is damaged or cut off",
    "E005": "a row that is not an object",
    "E006": "a key that stands twice in one object",
    "E007": "neither a list of records nor an object of rows",
    "E008": "more or fewer fields than the header",
    "E009": "a header that names a column twice",
    "E010": "a header among the rows",
    "E011": "broken quoting",
    "E012": "a Parquet file that cannot be read",
    "E013": "no rows",
    "E101": "a column that is not there",
    "E102": "a field that is missing in a row",
    "E103": "null where a value is due",
    "E104": "a label outside the map",
    "E105": "a value of the wrong type",
    "E106": "text that is blank",
    "E107": "turns that cannot be trained on",
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
}


@dataclass(slots=True)
class Problems:
    """Collects errors (E…) and warnings (W…) with their places while counting goes on.

    `limit` bounds how many errors and how many warnings are kept as text (None: every one).
    `aside` is the quarantine file of bad rows, or None where bad rows end the compile.
    """

    limit: int | None = KEPT
    aside: Path | None = None
    errors: list[Problem] = field(default_factory=list)
    warnings: list[Problem] = field(default_factory=list)
    counts: Counter[str] = field(default_factory=Counter)
    bad_rows: int = 0
    fatal: bool = False

    def bad_row(self, found: Sequence[Problem], row: object) -> None:
        """Record one source row that cannot be used, with everything that is wrong with it."""
        self.bad_rows += 1
        self.counts.update(problem.code for problem in found)
        self._keep(self.errors, found)
        if self.aside:
            first = found[0]
            reasons = [
                f"{p.code} {p.field}: {p.message}" if p.field else f"{p.code} {p.message}" for p in found
            ]
            line = {"place": first.place, "problems": reasons, "row": row}
            with self.aside.open("ab") as file:
                file.write(orjson.dumps(line, default=repr, option=orjson.OPT_APPEND_NEWLINE))

    def bad_file(self, problem: Problem) -> None:
        """Record a file that cannot be read on: even a quarantining compile ends in failure."""
        self.fatal = True
        self.counts[problem.code] += 1
        self._keep(self.errors, [problem])

    def warn(self, problem: Problem) -> None:
        """Record something to look at that stops nothing (unless `--strict`)."""
        self.counts[problem.code] += 1
        self._keep(self.warnings, [problem])

    def warn_of(self, code: str, number: int, problems: Iterator[Problem]) -> None:
        """Record many warnings of one code; messages beyond the limit are never made."""
        self.counts.update({code: number} if number else {})
        room = number if self.limit is None else max(self.limit - len(self.warnings), 0)
        self.warnings.extend(islice(problems, room))

    def count(self, kind: str) -> int:
        """Return how many problems of a kind there were: "E" errors, "W" warnings."""
        return sum(self.tally(kind).values())

    def tally(self, kind: str) -> dict[str, int]:
        """Return the counts by code of a kind, "E" or "W"."""
        return {code: n for code, n in self.counts.items() if code.startswith(kind)}

    def warning_lines(self) -> list[str]:
        """Return the first places of each kind of warning, and how many more there are."""
        lines = []
        for code, total in sorted(self.tally("W").items()):
            shown = [problem for problem in self.warnings if problem.code == code]
            shown = shown if self.limit is None else shown[:PLACES]
            rest = total - len(shown)
            lines += [problem.line() for problem in shown]
            lines += [f"… {rest} more {code}: {CODES[code]} (--all shows every one)"] if rest else []
        return lines

    @property
    def stopped(self) -> bool:
        """Whether nothing will be published any more, so that only checking goes on."""
        return self.fatal or (self.bad_rows > 0 and self.aside is None)

    def _keep(self, kept: list[Problem], found: Sequence[Problem]) -> None:
        room = len(found) if self.limit is None else self.limit - len(kept)
        kept.extend(found[: max(room, 0)])
