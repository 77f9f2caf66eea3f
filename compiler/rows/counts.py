"""Counts of source rows: what becomes of each of them."""

from dataclasses import dataclass, field


@dataclass
class Counts:
    """Counts of source rows: each row is kept, rejected, dropped (by reason) or not sampled.

    `not_written` are the good rows of a compile that problems have stopped.
    """

    read: int = 0
    kept: int = 0
    rejected: int = 0
    not_sampled: int = 0
    not_written: int = 0
    dropped: dict[str, int] = field(default_factory=dict)

    def add(self, other: "Counts") -> None:
        """Add the counts of files, in which nothing is rejected or sampled yet."""
        self.read += other.read
        self.kept += other.kept
        for reason, rows in other.dropped.items():
            self.drop(reason, rows)

    def drop(self, reason: str, rows: int) -> None:
        """Count dropped rows."""
        if rows:
            self.dropped[reason] = self.dropped.get(reason, 0) + rows
