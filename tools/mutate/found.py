"""What became of each error, in a file that the next run of the same checkout goes on with."""

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path

Key = tuple[str, str, int, str]


def checkout(root: Path, names: Sequence[str]) -> str:
    """Return a hash of these files below `root`: what was found holds for no other code or tests."""
    found = hashlib.sha256()
    for name in names:
        found.update(name.encode() + b"\0" + hashlib.sha256((root / name).read_bytes()).digest())
    return found.hexdigest()


class Found:
    """Lines of JSON: the checkout's hash, then an error in each; the notes of its tests lie beside them."""

    def __init__(self, path: Path, checkout: str) -> None:
        self.path, self.notes, self._checkout = path, path.with_suffix(".notes"), checkout
        self.by_key: dict[Key, str] = {}
        whole = path.read_text("utf-8").rpartition("\n")[0] if path.is_file() else ""  # a kill tears a line
        lines = list(map(json.loads, whole.splitlines()))
        self.begun = bool(lines) and lines[0] == {"checkout": checkout} and self.notes.is_file()
        if self.begun:
            path.write_text(whole + "\n", "utf-8")
            self.by_key = {_key(line): line["became"] for line in lines[1:]}

    def begin(self, notes: Path) -> None:
        """Begin anew, with the notes of the tests of this checkout."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self.path.unlink(missing_ok=True)
        self.notes.write_bytes(notes.read_bytes())
        self._append({"checkout": self._checkout})

    def add(self, key: Key, became: str, by: str) -> None:
        """Note what became of an error, and the test that saw it."""
        named = dict(zip(("file", "line", "column", "change"), key, strict=True))
        self._append({**named, "became": became, "by": by})
        self.by_key[key] = became

    def _append(self, line: dict[str, object]) -> None:
        with self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(line, ensure_ascii=False) + "\n")


def _key(line: dict[str, str | int]) -> Key:
    return str(line["file"]), str(line["line"]), int(line["column"]), str(line["change"])
