"""Cache in $XDG_CACHE_HOME/tuneyard/inspect, by a hash of the inputs.

It keeps whole answers of LLaMA-Factory, and rows with their lengths.
Each new answer removes those that were not used for a month. Other processes may use the folder at any
moment. They read an answer in one piece, and compute a removed answer again.
"""

import contextlib
import json
import os
import re
import time
from collections.abc import Callable
from dataclasses import asdict, is_dataclass
from pathlib import Path
from typing import Any, TypeVar, get_args, get_type_hints

from tuneyard.core.errors import RequestError
from tuneyard.core.files import sha256, text_sha256, versions, write_text
from tuneyard.core.installation.checkout import ROOT
from tuneyard.core.language.message import Message
from tuneyard.recipes.llamafactory.answer import Facts, Rows

A = TypeVar("A", Facts, Rows)
CODE = (
    *(
        Path(__file__).with_name(f"{name}.py")
        for name in ("answer", "config_sizes", "inspection", "layout", "rows")
    ),
    ROOT / "recipes/recipe/data.py",
    *sorted((ROOT / "core/llamafactory").rglob("*.py")),
    ROOT / "core/records/answers.py",
)
"""Answers of an older version of these files are not used again."""
MODEL_WEIGHTS = {".safetensors", ".bin", ".gguf", ".pt", ".pth", ".h5", ".msgpack", ".onnx"}
"""Files of a model folder that no answer depends on."""
ERROR = re.compile(r'error": (?:"[^"]|\{)')
"""A field for an error that is not empty: a text, or a message."""
MESSAGE = {"template", "values", "plural", "number"}
"""Keys of a message in JSON."""
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
            kept_answer: A = record(of, json.loads(text))
            with contextlib.suppress(OSError):  # another process removed it, or the folder is read-only
                os.utime(path)  # it was used now
            return kept_answer
    answer = compute()
    text = json.dumps(_raw(asdict(answer)))
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


def record(kind: Any, raw: Any) -> Any:
    """Make a value of a type from its JSON form: records, lists and mappings of them, and messages."""
    if isinstance(raw, dict) and raw.keys() == MESSAGE:
        values = {name: record(None, value) for name, value in raw["values"].items()}
        return Message(raw["template"], values, raw["plural"], raw["number"])
    parts = get_args(kind)
    if isinstance(kind, type) and is_dataclass(kind):
        hints = get_type_hints(kind)
        return kind(**{name: record(hints[name], value) for name, value in raw.items()})
    if isinstance(raw, dict):
        return {name: record(parts[-1], value) for name, value in raw.items()}
    if isinstance(raw, list):
        return [record(parts[0], value) for value in raw]
    return raw


def _raw(value: object) -> object:
    """The JSON form of a value: a message keeps its template and values, so that it can be translated."""
    if isinstance(value, Message):
        values = {name: _raw(field) for name, field in value.values.items()}
        return {"template": value.template, "values": values, "plural": value.plural, "number": value.number}
    if isinstance(value, dict):
        return {name: _raw(field) for name, field in value.items()}
    if isinstance(value, list | tuple):
        return [_raw(item) for item in value]
    return value


def folder_hashes(folder: Path) -> dict[str, str]:
    """SHA-256 by name of the files of a model folder that are not weights; {} for a hub id."""
    if not folder.is_dir():
        return {}
    files = [path for path in sorted(folder.iterdir()) if path.suffix not in MODEL_WEIGHTS and path.is_file()]
    return {path.name: sha256(path) for path in files}


def _path(kind: str, depends_on: object) -> Path:
    """The file of an answer. Its name changes with the question, our code and the versions of packages."""
    code = [sha256(path) for path in CODE]
    made_by = [versions("llamafactory", "transformers", "tokenizers"), code]
    text = json.dumps([[kind, depends_on], made_by], sort_keys=True, default=str)
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return cache / "tuneyard" / "inspect" / f"{kind}-{text_sha256(text)}.json"
