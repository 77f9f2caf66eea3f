"""Scoring by workers that each have a GPU: the files of one process. Run with `pytest -m gpu`."""

import subprocess
import sys

import pytest

from testing.tiny import make_tiny, write_adapter
from tests.conftest import ROOT
from tests.gpu import gpus
from tests.json_files import write_json
from tests.runs_cut import tree

pytestmark = [pytest.mark.gpu, pytest.mark.timeout(900)]
ROWS = [
    {"instruction": f"Is {n} + {n} even? " + "Think well. " * (n % 7), "output": ["yes", "no"][n % 2]}
    for n in range(2000)
]


@pytest.mark.parametrize("mode", [["--mode", "choice"], ["--mode", "generate", "--max-new-tokens", "8"]])
def test_two_workers_with_a_gpu_each_write_the_files_of_one_process(tmp_path, mode):
    gpus(2)
    model = make_tiny(tmp_path / "model")
    adapter = write_adapter(tmp_path / "one")
    write_json(tmp_path / "sums.json", ROWS)
    given = ["--model", model, "--adapter", f"one={adapter}", "--data", tmp_path / "sums.json", *mode]
    command = [sys.executable, "-m", "eval.nli", *map(str, given), "--out", str(tmp_path / "out")]
    files = []
    for workers in ([], ["--workers", "2"]):
        subprocess.run([*command, *workers], cwd=ROOT, check=True)
        files.append(tree(tmp_path / "out"))
        (tmp_path / "out").rename(tmp_path / f"out-{len(files)}")
    assert files[0] == files[1]


def test_one_gpu_is_that_of_the_worker_alone(tmp_path):
    """The process that plans uses no GPU: with a single GPU, one worker has it."""
    there = gpus(1)
    model = make_tiny(tmp_path / "model")
    code = (
        "from pathlib import Path\n"
        "from tuneyard.core.execution.local_processes import LocalProcesses\n"
        "from tuneyard.eval.models.worker_model import open_in_workers, worker_slots\n"
        "import torch\n"
        "with LocalProcesses(worker_slots(1)) as workers:\n"
        f"    model = open_in_workers(workers, Path({str(model)!r}), [], None, None)\n"
        "assert model.device == 'cuda' and model.dtype == 'bf16', model\n"
        "assert not torch.cuda.is_initialized()\n"
    )
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True)
    write_json(tmp_path / "sums.json", ROWS[:2])
    count = there + 1
    given = [
        "--model",
        model,
        "--data",
        tmp_path / "sums.json",
        "--workers",
        count,
        "--out",
        tmp_path / "out",
    ]
    command = [sys.executable, "-m", "eval.nli", *map(str, given)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 2 and f"--workers {there}" in done.stderr
