"""What must hold of a compiled folder, found with Python's own json and csv alone."""

import csv
import gzip
import io
import json
from pathlib import Path
from typing import Any

import numpy as np

from tools.fuzz.execute import Outcome


def leftovers(out: Path, outcome: Outcome) -> list[str]:
    """Return what is wrong with the output folder: half of something, or anything after a failure."""
    paths = [path.relative_to(out) for path in sorted(out.rglob("*"))] if out.exists() else []
    hidden = [f"left behind: {path}" for path in paths if path.name.startswith(".")]
    if outcome.code == 0:
        return hidden
    return hidden + [f"written by a compile that failed: {path}" for path in paths if path.suffix]


def miscounts(out: Path, read: int | None) -> list[str]:
    """Return what does not add up in a compiled folder; `read` is what an independent reader counted."""
    wrong = []
    registry = json.loads((out / "dataset_info.json").read_text(encoding="utf-8"))
    for path in sorted(out.glob("*/manifest.json")):
        manifest = json.loads(path.read_text(encoding="utf-8"))
        counts = manifest["counts"]
        parts = [counts["kept"], counts["not_sampled"], sum(counts["dropped"].values())]
        if counts["read"] != sum(parts) + counts["rejected"]:
            wrong.append(f"counts do not add up: {counts}")
        if read is not None and counts["read"] != read:
            wrong.append(f"read {counts['read']}, and Python reads {read} rows")
        records = 0
        for name, about in manifest["files"].items():
            if name.endswith(".npy"):
                rows = len(np.load(path.parent / name))
                wrong += [] if rows == about["rows"] else [f"{name}: {rows} rows, the manifest says {about}"]
                continue
            try:
                found = records_of(path.parent / name)
            except ValueError as error:
                wrong.append(f"{name}: {error}")
                continue
            records = max(records, len(found))
            if len(found) != about["rows"]:
                wrong.append(f"{name}: {len(found)} records, the manifest says {about['rows']}")
            if not all(isinstance(record, dict) and _whole(record) for record in found):
                wrong.append(f"{name}: a record that is not whole")
        if len(manifest["entries"]) == 1 and records != counts["kept"]:
            wrong.append(f"kept {counts['kept']}, written {records}")
        absent = [name for name in manifest["entries"] if registry.get(name) is None]
        wrong += [f"not registered: {name}" for name in absent]
    return wrong


def records_of(path: Path) -> list[dict[str, Any]]:
    """Return the records of a written file, read by Python's json."""
    text = path.read_text(encoding="utf-8")
    if path.suffix == ".json":
        records: list[dict[str, Any]] = json.loads(text)
        return records
    return [json.loads(line) for line in text.split("\n")[:-1]]


def rows_of(name: str, data: bytes) -> list[object] | None:
    """Return the rows of a source file as Python reads them, or None where it cannot, or has its own ways."""
    try:
        text = gzip.decompress(data).decode("utf-8-sig") if name.endswith(".gz") else data.decode("utf-8-sig")
        inner = name.removesuffix(".gz")
        if inner.endswith(".jsonl") and not text.lstrip().startswith("["):
            return [json.loads(line) for line in text.split("\n") if line.strip(" \t\r\n")]
        if inner.endswith(".json"):
            value = json.loads(text)
            return value if isinstance(value, list) else None
        if inner.endswith(".csv"):
            # a line of two quotes alone has no more in it than a blank one
            table = csv.reader(io.StringIO(text, newline=""), strict=True)
            rows = [row for row in table if row not in ([], [""])]
            return list(rows[1:]) if rows and len(rows[0]) > 1 else None
    except (ValueError, OSError, EOFError, csv.Error, RecursionError):
        return None
    return None


def _whole(record: dict[str, Any]) -> bool:
    """Whether the fields that are trained on are there, as texts or lists of turns."""
    keys = ("instruction", "input", "output", "text", "conversations", "messages")
    found = [record[key] for key in keys if key in record]
    talks = [value for value in found if isinstance(value, list)]
    spoken = [turn.get("value", turn.get("content")) for talk in talks for turn in talk]
    texts = [value for value in found if not isinstance(value, list)] + spoken
    return bool(texts) and all(isinstance(text, str) for text in texts)
