"""Text columns that LLaMA-Factory would read as times (E430), in files and in the records of a check."""

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from tuneyard.core.errors import Problem
from tuneyard.core.records import strings
from tuneyard.core.timestamps import texts_after_timestamps, timestamps_in_file, timestamps_in_records

if TYPE_CHECKING:
    from tuneyard.compiler.rows import Batch
    from tuneyard.compiler.write.render import Renderer

TEXT_PARTS = ("prompt", "query", "response", "history", "messages", "system", "tools", "chosen", "rejected")
"""Parts of a registry entry's `columns` whose columns hold texts."""
LINES = ".jsonl"


def text_columns(columns: object) -> list[str]:
    """Columns with texts by the `columns` of a registry entry, each once."""
    mapping = strings(columns)
    return list(dict.fromkeys(mapping[part] for part in TEXT_PARTS if part in mapping))


def retyped_problems(
    place: str, columns: Iterable[str], lines: Mapping[str, int] | None = None
) -> Iterator[Problem]:
    """Yield E430 for each column; `lines` has the first line read so (None: the first of the file)."""
    fixed = f"{Path(place).stem}.json"
    hint = f"write {fixed} (`file: {fixed}` in the spec): in an array, texts stay texts"
    for column in columns:
        line = lines[column] if lines else 1
        part = f" in the 10 MB from line {line} on" if line > 1 else ""
        message = (
            f"every text{part} is a date or time: LLaMA-Factory's loader makes it a time and drops the row"
        )
        yield Problem("E430", place, message, column, hint)


def problems_of_file(path: Path, place: str, columns: object) -> Iterator[Problem]:
    """Yield E430 for the text columns of a file; `columns` are those of its registry entry."""
    lines = timestamps_in_file(path, text_columns(columns))
    yield from retyped_problems(place, lines, lines)


def problems_of_kept(path: Path, place: str, keep: Iterable[str]) -> Iterator[Problem]:
    """Yield E430 for kept columns that stop LLaMA-Factory's loader: dates at first and texts after 10 MB."""
    fixed = f"{Path(place).stem}.json"
    hint = f"write {fixed} (`file: {fixed}` in the spec), or leave the column out of `keep`"
    for column, line in texts_after_timestamps(path, list(keep)).items():
        message = (
            "every text in the first 10 MB is a date or time, and not every one in the 10 MB from line "
            f"{line} on: LLaMA-Factory's loader expects times there, too, and stops"
        )
        yield Problem("E430", place, message, column, hint)


class RetypedWatch:
    """Looks for columns of timestamps in the records of a check, which writes no file.

    It finds columns that are timestamps in every record. Only a compile can find a part of a file.
    """

    def __init__(self) -> None:
        self._columns: dict[str, list[str]] = {}

    def see(self, renderer: "Renderer", batch: "Batch", columns: object) -> None:
        """Look at a batch of an output; `columns` are those of its registry entry."""
        file = renderer.output.file
        suspects = self._columns.get(file)
        if suspects is None:
            suspects = text_columns(columns)
        if suspects:
            suspects = sorted(timestamps_in_records(renderer.render(batch.keep([0])), suspects))
        if suspects:
            suspects = sorted(timestamps_in_records(renderer.render(batch), suspects))
        self._columns[file] = suspects

    def join(self, other: "RetypedWatch") -> None:
        """Add what was seen in further records."""
        for file, columns in other._columns.items():
            before = self._columns.get(file, columns)
            self._columns[file] = [column for column in columns if column in before]

    def problems(self, split: str) -> list[Problem]:
        """E430 for the columns that were timestamps throughout; `split` fills in the files' names."""
        problems: list[Problem] = []
        for file, columns in self._columns.items():
            problems += retyped_problems(file.format(split=split), columns)
        return problems
