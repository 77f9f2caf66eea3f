"""The files that a server loads: each is written once, into a folder whose name has a hash of its inputs."""

import hashlib
import json
from collections.abc import Callable, Iterable
from pathlib import Path

from tuneyard.adapters.model.store import note
from tuneyard.adapters.write.output import staged_for

DIGITS = 8  # of the hash in a folder's name


def place(out: Path, name: str, files: Iterable[Path], *settings: object) -> Path:
    """The folder of the files that are made from `files` and `settings`, e.g. `saves/serving/rte-1f0a9b3c`.

    Path, size and time of change of a file stand for its content.
    """
    identities = []
    for file in files:
        status = file.stat()
        identities.append([str(file.resolve()), status.st_size, status.st_mtime_ns])
    inputs = json.dumps([identities, settings])
    return out / f"{name}-{hashlib.sha256(inputs.encode()).hexdigest()[:DIGITS]}"


def write_once(folder: Path, write: Callable[[Path], object]) -> None:
    """Let `write` fill a folder, unless it is there."""
    if folder.is_dir():
        return
    notes: list[str] = []
    with staged_for(folder.resolve, notes) as staged:
        write(staged)
    for text in notes:
        note(text)
