"""The folder of the files that a server loads: each is written once, and again only if its inputs changed."""

import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tuneyard.adapters.output import staged_for
from tuneyard.core.errors import ContentError, RequestError
from tuneyard.core.files import locked, make_folder, read_object, write_json

RECORD = "serving.json"
Inputs = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class ServingFolder:
    """A folder with served files. Its record lists the inputs of each file, and size and time of the file."""

    folder: Path

    def path(self, name: str) -> Path:
        """Path of a file, of which `name` is relative to the folder."""
        return self.folder / name

    def check_outside(self, inputs: Iterable[Path], names: Iterable[str]) -> None:
        """`RequestError` if the folder or one of these files lies in an input, which would change with it."""
        targets = {self.folder.resolve()}
        targets.update(self.path(name).parent.resolve() for name in names)
        for source in inputs:
            folder = source.resolve()
            for target in targets:
                if folder in (target, *target.parents):
                    raise RequestError(
                        f"--out {self.folder}: its files would lie in an input ({source}); choose another "
                        "folder"
                    )

    def find(self, name: str, inputs: Inputs) -> dict[str, Any] | None:
        """The record of a file that is written with these inputs; None if it has to be written.

        `RequestError` for a file that this command did not write, or that was changed since.
        """
        path, entry = self.path(name), self._record().get(name)
        if path.is_symlink() or path.exists():
            if entry is None or entry["file"] != _size_and_time(path):
                raise RequestError(
                    f"{path}: already there, and not as `adapter serve` wrote it: move it away, or choose "
                    "another folder with --out"
                )
            if entry["inputs"] == _plain(inputs):
                return dict(entry)
        return None

    def write(
        self, name: str, inputs: Inputs, write: Callable[[Path], object], facts: Inputs | None = None
    ) -> None:
        """Let `write` make the file unless it is written already. The record also keeps the `facts`."""
        if self.find(name, inputs) is not None:
            return
        path = self.path(name)

        def check() -> Path:
            self.find(name, inputs)
            return path.resolve()

        with staged_for(check) as folder:
            write(folder / path.name)
        entry = {"inputs": _plain(inputs), "file": _size_and_time(path), **(facts or {})}
        make_folder(self.folder)
        with locked(self.folder):  # another `serve` may write other files here
            write_json(self.folder / RECORD, {"files": {**self._record(), name: entry}})

    def _record(self) -> dict[str, dict[str, Any]]:
        path = self.folder / RECORD
        if not path.is_file():
            return {}
        files = read_object(path).get("files")
        entries = files.values() if isinstance(files, dict) else [None]
        for entry in entries:
            if not isinstance(entry, dict) or not {"inputs", "file"} <= entry.keys():
                raise ContentError(
                    f"{path}: damaged; move it away with the files next to it, or "
                    "choose another folder with --out"
                )
        return dict(files) if isinstance(files, dict) else {}


def identities(paths: Iterable[Path]) -> list[list[Any]]:
    """Path, size and time of change of files, which stand for their content."""
    return [[str(path.resolve()), *_size_and_time(path)] for path in paths]


def _size_and_time(path: Path) -> list[int]:
    status = path.stat()
    return [status.st_size, status.st_mtime_ns]


def _plain(inputs: Inputs) -> Any:
    """The inputs as they are read back from JSON."""
    return json.loads(json.dumps(inputs))
