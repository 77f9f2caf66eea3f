"""Runs of eval that are killed and resumed: what they left, byte by byte, and how far they got."""

from pathlib import Path


def tree(folder: Path) -> dict[str, bytes]:
    """Return every file below a folder with its bytes."""
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def lines(folder: Path) -> int:
    """Return how many rows of the set `sums` the base has answered so far."""
    log = folder / "base" / "sums" / "predictions.jsonl"
    return log.read_bytes().count(b"\n") if log.exists() else 0
