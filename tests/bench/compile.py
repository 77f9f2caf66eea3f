"""`python -m tests.bench.compile [ROWS]`: compile beside a plain json loop, whole processes, one run.

Rows are made up here (392,702 by default, the size of MNLI's training set, all distinct, about 220
characters each). The plain loop reads JSON Lines with json, formats the document's template and ends in
`json.dump(indent=4)`: no checks, no hashes, no fsync. Seconds are the best of three, memory is the peak
of the process; the target is 0.55 times the plain loop in 120 MB, TSV and Parquet within 1.4 of JSONL.
"""

import json
import multiprocessing
import os
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
ROWS = int(sys.argv[1]) if len(sys.argv) > 1 else 392_702
WORDS = [*Path(__file__).read_text(encoding="utf-8").split(), "Äpfel", "étude", '"so"', "50%"]
FILES = {"jsonl": "train.jsonl", "tsv": "train.tsv", "parquet": "train.parquet", "bad": "bad.jsonl"}
PLAIN = """
import json, sys
names = ["yes", "maybe", "no"]
made = []
for line in open(sys.argv[1], encoding="utf-8"):
    row = json.loads(line)
    asked = f'Does "{row["premise"]}" imply that "{row["hypothesis"]}"? Please answer yes or no or maybe.'
    asked += "You only need to answer one word, no explanation"
    made.append({"instruction": asked, "input": "", "output": names[row["label"]], "idx": row["idx"]})
json.dump(made, open(sys.argv[2], "w", encoding="utf-8"), ensure_ascii=False, indent=4)
"""


def make_rows(count: int) -> list[dict[str, object]]:
    """Return distinct NLI rows, seeded."""
    draw = random.Random(1)
    return [
        {
            "premise": " ".join(draw.choices(WORDS, k=22)) + f" ({number})",
            "hypothesis": " ".join(draw.choices(WORDS, k=10)),
            "label": draw.randrange(3),
            "idx": number,
        }
        for number in range(count)
    ]


def write_layouts(folder: Path) -> None:
    """Write made-up rows in each layout, and once with one bad label in a hundred."""
    import pyarrow
    import pyarrow.parquet

    rows = make_rows(ROWS)
    paths = {kind: folder / name for kind, name in FILES.items()}
    lines = [json.dumps(row, ensure_ascii=False) for row in rows]
    paths["jsonl"].write_text("\n".join(lines) + "\n", encoding="utf-8")
    bad = [
        line.replace('"label": ', '"label": 7') if at % 100 == 0 else line for at, line in enumerate(lines)
    ]
    paths["bad"].write_text("\n".join(bad) + "\n", encoding="utf-8")
    table = ["\t".join(rows[0]), *("\t".join(map(str, row.values())) for row in rows)]
    paths["tsv"].write_text("\n".join(table) + "\n", encoding="utf-8")
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), paths["parquet"])


def best_of_three(command: list[str], between: Callable[[], None]) -> tuple[float, float]:
    """Return the least wall seconds and the peak MB of a command over three runs."""
    seconds, peaks = [], []
    for _ in range(3):
        between()
        start = time.perf_counter()
        process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        _, _, usage = os.wait4(process.pid, 0)
        seconds.append(time.perf_counter() - start)
        peaks.append(usage.ru_maxrss / 1024)
    return min(seconds), max(peaks)


def main() -> None:
    """Print one line for each layout: seconds, MB, and how many times the plain loop."""
    with tempfile.TemporaryDirectory(prefix="tuneyard-bench-") as name:
        folder = Path(name)
        # in a process of its own: a child's peak memory would begin with what its parent holds
        writer = multiprocessing.get_context("spawn").Process(target=write_layouts, args=(folder,))
        writer.start()
        writer.join()
        paths = {kind: folder / name for kind, name in FILES.items()}
        script = folder / "plain.py"
        script.write_text(PLAIN)
        plain, peak = best_of_three(
            [sys.executable, str(script), str(paths["jsonl"]), str(folder / "plain.json")], lambda: None
        )
        print(f"{ROWS} rows   plain json loop  {plain:.2f} s  {peak:.0f} MB")
        for kind, path in paths.items():
            command = [sys.executable, "-m", "compiler", "compile", "mnli", "--source", f"train={path}"]
            command += ["--out", str(folder / "out"), "--force", "--on-error", "quarantine"]
            seconds, peak = best_of_three(command, lambda: None)
            print(f"compile {kind:8} {seconds:.2f} s  {peak:.0f} MB  {seconds / plain:.2f} x the plain loop")


if __name__ == "__main__":
    main()
