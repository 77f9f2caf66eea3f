"""python -m tests.bench.stored [ROWS]: `data diff` and `data stats` beside the compile of the same rows.

CPU seconds are the least of three runs, memory is the peak of the process. The goal is one compile, of which
`diff` reads the result twice.
"""

import multiprocessing
import sys
import tempfile
from pathlib import Path

from tests.bench.compile import FILES, best_of_three, write_layouts

DATASET = "alpaca_mnli_train"


def main() -> None:
    """Print one line for each command: CPU seconds, MB, and how many times the compile."""
    with tempfile.TemporaryDirectory(prefix="tuneyard-bench-") as name:
        folder = Path(name)
        writer = multiprocessing.get_context("spawn").Process(target=write_layouts, args=(folder,))
        writer.start()
        writer.join()
        out = str(folder / "out")
        source = f"train={folder / FILES['jsonl']}"
        commands = {
            "compile": ["compile", "mnli", "--source", source, "--out", out, "--force"],
            "stats": ["stats", DATASET, "--dataset-dir", out],
            "diff with itself": ["diff", DATASET, DATASET, "--dataset-dir", out],
            "diff with changes": ["diff", DATASET, str(folder / "other.jsonl"), "--dataset-dir", out],
        }
        compile_cpu = 0.0
        for title, words in commands.items():
            if title == "diff with changes":
                write_answers_changed(
                    folder / "out" / "mnli" / "alpaca_mnli-train.json", folder / "other.jsonl"
                )
            command = [sys.executable, "-m", "compiler", *words]
            _, cpu, peak = best_of_three(command, folder / "caches")
            compile_cpu = compile_cpu or cpu
            print(
                f"{title:22} {cpu:.2f} CPU s  {peak:.0f} MB  {cpu / compile_cpu:.2f} x the compile",
                flush=True,
            )


def write_answers_changed(records: Path, target: Path) -> None:
    """Write the records as JSON Lines, each second one with another answer: nothing is the same in order."""
    with records.open(encoding="utf-8") as lines, target.open("w", encoding="utf-8") as file:
        for number, line in enumerate(lines):
            if line.startswith("{"):
                text = line.rstrip(",\n")
                file.write(text.replace('"output":"yes"', '"output":"no"') if number % 2 else text)
                file.write("\n")


if __name__ == "__main__":
    main()
