"""`python -m tools.bench.compile [ROWS|FILE.jsonl]`: compile beside a plain json loop, whole processes.

Rows (premise, hypothesis, label, idx) are read from FILE, or made up of the words of samples/ (392,702 by
default, the size of MNLI's training set, all distinct, about 230 characters each). The plain loop reads
JSON Lines with json, formats the document's template and ends in `json.dump(indent=4)`: no checks, no
hashes, no fsync. Seconds are the best of three, CPU seconds are those of all processes, memory is the
peak of the process. The goals are 0.70 times the CPU of the plain loop in 110 MB, and 0.48 times its wall for
the same rows in 4 files by 2 workers. Processes start from compiled bytecode, as every run after an
installation's first one does.

Run it after a change of the compile loop, of a reader of lines or of a writer.
"""

import json
import multiprocessing
import os
import random
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
GIVEN = sys.argv[1] if len(sys.argv) > 1 else "392702"
SAMPLE = ROOT / "samples" / "mnli" / "train.jsonl"
FILES = {
    "jsonl": "train.jsonl",
    "tsv": "train.tsv",
    "parquet": "train.parquet",
    "1 % bad": "bad.jsonl",
    "all bad": "worst.jsonl",
}
PARTS = 4
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


def find_rows() -> list[dict[str, object]]:
    """Return the rows of the file given, else distinct NLI rows made up, seeded."""
    if not GIVEN.isdigit():
        return [json.loads(line) for line in Path(GIVEN).read_text(encoding="utf-8").splitlines()]
    return made_up(int(GIVEN))


def made_up(rows: int) -> list[dict[str, object]]:
    """Return distinct NLI rows of the words of samples/, the same ones in every run."""
    told = [json.loads(line)["premise"] for line in SAMPLE.read_text(encoding="utf-8").splitlines()]
    words = [*" ".join(told).split(), "Äpfel", "étude", '"so"', "50%"]
    draw = random.Random(1)
    return [
        {
            "premise": " ".join(draw.choices(words, k=24)) + f" ({number})",
            "hypothesis": " ".join(draw.choices(words, k=10)),
            "label": draw.randrange(3),
            "idx": number,
        }
        for number in range(rows)
    ]


def write_layouts(folder: Path) -> None:
    """Write made-up rows in each layout, and once with one bad label in a hundred."""
    import pyarrow
    import pyarrow.parquet

    rows = find_rows()
    paths = {kind: folder / name for kind, name in FILES.items()}
    lines = [json.dumps(row, ensure_ascii=False) for row in rows]
    paths["jsonl"].write_text("\n".join(lines) + "\n", encoding="utf-8")
    for part in range(PARTS):
        some = lines[part * len(lines) // PARTS : (part + 1) * len(lines) // PARTS]
        (folder / f"part-{part}.jsonl").write_text("\n".join(some) + "\n", encoding="utf-8")
    worst = [line.replace('"label": ', '"label": 7') for line in lines]
    bad = [worst[at] if at % 100 == 0 else line for at, line in enumerate(lines)]
    paths["1 % bad"].write_text("\n".join(bad) + "\n", encoding="utf-8")
    paths["all bad"].write_text("\n".join(worst) + "\n", encoding="utf-8")
    table = ["\t".join(rows[0])]
    table += ["\t".join(" ".join(str(value).split()) for value in row.values()) for row in rows]
    paths["tsv"].write_text("\n".join(table) + "\n", encoding="utf-8")
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), paths["parquet"])


def best_of_three(command: list[str], caches: Path) -> tuple[float, float, float]:
    """Return the least wall and CPU seconds and the peak MB of a command over three runs."""
    kept = {key: value for key, value in os.environ.items() if key != "PYTHONDONTWRITEBYTECODE"}
    environment = kept | {"PYTHONPYCACHEPREFIX": str(caches)}
    seconds, cpu, peaks = [], [], []
    for _unused in range(3):
        start = time.perf_counter()
        process = subprocess.Popen(
            command, cwd=ROOT, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        _unused, _unused, usage = os.wait4(process.pid, 0)
        seconds.append(time.perf_counter() - start)
        cpu.append(usage.ru_utime + usage.ru_stime)
        peaks.append(usage.ru_maxrss / 1024)
    return min(seconds), min(cpu), max(peaks)


def main() -> None:
    """Print one line for each layout: seconds, CPU seconds, MB, and how many times the plain loop."""
    with tempfile.TemporaryDirectory(prefix="tuneyard-bench-") as name:
        folder = Path(name)
        # in a process of its own: a child's peak memory would begin with what its parent holds
        writer = multiprocessing.get_context("spawn").Process(target=write_layouts, args=(folder,))
        writer.start()
        writer.join()
        script = folder / "plain.py"
        script.write_text(PLAIN)
        lines = [sys.executable, str(script), str(folder / FILES["jsonl"]), str(folder / "plain.json")]
        plain, plain_cpu, peak = best_of_three(lines, folder / "caches")
        print(f"plain json loop  {plain:.2f} s  {plain_cpu:.2f} CPU s  {peak:.0f} MB", flush=True)
        parts = [folder / f"part-{part}.jsonl" for part in range(PARTS)]
        lines_file = [folder / FILES["jsonl"]]
        runs: dict[str, tuple[list[Path], tuple[str, ...]]]
        runs = {kind: ([folder / file], ()) for kind, file in FILES.items()}
        runs["5 rows"] = (lines_file, ("--limit", "5"))
        runs["4 files"] = (parts, ("--workers", "1"))
        runs["2 workers"] = (parts, ("--workers", "2"))
        runs["check"] = (lines_file, ())
        for kind, (paths, options) in runs.items():
            command = [sys.executable, "-m", "compiler", "compile", "mnli", "--force", "--on-error", "reject"]
            if kind == "check":
                command = [sys.executable, "-m", "compiler", "check", "mnli"]
            for path in paths:
                command += ["--source", f"train={path}"]
            seconds, cpu, peak = best_of_three(
                [*command, "--out", str(folder / "out"), *options], folder / "caches"
            )
            ratios = f"{seconds / plain:.2f} x the plain loop, {cpu / plain_cpu:.2f} x its CPU"
            print(f"compile {kind:13}  {seconds:.2f} s  {cpu:.2f} CPU s  {peak:.0f} MB  {ratios}", flush=True)


if __name__ == "__main__":
    main()
