"""How token_losses.jsonl grows next to predictions.jsonl, and how an interrupted run resumes."""

from collections.abc import Iterable, Sequence
from pathlib import Path

from tuneyard.core.files import append_bytes, atomic
from tuneyard.core.prompt.token_losses import TOKEN_LOSSES, TokenLosses, TokenLossFile


class TokenLossLog:
    """token_losses.jsonl of one model on one dataset. Losses stay on disk; memory holds the rows' places."""

    def __init__(self, folder: Path) -> None:
        """Read which rows an interrupted run has finished."""
        self.path = folder / TOKEN_LOSSES
        self._kept = None
        if self.path.is_file():
            self._kept = TokenLossFile(self.path, growing=True)

    def __contains__(self, row: int) -> bool:
        """True if the losses of this row of the dataset's file were complete when this object was made."""
        return self._kept is not None and row in self._kept

    def start(self, rows: Iterable[int]) -> None:
        """Begin the file with the kept losses of these rows."""
        self._write(self._kept, sorted(rows))

    def append(self, losses: Iterable[TokenLosses]) -> None:
        """Append rows in a single write, so that several processes can append to the file."""
        append_bytes(self.path, b"".join(row.line() for row in losses))

    def finish(self) -> None:
        """Sort the rows of all processes."""
        written = TokenLossFile(self.path, growing=True)
        self._write(written, written.rows)

    def _write(self, source: TokenLossFile | None, rows: Sequence[int]) -> None:
        with atomic(self.path) as file:
            for row in rows:
                losses = source and source.read(row)
                if losses:
                    file.write(losses.line())
