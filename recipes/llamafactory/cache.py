"""Cache in $XDG_CACHE_HOME/tuneyard/inspect, by a hash of the inputs.

It keeps whole answers of LLaMA-Factory, and rows with their lengths.
Each new answer removes those that were not used for a month. Other processes may use the folder at any
moment. They read an answer in one piece, and compute a removed answer again.
"""

import contextlib
import functools
import json
import os
import re
import time
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from tuneyard.core.errors import RequestError
from tuneyard.core.files import sha256, text_sha256, versions, write_text
from tuneyard.core.installation.checkout import ROOT
from tuneyard.core.records.json_form import from_json_form, json_form
from tuneyard.recipes.llamafactory.answer import Facts, Rows

A = TypeVar("A", Facts, Rows)
CODE = ("core", "recipes")
"""Folders with our code that answers. They import nothing else of ours."""
MODEL_WEIGHTS = {".safetensors", ".bin", ".gguf", ".pt", ".pth", ".h5", ".msgpack", ".onnx"}
"""Files of a model folder that no answer depends on."""
ERROR = re.compile(r'error": (?:"[^"]|\{)')
"""A field for an error that is not empty: a text, or a message."""
KEPT = 30 * 86400
"""Seconds since the last use."""


def remembered(kind: str, depends_on: object, of: type[A], compute: Callable[[], A]) -> A:
    """Read an answer, a record of the type `of`, from the cache, or compute and store it.

    An answer with an error is not stored, since a missing file may exist the next time. The first line of a
    file is the hash of the others: a cache that is broken or cannot be written only costs time.
    """
    path = _path(kind, depends_on)
    with contextlib.suppress(OSError):  # it is missing
        digest, _newline, text = path.read_text(encoding="utf-8", errors="replace").partition("\n")
        if digest == text_sha256(text):
            kept_answer = from_json_form(of, json.loads(text))
            with contextlib.suppress(OSError):  # another process removed it, or the folder is read-only
                os.utime(path)  # it was used now
            return kept_answer
    answer = compute()
    text = json.dumps(json_form(answer))
    if not ERROR.search(text):
        with contextlib.suppress(OSError, RequestError):  # a full disk, a link that leads nowhere
            write_text(path, f"{text_sha256(text)}\n{text}")
            remove_unused(path.parent)
    return answer


def remove_unused(folder: Path) -> None:
    """Remove the answers that were not used for so long. A name with a dot before it is being written."""
    for path in folder.glob("[!.]*.json"):
        with contextlib.suppress(FileNotFoundError):  # another process removed it
            if time.time() - path.stat().st_mtime > KEPT:
                path.unlink()


def folder_hashes(folder: Path) -> dict[str, str]:
    """SHA-256 by name of the files of a model folder that are not weights; {} for a hub id."""
    if not folder.is_dir():
        return {}
    files = [path for path in sorted(folder.iterdir()) if path.suffix not in MODEL_WEIGHTS and path.is_file()]
    return {path.name: sha256(path) for path in files}


def _path(kind: str, depends_on: object) -> Path:
    """The file of an answer. Its name changes with the question, our code and the versions of packages."""
    made_by = [versions("llamafactory", "transformers", "tokenizers"), code_hash(ROOT)]
    text = json.dumps([[kind, depends_on], made_by], sort_keys=True, default=str)
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return cache / "tuneyard" / "inspect" / f"{kind}-{text_sha256(text)}.json"


@functools.cache  # a process that runs for hours keeps the code that it started with
def code_hash(root: Path) -> str:
    """SHA-256 of the code that answers: another version of it does not use the answers again."""
    files: list[Path] = []
    for folder in CODE:
        files += sorted((root / folder).rglob("*.py"))
    return sha256(*files)
