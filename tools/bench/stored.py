"""python -m tools.bench.stored [ROWS]: `data diff` and `data stats` beside the compile of the same rows.

Rows are the NLI rows of tools.bench.compile, and conversations of one to three exchanges (a quarter as many),
which are read record by record. CPU seconds are the least of three runs, memory is the peak of the process.
The goal is one compile, of which `diff` reads the result twice.
"""

import json
import multiprocessing
import random
import sys
import tempfile
from pathlib import Path

from tools.bench.compile import FILES, GIVEN, best_of_three, made_up, write_layouts

ROWS_A_CONVERSATION = 4
TALKS = """
like: messages
write: [{dataset: talks, file: talks.jsonl, format: sharegpt}]
"""


def main() -> None:
    """Print one line for each command: CPU seconds, MB, and how many times the compile."""
    with tempfile.TemporaryDirectory(prefix="tuneyard-bench-") as name:
        folder = Path(name)
        for write in (write_layouts, write_conversations):
            writer = multiprocessing.get_context("spawn").Process(target=write, args=(folder,))
            writer.start()
            writer.join()
        source = f"train={folder / FILES['jsonl']}"
        print("questions and answers")
        measure(folder, "mnli", source, "alpaca_mnli_train", Path("mnli") / "alpaca_mnli-train.json")
        (folder / "talks.yaml").write_text(TALKS)
        print("conversations")
        measure(
            folder,
            str(folder / "talks.yaml"),
            str(folder / "talks.jsonl"),
            "talks",
            Path("talks") / "talks.jsonl",
        )


def measure(folder: Path, spec: str, source: str, dataset: str, records: Path) -> None:
    """Compile a source and print the line of each command on its dataset, whose file is `records`."""
    out = str(folder / "out")
    other = folder / "other.jsonl"
    commands = {
        "compile": ["compile", spec, "--source", source, "--out", out, "--force", "--workers", "1"],
        "stats": ["stats", dataset, "--dataset-dir", out],
        "diff with itself": ["diff", dataset, dataset, "--dataset-dir", out],
        "diff with changes": ["diff", dataset, str(other), "--dataset-dir", out],
    }
    compile_cpu = 0.0
    for title, words in commands.items():
        if title == "diff with changes":
            write_answers_changed(folder / "out" / records, other)
        command = [sys.executable, "-m", "compiler", *words]
        _, cpu, peak = best_of_three(command, folder / "caches")
        compile_cpu = compile_cpu or cpu
        ratio = cpu / compile_cpu
        print(f"{title:22} {cpu:.2f} CPU s  {peak:.0f} MB  {ratio:.2f} x the compile", flush=True)


def write_conversations(folder: Path) -> None:
    """Write conversations of the words of samples/, the same ones in every run."""
    draw = random.Random(1)
    rows = int(GIVEN) if GIVEN.isdigit() else 392702
    texts = [str(row["premise"]) for row in made_up(2000)]
    with (folder / "talks.jsonl").open("w", encoding="utf-8") as file:
        for number in range(rows // ROWS_A_CONVERSATION):
            turns = []
            for _ in range(draw.randint(1, 3)):
                turns.append({"from": "human", "value": f"{draw.choice(texts)} {number}"})
                turns.append({"from": "gpt", "value": draw.choice(("yes", "no", draw.choice(texts)))})
            file.write(json.dumps({"conversations": turns}, ensure_ascii=False) + "\n")


def write_answers_changed(records: Path, target: Path) -> None:
    """Write the records as JSON Lines, each second one with another answer: nothing is the same in order."""
    with records.open(encoding="utf-8") as lines, target.open("w", encoding="utf-8") as file:
        for number, line in enumerate(lines):
            if line.startswith("{"):
                text = line.rstrip(",\n")
                if number % 2:
                    text = text.replace('"output":"yes"', '"output":"no"').replace(
                        '"value":"yes"', '"value":"no"'
                    )
                file.write(text)
                file.write("\n")


if __name__ == "__main__":
    main()
