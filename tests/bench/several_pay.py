"""`python -m tests.bench.several_pay`: from which size on two processes take less wall time than one.

Made-up MNLI rows as in tests/bench/compile.py, of about 250 bytes each. The two commands run in turn, so that
both meet the same load. `SEVERAL_PAY` in compiler/compile.py comes from this table.
"""

import json
import os
import statistics
import sys
import tempfile
from pathlib import Path

from tests.bench.compile import made_up
from tests.bench.compile_chunks import Measured

RUNS = 9
MEGABYTES = (4, 8, 16, 32, 64)


def main() -> None:
    """Print a line for each size: least and median wall of one process and of two."""
    with tempfile.TemporaryDirectory(prefix="tuneyard-bench-") as name:
        folder = Path(name)
        environment = {key: value for key, value in os.environ.items() if key != "PYTHONDONTWRITEBYTECODE"}
        environment["PYTHONPYCACHEPREFIX"] = str(folder / "caches")
        rows = made_up(MEGABYTES[-1] * 5000)
        lines = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows).encode()
        print(f"{len(os.sched_getaffinity(0))} cores, load average {os.getloadavg()[0]:.1f}")
        for megabytes in MEGABYTES:
            source = folder / f"{megabytes}.jsonl"
            source.write_bytes(lines[: lines.rindex(b"\n", 0, megabytes << 20) + 1])
            command = [sys.executable, "-m", "compiler", "compile", "mnli", "--force"]
            command += ["--source", f"train={source}", "--out", str(folder / "out"), "--workers"]
            measured = {workers: Measured() for workers in (1, 2)}
            for _ in range(RUNS):
                for workers, of in measured.items():
                    of.run([*command, str(workers)], environment)
            walls = [
                f"{workers} workers {min(of.wall):.2f} s, median {statistics.median(of.wall):.2f} s"
                for workers, of in measured.items()
            ]
            print(f"{megabytes:3} MB  {'   '.join(walls)}", flush=True)


if __name__ == "__main__":
    main()
