"""Whether a folder holds the result of what a command is asked for.

A command writes into its result what the result depends on: a file by its hash, an option by its value. Its
`state(request)` compares that record with the inputs of now, so that a command that has nothing to do says
so, and `tuneyard run` knows which steps are left. Nothing is decided by the time of a file.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, NotRequired, TypedDict

from tuneyard.core.files import sha256
from tuneyard.core.language.message import Message, _


class FileInput(TypedDict):
    """A file or dataset as a result remembers it."""

    sha256: str
    rows: NotRequired[int]


Input = FileInput | str | int | float | bool | None | list[str]
"""What a result depends on: a file, or the value of an option."""


@dataclass(frozen=True)
class State:
    """How far the result of a request is, and for a stale one what has changed since."""

    kind: Literal["new", "unfinished", "stale", "current"]
    changes: tuple[Message, ...] = ()


NEW = State("new")
UNFINISHED = State("unfinished")
CURRENT = State("current")


def compare_inputs(recorded: Mapping[str, Input], present: Mapping[str, Input]) -> State:
    """Return `CURRENT`, or a stale state with one change for each input that differs.

    `recorded` is from the result, `present` is what the request has now; the names are those that a user
    knows: `tickets_train`, `--rank`.
    """
    changes = []
    for name in dict.fromkeys([*recorded, *present]):
        if name not in recorded:
            changes.append(_("{name} is new", name=name))
        elif name not in present:
            changes.append(_("{name} is gone", name=name))
        elif recorded[name] != present[name]:
            changes.append(_difference(name, recorded[name], present[name]))
    if changes:
        return State("stale", tuple(changes))
    return CURRENT


def hashed_outputs(folder: Path, names: Iterable[str]) -> dict[str, str]:
    """SHA-256 of files of a result by their path below its folder, for its record."""
    return {name: sha256(folder / name) for name in names}


def changed_outputs(folder: Path, recorded: Mapping[str, str]) -> list[Message]:
    """Which files of a result are missing, or were edited since. `recorded` is from `hashed_outputs`.

    A path in a record that leads out of the folder counts as missing.
    """
    changes = []
    for name, digest in recorded.items():
        path = folder / name
        if ".." in path.parts or not path.resolve().is_relative_to(folder.resolve()) or not path.is_file():
            changes.append(_("{path} is missing", path=path))
        elif sha256(path) != digest:
            changes.append(_("{path} has changed since it was written", path=path))
    return changes


def _difference(name: str, before: Input, now: Input) -> Message:
    """Say what differs: `tickets_train changed, 248 → 283 rows`, `--rank: 8 → 16`."""
    if not isinstance(before, dict) or not isinstance(now, dict):
        return _("{name}: {before} → {now}", name=name, before=before, now=now)
    if before.get("rows") == now.get("rows"):
        return _("{name} changed", name=name)
    return _(
        "{name} changed, {before} → {now} rows",
        name=name,
        before=before.get("rows"),
        now=now.get("rows"),
    )
