"""`python -m tools.bench.scale` with tiny numbers, without Ray."""

import subprocess
import sys

from tests.conftest import ROOT

TINY = "--adapters 3 --datasets 4 --rows 10 --row-us 500 --load-s 0 --workers 2 --kinds forks interpreters"


def test_each_run_gives_the_same_records_and_only_the_lost_task_runs_again() -> None:
    command = [sys.executable, "-m", "tools.bench.scale", *TINY.split()]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    lines = [line.split() for line in done.stdout.splitlines()[2:]]
    assert [line[:2] for line in lines] == [
        ["forks", "nothing"],
        ["interpreters", "nothing"],
        ["forks", "worker"],
        ["interpreters", "worker"],
    ]
    run_again = [line[line.index("=") - 1] for line in lines]
    assert run_again == ["0", "0", "1", "1"]
