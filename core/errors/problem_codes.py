"""Problem codes: what a user reads about a problem beyond its line, as one entry in the file that raises it.

`tuneyard --explain CODE` prints an entry. `make reference` writes the documents from all entries. A Chinese
reader gets the meaning and the fix of each code below the problems (`guide`).
"""

import re
from collections.abc import Iterable
from typing import Self

from tuneyard.core.language.message import Message, _, translated
from tuneyard.core.language.reader import CHINESE, current

_entries: dict[str, "ProblemCode"] = {}  # of the modules that are imported
_CODE = re.compile("[EWN][0-9]{3}")


class ProblemCode(str):
    """A code as problems have it, such as `W204`, with the texts of its entry.

    - `meaning`: what is wrong, as a heading: `an empty answer`.
    - `fix`: what a user does about it, in a sentence.
    - `details`: further sentences for the documents, "" if the meaning is enough.
    - `template`: the message with {fields}, "" if the code has several messages.

    The first letter is the severity: E is an error, W a warning (an error with `--strict`), N a note.
    """

    __slots__ = ("details", "fix", "meaning", "template")
    meaning: str
    fix: str
    details: str
    template: str

    def __new__(cls, code: str, meaning: str, fix: str, details: str = "", *, template: str = "") -> Self:
        """Make an entry. `ValueError` for a code of another form than `W204`."""
        if not _CODE.fullmatch(code):
            raise ValueError(
                _("found the problem code {code!r}, expected E, W or N and three digits", code=code)
            )
        entry = super().__new__(cls, code)
        entry.meaning, entry.fix, entry.details, entry.template = meaning, fix, details, template
        _entries.setdefault(code, entry)
        return entry

    def __reduce__(self) -> tuple[object, ...]:
        """Come back whole from a worker and from a copy."""
        return _again, (str(self), self.meaning, self.fix, self.details, self.template)

    def message(self, **values: object) -> str:
        """The template with its fields filled in."""
        return Message(self.template, values)

    @property
    def severity(self) -> str:
        """`error`, `warning` or `note`."""
        return {"E": _("error"), "W": _("warning"), "N": _("note")}[self[0]]


def _again(code: str, meaning: str, fix: str, details: str, template: str) -> ProblemCode:
    return ProblemCode(code, meaning, fix, details, template=template)


def meaning_of(code: str) -> str:
    """The meaning of a code, "" for one without an entry: of a package that gives its problems bare codes."""
    return _entries[code].meaning if code in _entries else ""


def guide(codes: Iterable[str]) -> list[str]:
    """A line for each code, `E104：含义。怎么做`, for a Chinese reader. Other readers get none.

    Codes without an entry are skipped.
    """
    if current() != CHINESE:
        return []
    lines = []
    for code in sorted(_entries.keys() & set(codes)):
        entry = _entries[code]
        lines.append(f"{code}：{translated(entry.meaning)}。{translated(entry.fix)}")
    return lines
