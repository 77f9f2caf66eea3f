"""What lies in a folder after a test."""

from pathlib import Path


def names(folder: Path | str) -> list[str]:
    """The names of a folder's files and folders, sorted."""
    return sorted(path.name for path in Path(folder).iterdir())
