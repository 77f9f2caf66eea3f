"""What became of each error, in a file that the next run of the same checkout goes on with."""

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path

from tools.mutate.mutants import Key


def checkout(root: Path, names: Sequence[str]) -> str:
    """Hash of these files below `root`: results are for no other code or tests."""
    whole = hashlib.sha256()
    for name in names:
        whole.update(name.encode() + b"\0" + hashlib.sha256((root / name).read_bytes()).digest())
    return whole.hexdigest()


class Found:
    """Lines of JSON: the checkout's hash, then an error in each."""

    def __init__(self, path: Path, checkout: str) -> None:
        self.path = path
        self.by_key: dict[Key, str] = {}
        text = path.read_text("utf-8").rpartition("\n")[0] if path.is_file() else ""  # a kill tears a line
        first, *lines = map(json.loads, text.splitlines() or ["null"])
        if first != {"checkout": checkout}:
            first, lines = {"checkout": checkout}, []
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("")
        for line in (first, *lines):
            self._append(line)
        for line in lines:
            self.by_key[line["file"], line["line"], line["column"], line["change"]] = line["became"]

    def add(self, key: Key, became: str, by: str) -> None:
        """Note what became of an error, and the test that saw it."""
        named = dict(zip(("file", "line", "column", "change"), key, strict=True))
        self._append({**named, "became": became, "by": by})
        self.by_key[key] = became

    def _append(self, line: dict[str, object]) -> None:
        with self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(line, ensure_ascii=False) + "\n")
