"""`python -m tests.bench.compile_chunks [ROWS]`: several processes beside the plain loop and polars.

Made-up MNLI rows (392,702 by default, as in tests/bench/compile.py). Each command runs three times, in turn
with the others, so that all of them meet the same load; seconds are the least. CPU seconds are those of the
command with its workers. `MB` is the peak of the largest process: for several workers, the one that joins.

Goals on two free cores: wall 0.55 and CPU 0.85 times the plain loop, 150 MB a worker. polars, if it is
installed, reads the rows, fills in the template and writes JSON Lines, once without any check and once with a
scan for repeated prompts.
"""

import importlib.util
import multiprocessing
import os
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path

from tests.bench.compile import FILES, PLAIN, ROOT, write_layouts

RUNS = 3
POLARS = """
import sys
import polars
rows = polars.scan_ndjson(sys.argv[1])
asked = polars.format('Does "{}" imply that "{}"? Please answer yes or no or maybe.', "premise", "hypothesis")
made = rows.select(
    instruction=asked,
    input=polars.lit(""),
    output=polars.col("label").replace_strict({0: "yes", 1: "maybe", 2: "no"}),
    idx="idx",
).collect()
if len(sys.argv) > 3:
    print(made["instruction"].is_duplicated().sum())
made.write_ndjson(sys.argv[2])
"""


@dataclass(slots=True)
class Measured:
    """What runs of one command took: wall and CPU seconds, and the peak of its largest process in MB."""

    wall: list[float] = field(default_factory=list)
    cpu: list[float] = field(default_factory=list)
    peak: float = 0.0

    def run(self, command: list[str], environment: dict[str, str]) -> None:
        """Run the command once more."""
        start = time.perf_counter()
        process = subprocess.Popen(
            command, cwd=ROOT, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        _, status, usage = os.wait4(process.pid, 0)
        if status:
            raise SystemExit(f"{' '.join(command)}: ended with {os.waitstatus_to_exitcode(status)}")
        self.wall.append(time.perf_counter() - start)
        self.cpu.append(usage.ru_utime + usage.ru_stime)
        self.peak = max(self.peak, usage.ru_maxrss / 1024)


def commands_of(folder: Path) -> dict[str, list[str]]:
    """Each command by its name, the plain loop first."""
    lines = str(folder / FILES["jsonl"])
    scripts = {"plain": PLAIN, "with_polars": POLARS}
    for name, text in scripts.items():
        (folder / f"{name}.py").write_text(text)
    commands = {"plain loop": [sys.executable, str(folder / "plain.py"), lines, str(folder / "plain.json")]}
    if importlib.util.find_spec("polars"):
        polars = [sys.executable, str(folder / "with_polars.py"), lines, str(folder / "polars.jsonl")]
        commands["polars, no checks"] = polars
        commands["polars, repeats"] = [*polars, "repeats"]
    for workers in (1, 2, 4):
        for kind in ("jsonl", "tsv", "parquet") if workers == 2 else ("jsonl",):
            compiled = [sys.executable, "-m", "compiler", "compile", "mnli", "--force"]
            compiled += ["--source", f"train={folder / FILES[kind]}", "--out", str(folder / f"out{workers}")]
            commands[f"compile {kind}, {workers} workers"] = [*compiled, "--workers", str(workers)]
    return commands


def main() -> None:
    """Print a line for each command: seconds, memory, and how many times the plain loop."""
    with tempfile.TemporaryDirectory(prefix="tuneyard-bench-") as name:
        folder = Path(name)
        # in a process of its own: a child's peak memory would begin with what its parent holds
        writer = multiprocessing.get_context("spawn").Process(target=write_layouts, args=(folder,))
        writer.start()
        writer.join()
        environment = {key: value for key, value in os.environ.items() if key != "PYTHONDONTWRITEBYTECODE"}
        environment["PYTHONPYCACHEPREFIX"] = str(folder / "caches")
        commands = commands_of(folder)
        measured = {title: Measured() for title in commands}
        for _ in range(RUNS):
            for title, command in commands.items():
                measured[title].run(command, environment)
        print(f"{len(os.sched_getaffinity(0))} cores, load average {os.getloadavg()[0]:.1f}")
        plain = measured["plain loop"]
        for title, of in measured.items():
            wall, cpu = min(of.wall), min(of.cpu)
            ratios = f"{wall / min(plain.wall):.2f} x wall  {cpu / min(plain.cpu):.2f} x CPU"
            print(f"{title:28} {wall:6.2f} s  {cpu:6.2f} CPU s  {of.peak:4.0f} MB  {ratios}", flush=True)


if __name__ == "__main__":
    main()
