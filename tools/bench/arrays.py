"""python -m tools.bench.arrays [ROWS]: reading JSON arrays beside ijson's C backend (yajl2_c).

CPU seconds are the least of three runs in one process. The goal is twice those of ijson, which neither
reports lines nor finds duplicate keys. ijson is installed on demand.

Run it after a change of the reader of JSON arrays.
"""

import json
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

from testing.peers import installed
from tools.bench.compile import made_up
from tuneyard.compiler.read import read
from tuneyard.compiler.rows.problems import Problems
from tuneyard.compiler.spec.file import Source


def main(rows: int) -> None:
    """Print one line for each layout: our CPU seconds, those of ijson, and their ratio."""
    sys.path.insert(0, str(installed("ijson", "ijson")))
    records = [
        {"instruction": f"{row['premise']} {row['hypothesis']}", "output": "yes", "idx": row["idx"]}
        for row in made_up(rows)
    ]
    talks = []
    for record in records:
        turns = [{"from": "human", "value": record["instruction"]}, {"from": "gpt", "value": "yes"}]
        talks.append({"conversations": turns})
    a_line = ",\n".join(json.dumps(record, ensure_ascii=False) for record in records)
    documents = {
        "one record a line": f"[\n{a_line}\n]\n",
        "all on one line": json.dumps(records, ensure_ascii=False),
        "indented": json.dumps(records, ensure_ascii=False, indent=4),
        "wrapped": json.dumps({"version": 1, "data": records}, ensure_ascii=False),
        "conversations": json.dumps(talks),
    }
    with tempfile.TemporaryDirectory(prefix="tuneyard-bench-") as folder:
        for name, text in documents.items():
            path = Path(folder) / "rows.json"
            path.write_text(text, encoding="utf-8")
            items = "data.item" if name == "wrapped" else "item"
            ours = least_seconds(partial(count_ours, path), rows)
            theirs = least_seconds(partial(count_by_ijson, path, items), rows)
            print(f"{name:20} {ours:.2f} CPU s, ijson {theirs:.2f} CPU s: {ours / theirs:.2f} x", flush=True)


def count_ours(path: Path) -> int:
    """Count the rows that our reader yields."""
    return sum(len(rows.lines) for rows in read(path, path.name, Source({}, {}, {}), Problems()))


def count_by_ijson(path: Path, items: str) -> int:
    """Count the items that ijson yields."""
    from ijson.backends import yajl2_c

    with path.open("rb") as file:
        return sum(1 for _unused in yajl2_c.items(file, items, buf_size=1 << 17))


def least_seconds(count: Callable[[], int], rows: int) -> float:
    """Return the least CPU seconds of three runs. Each must find all rows."""
    seconds = []
    for _unused in range(3):
        start = time.process_time()
        found = count()
        seconds.append(time.process_time() - start)
        if found != rows:
            raise SystemExit(f"found {found} rows, expected {rows}")
    return min(seconds)


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 392_702)
